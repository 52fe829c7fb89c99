//! Reads and writes of the disk that are waited for, but not for ever.

use std::{
    io,
    mem::ManuallyDrop,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use io_uring::{
    IoUring, opcode,
    register::Restriction,
    squeue,
    types::{Fd, SubmitArgs, Timespec},
};

use crate::{buffer::Buffer, disk::Disk, layout::SECTOR_BYTES};

/// A way of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

/// What became of a request: how many bytes were moved. Fewer than asked for are the end of the file.
pub(crate) type Outcome = io::Result<usize>;

/// An io_uring and the buffers that its requests use, one request a buffer. A request that takes too long stays with its buffer
/// until the kernel is done with it, and the queue with it, even if it is dropped.
pub(crate) struct Queue {
    /// Dropped by hand: see [`Drop`].
    inner: ManuallyDrop<Inner>,
}

struct Inner {
    ring: IoUring,
    slots: Vec<Slot>,
}

struct Slot {
    buffer: Buffer,
    request: Option<Request>,
}

/// While it is there, its slot's buffer is the kernel's.
struct Request {
    /// Keeps the descriptor open.
    disk: Arc<Disk>,
    operation: Operation,
    offset: u64,
    len_bytes: usize,
    done_bytes: usize,
    /// Nobody waits for it any more.
    abandoned: bool,
}

/// A file that says "later" more often than this is failing.
const MAX_RETRIES: u32 = 100;

/// A ring that reads and writes, and takes nothing else: whoever takes this process over opens and connects nothing by it.
fn restricted(entries: u32) -> io::Result<IoUring> {
    let ring = IoUring::builder().setup_r_disabled().build(entries)?;
    let mut allowed = [opcode::Read::CODE, opcode::Write::CODE].map(Restriction::sqe_op);
    ring.submitter().register_restrictions(&mut allowed)?;
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

impl Queue {
    /// A queue of `slots` buffers, each of `buffer_bytes`. Errors: the kernel has no io_uring (of Linux 5.11), does not allow it, or
    /// there is no memory.
    pub(crate) fn new(slots: usize, buffer_bytes: usize) -> io::Result<Self> {
        let ring = restricted(slots.next_power_of_two() as u32)?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let slots = (0..slots)
            .map(|_| Ok(Slot { buffer: Buffer::new(buffer_bytes)?, request: None }))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { inner: ManuallyDrop::new(Inner { ring, slots }) })
    }

    /// Whether the kernel still has requests.
    pub(crate) fn is_busy(&self) -> bool {
        self.inner.slots.iter().any(|slot| slot.request.is_some())
    }

    /// A slot that has no request.
    pub(crate) fn idle_slot(&self) -> Option<usize> {
        self.inner.slots.iter().position(|slot| slot.request.is_none())
    }

    /// The bytes of a slot. `None` while it has a request.
    pub(crate) fn bytes(&mut self, slot: usize) -> Option<&mut [u8]> {
        match self.inner.slots.get_mut(slot) {
            Some(Slot { buffer, request: None }) => Some(buffer.as_mut_slice()),
            _ => None,
        }
    }

    /// Lets `with` exchange the buffer of a slot for another of the same length. Not while it has a request.
    pub(crate) fn exchange(&mut self, slot: usize, with: impl FnOnce(&mut Buffer)) {
        if let Some(Slot { buffer, request: None }) = self.inner.slots.get_mut(slot) {
            with(buffer);
        }
    }

    /// Starts to move the first `len_bytes` of a slot's buffer from or to `offset` of the disk. Errors: nothing was started.
    pub(crate) fn start(
        &mut self,
        slot: usize,
        disk: &Arc<Disk>,
        operation: Operation,
        offset: u64,
        len_bytes: usize,
    ) -> io::Result<()> {
        let inner = &mut *self.inner;
        match inner.slots.get_mut(slot) {
            Some(Slot { buffer, request: request @ None }) if len_bytes <= buffer.len_bytes() => {
                let disk = disk.clone();
                *request =
                    Some(Request { disk, operation, offset, len_bytes, done_bytes: 0, abandoned: false });
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        let pushed = inner.push(slot);
        if pushed.is_err() {
            inner.slots[slot].request = None;
        }
        pushed
    }

    /// Lets the kernel begin with what was started. What it can't take now goes with the next waiting.
    pub(crate) fn submit(&self) {
        let _ = self.inner.ring.submit();
    }

    /// The next request that is done: its slot and what became of it. Errors: `TimedOut` if there is none by `deadline`, or the ring is
    /// of no use.
    pub(crate) fn finished(&mut self, deadline: Instant) -> io::Result<(usize, Outcome)> {
        let mut retries = 0;
        loop {
            let completion = self.inner.ring.completion().next();
            if let Some(completion) = completion {
                let slot = completion.user_data() as usize;
                if let Some(outcome) = self.inner.completed(slot, completion.result(), &mut retries)? {
                    return Ok((slot, outcome));
                }
                continue;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            self.inner.wait(rest)?;
            if rest.is_zero() && self.inner.ring.completion().is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// Moves bytes with the first slot alone, and waits for it. Errors: the disk's, or `TimedOut`.
    pub(crate) fn run(
        &mut self,
        disk: &Arc<Disk>,
        operation: Operation,
        offset: u64,
        len_bytes: usize,
        patience: Duration,
    ) -> Outcome {
        self.start(0, disk, operation, offset, len_bytes)?;
        let (_, outcome) = self.finished(Instant::now() + patience).inspect_err(|_| self.abandon())?;
        outcome
    }

    /// Nobody waits for the requests any more: what the kernel has of them it may still do, and no more.
    pub(crate) fn abandon(&mut self) {
        for request in self.inner.slots.iter_mut().filter_map(|slot| slot.request.as_mut()) {
            request.abandoned = true;
        }
    }

    /// Looks whether the kernel is done with abandoned requests. `true`: it has none any more.
    pub(crate) fn settle(&mut self) -> bool {
        while self.is_busy() {
            if self.finished(Instant::now()).is_err() {
                return false;
            }
        }
        true
    }
}

impl Inner {
    /// Gives the kernel the rest of a slot's request.
    fn push(&mut self, slot: usize) -> io::Result<()> {
        let Slot { buffer, request: Some(request) } = &self.slots[slot] else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let file = Fd(request.disk.file.as_raw_fd());
        let rest_bytes = (request.len_bytes - request.done_bytes) as u32;
        let offset = request.offset + request.done_bytes as u64;
        // SAFETY: start() has checked that the length is within the buffer.
        let address = unsafe { buffer.as_ptr().add(request.done_bytes) };
        let entry: squeue::Entry = match request.operation {
            Operation::Read => opcode::Read::new(file, address, rest_bytes).offset(offset).build(),
            Operation::Write => opcode::Write::new(file, address, rest_bytes).offset(offset).build(),
        };
        // SAFETY: buffer and descriptor stay where they are until the completion: the slot has a request until then, so nobody gets
        // its bytes or exchanges its buffer, and Drop forgets the slots that still have one.
        unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) }
            .map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))
    }

    fn wait(&self, rest: Duration) -> io::Result<()> {
        let timeout = Timespec::from(rest);
        match self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // EBUSY, EAGAIN: the kernel is short of something just now.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// What the kernel's answer means. `None`: the request goes on.
    fn completed(&mut self, slot: usize, result: i32, retries: &mut u32) -> io::Result<Option<Outcome>> {
        let Some(Slot { request: taken, .. }) = self.slots.get_mut(slot) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Some(request) = taken else { return Err(io::ErrorKind::InvalidData.into()) };
        request.done_bytes += result.max(0) as usize;
        let again = match -result {
            libc::EINTR | libc::EAGAIN => *retries < MAX_RETRIES,
            // Part of it: direct I/O goes on at a whole sector or not at all.
            _ => {
                result > 0
                    && (result as usize).is_multiple_of(SECTOR_BYTES)
                    && request.done_bytes < request.len_bytes
            }
        };
        if again && !request.abandoned {
            *retries += 1;
            self.push(slot)?;
            return Ok(None);
        }
        let Request { operation, len_bytes, done_bytes, .. } = *request;
        *taken = None;
        Ok(Some(if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else if operation == Operation::Write && done_bytes < len_bytes {
            Err(io::ErrorKind::WriteZero.into())
        } else {
            Ok(done_bytes)
        }))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.settle() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
        // Else the kernel may still write to the buffers: they are never given back.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_takes_nothing_but_reads_and_writes() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let fd = Fd(null.as_raw_fd());
        let mut ring = restricted(2).unwrap();
        let read = opcode::Read::new(fd, std::ptr::null_mut(), 0).build();
        let sync = opcode::Fsync::new(fd).build();
        let results = [read, sync].map(|entry| {
            // SAFETY: neither has a buffer, and the file stays open until both are done.
            unsafe { ring.submission().push(&entry) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            ring.completion().next().map(|done| done.result())
        });
        assert_eq!(results, [Some(0), Some(-libc::EACCES)]);
    }
}
