//! A queue's io_uring: requests come out of it, results go in.

use std::{fs::File, io, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, types};

use crate::abi::{Fetch, Numbering};

/// The character device is the ring's only file.
const DEVICE: types::Fixed = types::Fixed(0);

/// The ring of one queue. It belongs to the queue's thread.
pub(crate) struct Ring {
    ring: IoUring,
    queue: u16,
    numbering: Numbering,
}

/// A tag has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) tag: u16,
    /// 0: there is a request. Less: an error of the OS's.
    pub(crate) result: i32,
}

impl Ring {
    /// A ring with room for all tags of a queue.
    pub(crate) fn new(device: &File, queue: u16, depth: u16, numbering: Numbering) -> io::Result<Self> {
        // Requests are handed over when this thread enters the kernel, not by interrupting it; while it polls a flag says when
        // that is worthwhile.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(depth.into())?;
        ring.submitter().register_files(&[device.as_raw_fd()])?;
        Ok(Self { ring, queue, numbering })
    }

    /// Puts in a command for a tag; [`Ring::submit`] sends it. There is room for one of each tag.
    ///
    /// # Safety
    /// The buffer stays, and is used by the kernel only, until the tag's next event.
    pub(crate) unsafe fn push(&mut self, what: Fetch, tag: u16, result: i32, buffer: u64) -> io::Result<()> {
        let body = Fetch::body(self.queue, tag, result, buffer);
        let entry = opcode::UringCmd16::new(DEVICE, what.number(self.numbering))
            .cmd(body)
            .build()
            .user_data(tag.into());
        // SAFETY: the buffer is the kernel's until the event, by the caller's promise; the command has nothing else.
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)
    }

    /// The next event that is there.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let entry = self.ring.completion().next()?;
        // No more tags than 16 bits can count were ever pushed.
        Some(Event { tag: entry.user_data() as u16, result: entry.result() })
    }

    /// Whether the kernel has events, or could have them at once. Costs no system call.
    pub(crate) fn has_news(&mut self) -> bool {
        !self.ring.completion().is_empty() || self.ring.submission().taskrun()
    }

    /// Sends what was pushed and gets what is there, without waiting.
    pub(crate) fn submit(&self) -> io::Result<()> {
        enter(&self.ring, 0)
    }

    /// Sends what was pushed, and sleeps until there is an event.
    pub(crate) fn wait(&self) -> io::Result<()> {
        enter(&self.ring, 1)
    }
}

/// For a moment the kernel may be short of what it needs, or a signal may come: then it is asked again.
fn enter(ring: &IoUring, events: usize) -> io::Result<()> {
    loop {
        match ring.submit_and_wait(events) {
            Ok(_) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                _ => return Err(error),
            },
        }
    }
}
