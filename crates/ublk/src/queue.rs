//! A queue's thread: fetches requests, carries them out one by one, polls for more, sleeps.
//!
//! From its first request on it allocates nothing, logs nothing and takes no lock of the transport's. It ends when the driver has
//! said of each tag that nothing more comes, or when its ring fails; the driver then ends the device.

use std::{
    fs::File,
    io,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use tmem_disk::SwapDisk;
use tmem_transport::{PollLimit, PollPolicy, thread_name, vigil};

use crate::{
    abi::{Fetch, Numbering, RESULT_ABORT},
    buffers::{Buffers, Descriptors},
    error::UblkError,
    execute::execute,
    io_flusher, locked_memory,
    lost_pages::LostPages,
    request::Request,
    ring::Ring,
};

/// Results that are collected before they are sent. More would make the first wait for the last; fewer would cost a system call
/// each.
const BATCH: u32 = 8;
/// Looks at the ring between two looks at the clock: together about a microsecond.
const LOOKS_PER_ROUND: u32 = 24;
/// A round that takes this long was interrupted: somebody else needs the CPU, perhaps whoever sends the requests.
const INTERRUPTED: Duration = Duration::from_micros(200);

/// What a queue's thread is given.
pub(crate) struct Queue {
    pub(crate) disk: Arc<SwapDisk>,
    pub(crate) lost: Arc<LostPages>,
    pub(crate) device: Arc<File>,
    pub(crate) number: u16,
    pub(crate) depth: u16,
    pub(crate) max_request_bytes: usize,
    pub(crate) numbering: Numbering,
    pub(crate) poll_limit: PollLimit,
}

/// A queue that has all it needs.
struct Serving {
    queue: Queue,
    ring: Ring,
    buffers: Buffers,
    descriptors: Descriptors,
    /// Tags that may still get requests.
    tags: u16,
    pace: Pace,
}

impl Queue {
    /// The thread's whole life. Says once whether it is ready; the device may be started when all queues are.
    pub(crate) fn run(self, ready: &Sender<Result<(), UblkError>>) {
        thread_name::set(&thread_name::of("ublk", self.disk.name(), &format!("-q{}", self.number)));
        let prepared = self.prepare();
        let (told, serving) = match prepared {
            Ok(serving) => (Ok(()), Some(serving)),
            Err(error) => (Err(error), None),
        };
        // Nobody listens any more if another queue has failed.
        let _ = ready.send(told);
        if let Some(mut serving) = serving
            && let Err(error) = serving.serve()
        {
            let (disk, number) = (serving.queue.disk.name(), serving.queue.number);
            log::error!("disk {disk}: queue {number} failed, and the device with it: {error}");
        }
    }

    fn prepare(self) -> Result<Serving, UblkError> {
        io_flusher::become_io_flusher()?;
        locked_memory::touch_stack();
        vigil::enter();
        let memory = |error| UblkError::Memory { error };
        let buffers = Buffers::new(self.depth, self.max_request_bytes).map_err(memory)?;
        let descriptors = Descriptors::map(&self.device, self.number, self.depth).map_err(memory)?;
        let ring_failed = |error| UblkError::Ring { error };
        let mut ring =
            Ring::new(&self.device, self.number, self.depth, self.numbering).map_err(ring_failed)?;
        for tag in 0..self.depth {
            // SAFETY: the buffers stay as long as the ring, and are looked at only between a request and its result.
            unsafe { ring.push(Fetch::First, tag, 0, buffers.address(tag)) }.map_err(ring_failed)?;
        }
        ring.submit().map_err(ring_failed)?;
        let tags = self.depth;
        Ok(Serving { queue: self, ring, buffers, descriptors, tags, pace: Pace::default() })
    }
}

impl Serving {
    fn serve(&mut self) -> io::Result<()> {
        while self.tags > 0 {
            let found = Instant::now();
            if self.carry_out_what_is_there()? {
                self.pace.served(found, self.queue.poll_limit.us());
                continue;
            }
            let window = self.pace.window(self.queue.poll_limit.us());
            if !window.is_zero() {
                if self.poll(window) {
                    self.ring.submit()?;
                    continue;
                }
                self.pace.in_vain = true;
            }
            self.ring.wait()?;
        }
        Ok(())
    }

    /// Carries out every request that is there, and sends the results. False: there was none.
    fn carry_out_what_is_there(&mut self) -> io::Result<bool> {
        let mut served = false;
        let mut unsent = 0;
        while let Some(event) = self.ring.next() {
            served = true;
            if event.result != 0 {
                // The end of the tag, be it that the device ends or that the driver takes no more commands of ours.
                debug_assert_eq!(event.result, RESULT_ABORT);
                self.tags = self.tags.saturating_sub(1);
                continue;
            }
            let buffer = self.buffers.of(event.tag);
            let request = Request::of(self.descriptors.of(event.tag), buffer.len());
            let at_work = vigil::begin();
            let result = execute(&self.queue.disk, &self.queue.lost, request, buffer);
            drop(at_work);
            let address = self.buffers.address(event.tag);
            // SAFETY: the buffers stay as long as the ring, and this one is looked at again only after the tag's next event.
            unsafe { self.ring.push(Fetch::CommitAndFetch, event.tag, result, address) }?;
            unsent += 1;
            if unsent == BATCH {
                self.ring.submit()?;
                unsent = 0;
            }
        }
        if unsent > 0 {
            self.ring.submit()?;
        }
        Ok(served)
    }

    /// Looks for a request for so long. False: none came, or somebody else needs the CPU.
    fn poll(&mut self, window: Duration) -> bool {
        let start = Instant::now();
        let mut last = Duration::ZERO;
        loop {
            for _ in 0..LOOKS_PER_ROUND {
                if self.ring.has_news() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let elapsed = start.elapsed();
            if elapsed >= window || elapsed - last >= INTERRUPTED {
                return false;
            }
            last = elapsed;
        }
    }
}

/// When to poll and when to sleep.
#[derive(Default)]
struct Pace {
    policy: PollPolicy,
    /// When the queue last ran empty.
    empty_since: Option<Instant>,
    /// The thread has polled since then, and given up.
    in_vain: bool,
}

impl Pace {
    /// Requests were found at that moment.
    fn served(&mut self, found: Instant, limit_us: u32) {
        if let Some(since) = self.empty_since.take() {
            let gap_us = found.saturating_duration_since(since).as_micros();
            let in_vain = std::mem::take(&mut self.in_vain);
            self.policy.request_after(u32::try_from(gap_us).unwrap_or(u32::MAX), in_vain, limit_us);
        }
    }

    /// How long to poll from now on, the queue being empty.
    fn window(&mut self, limit_us: u32) -> Duration {
        let now = Instant::now();
        let since = *self.empty_since.get_or_insert(now);
        let window = Duration::from_micros(self.policy.window_us(limit_us).into());
        window.saturating_sub(now.saturating_duration_since(since))
    }
}
