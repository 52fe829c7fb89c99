//! What a queue's thread does from a kick until it sleeps again.
//!
//! The thread serves batches of requests under the ring's lock. When the ring is empty it may poll for a
//! while (see [`PollPolicy`]) without any lock, so that no control message waits for it, with the guest's
//! kicks turned off. Before it sleeps, it turns them on and looks once more, so that none is lost.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tmem_disk::SwapDisk;
use tmem_faults::Point;
use tmem_transport::{LogLimit, PollLimit, PollPolicy, vigil};
use vhost_user_backend::VringState;
use virtio_queue::QueueT;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory, VolatileSlice,
};

use crate::coalescing::Coalescing;
use crate::counters::Counters;
use crate::lost_memory;
use crate::queue::{BrokenQueue, QueueServer, RequestRoom, needs_signal, outside};
use crate::vring::{BlkVring, SharedMemory};

/// Requests served before the guest is signalled and the lock released. More would make the first of a
/// batch wait for the last, a page taking a few microseconds; fewer would signal needlessly often.
const BATCH: u16 = 16;
/// Looks at the ring between two looks at the clock: together about a microsecond.
const LOOKS_PER_ROUND: u32 = 24;
/// A round that takes this long was interrupted: another thread needs the CPU, perhaps the guest itself. The
/// thread then sleeps, since one that wakes gets a CPU sooner than one that has used up its share in
/// looking. (Yielding instead was measured, too: on a busy machine it cost milliseconds per request.)
const INTERRUPTED: Duration = Duration::from_micros(200);

/// What the queues of a connection share.
pub(crate) struct Shared {
    /// The guest's memory.
    pub(crate) memory: SharedMemory,
    /// Grows when the guest's memory is replaced.
    pub(crate) memory_changes: AtomicU32,
    /// The connection ends: nothing more is served.
    pub(crate) stopping: AtomicBool,
    /// A part of the guest's memory is gone: nothing more is served, and the connection is to end.
    pub(crate) memory_lost: AtomicBool,
    /// Limit of polling.
    pub(crate) poll_limit: PollLimit,
    /// Limits the lines about what the guest did wrong.
    pub(crate) log_limit: LogLimit,
}

/// What a queue's thread remembers from one wake-up to the next.
#[derive(Default)]
pub(crate) struct QueueState {
    policy: PollPolicy,
    coalescing: Coalescing,
    /// When the queue last ran empty.
    empty_since: Option<Instant>,
    /// The thread has polled since then, and given up.
    in_vain: bool,
    /// The guest has been signalled once, or there was nothing to signal. A process before this one may have died between a request and
    /// its signal.
    greeted: bool,
}

/// One queue while its thread is awake.
pub(crate) struct Worker<'a> {
    pub(crate) disk: &'a SwapDisk,
    pub(crate) counters: &'a Counters,
    pub(crate) shared: &'a Shared,
    pub(crate) vring: &'a BlkVring,
    pub(crate) max_queue_size: u16,
}

/// How a batch went.
enum Batch {
    /// The ring may hold more.
    Served,
    /// The ring is empty, and may have been so before.
    Empty { served: bool, next_available: u16, available_index: GuestAddress },
    /// The ring is stopped.
    Stopped,
}

/// Why the thread stopped looking at the ring.
#[derive(PartialEq, Eq)]
enum Polled {
    Request,
    TimeUp,
    Control,
}

impl Shared {
    /// Whether nothing more is served.
    fn is_over(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.memory_lost.load(Ordering::Relaxed)
    }
}

impl Worker<'_> {
    /// Serves until there is nothing more to do.
    pub(crate) fn run(&self, state: &mut QueueState) -> Result<(), BrokenQueue> {
        while !self.shared.is_over() {
            let memory_changes = self.shared.memory_changes.load(Ordering::Acquire);
            let memory = self.shared.memory.memory();
            let run = || self.run_on(&memory, memory_changes, state);
            let ended = lost_memory::watch(&memory, &self.shared.memory_lost, run);
            self.pay_signal();
            if ended? {
                break;
            }
        }
        Ok(())
    }

    /// Serves until there is nothing more to do (true) or the memory is another (false).
    fn run_on(
        &self,
        memory: &GuestMemoryMmap,
        memory_changes: u32,
        state: &mut QueueState,
    ) -> Result<bool, BrokenQueue> {
        let server = QueueServer::new(self.disk, self.counters, &self.shared.log_limit, self.max_queue_size);
        let mut room = RequestRoom::default();
        let leave = || {
            self.vring.control_waits()
                || self.shared.stopping.load(Ordering::Relaxed)
                || self.shared.memory_changes.load(Ordering::Relaxed) != memory_changes
        };
        // The gap to the first request counts from when the ring ran empty, before the thread slept.
        let mut empty_since = state.empty_since.take();
        let mut found_at = Instant::now();
        // Until when the signal that is owed is held.
        let mut held_until: Option<Instant> = None;
        loop {
            if self.shared.is_over() {
                return Ok(true);
            }
            if self.shared.memory_changes.load(Ordering::Acquire) != memory_changes {
                state.empty_since = empty_since;
                return Ok(false);
            }
            let at_work = vigil::begin();
            let batch = self.batch(&server, memory, &mut room, leave, &mut state.greeted)?;
            drop(at_work);
            let limit_us = self.shared.poll_limit.us();
            let (served, next_available, available_index) = match batch {
                Batch::Stopped => return Ok(true),
                Batch::Served => (true, 0, None),
                Batch::Empty { served, next_available, available_index } => {
                    (served, next_available, Some(available_index))
                }
            };
            if served && let Some(since) = empty_since.take() {
                let gap_us = found_at.saturating_duration_since(since).as_micros();
                let gap_us = u32::try_from(gap_us).unwrap_or(u32::MAX);
                state.policy.request_after(gap_us, std::mem::take(&mut state.in_vain), limit_us);
            }
            let now = Instant::now();
            if served && held_until.is_some() {
                state.coalescing.was_of_use();
            }
            held_until =
                self.vring.owes_signal().then(|| held_until.unwrap_or_else(|| now + state.coalescing.hold()));
            if held_until.is_some_and(|until| until <= now) {
                self.pay_signal();
                held_until = None;
            }
            let Some(available_index) = available_index else { continue };

            let since = *empty_since.get_or_insert(now);
            let window = Duration::from_micros(state.policy.window_us(limit_us).into());
            let left = window.saturating_sub(now.saturating_duration_since(since));
            if !left.is_zero() {
                let slice = available_slice(memory, available_index)?;
                let available = slice.get_atomic_ref(0).map_err(|_| BrokenQueue::RingOutsideMemory)?;
                let held = held_until.map(|until| until.saturating_duration_since(now));
                let looked = held.map_or(left, |held| held.min(left));
                let polled = self.poll(available, next_available, now, looked, memory_changes);
                if polled != Polled::TimeUp {
                    found_at = Instant::now();
                    continue;
                }
                if held.is_some() {
                    self.pay_signal();
                    held_until = None;
                    state.coalescing.was_in_vain();
                    // There may be time left to poll, unless something else needs the CPU.
                    if looked < left && now.elapsed() < looked + INTERRUPTED {
                        continue;
                    }
                }
                state.in_vain = true;
            }
            self.pay_signal();
            held_until = None;
            if self.may_sleep(memory)? {
                state.empty_since = Some(since);
                return Ok(true);
            }
            found_at = Instant::now();
        }
    }

    /// Serves some requests under the ring's lock, and signals the guest if somebody there may wait.
    fn batch<'m>(
        &self,
        server: &QueueServer<'_>,
        memory: &'m GuestMemoryMmap,
        room: &mut RequestRoom<'m>,
        leave: impl Fn() -> bool,
        greeted: &mut bool,
    ) -> Result<Batch, BrokenQueue> {
        let mut ring = self.vring.lock_to_serve();
        if !self.runs(&ring) {
            return Ok(Batch::Stopped);
        }
        let queue = ring.get_queue_mut();
        queue.disable_notification(memory).map_err(outside)?;
        let before = queue.next_used();
        let greets = !std::mem::replace(greeted, true) && before != 0;
        let served = server.serve(queue, memory, room, BATCH, leave);
        if queue.next_used() != before {
            tmem_faults::pass(Point::UsedRing);
        }
        // What was served before the ring turned out broken is done, and the guest hears of it.
        if (queue.next_used() != before && needs_signal(queue, memory, before)?) || greets {
            self.vring.owe_signal();
        }
        // Whoever sends control messages may end the ring.
        let may_hold = served.is_ok_and(|served| !served.is_waited_for) && !greets;
        if !may_hold || self.vring.control_waits() {
            self.pay_signal_of(&ring);
        }
        if served?.requests == BATCH || self.vring.control_waits() {
            return Ok(Batch::Served);
        }
        let queue = ring.get_queue();
        Ok(Batch::Empty {
            served: queue.next_used() != before,
            next_available: queue.next_avail(),
            available_index: GuestAddress(queue.avail_ring().saturating_add(2)),
        })
    }

    /// Looks for a request without the lock. The memory is held by the caller, so the index stays mapped
    /// even when the ring is stopped or the memory replaced meanwhile; both end the looking.
    fn poll(
        &self,
        available: &AtomicU16,
        next_available: u16,
        start: Instant,
        window: Duration,
        memory_changes: u32,
    ) -> Polled {
        let ring_changes = self.vring.changes();
        let mut last = Duration::ZERO;
        loop {
            for _ in 0..LOOKS_PER_ROUND {
                if u16::from_le(available.load(Ordering::Acquire)) != next_available {
                    return Polled::Request;
                }
                std::hint::spin_loop();
            }
            let elapsed = start.elapsed();
            if elapsed >= window || elapsed - last >= INTERRUPTED {
                return Polled::TimeUp;
            }
            last = elapsed;
            let changed = self.vring.changes() != ring_changes
                || self.shared.memory_changes.load(Ordering::Relaxed) != memory_changes
                || self.shared.is_over();
            if changed {
                return Polled::Control;
            }
        }
    }

    /// Turns the guest's kicks on. False if a request came in meanwhile, whose kick may never come.
    fn may_sleep(&self, memory: &GuestMemoryMmap) -> Result<bool, BrokenQueue> {
        let mut ring = self.vring.lock_to_serve();
        if !self.runs(&ring) {
            return Ok(true);
        }
        let more = ring.get_queue_mut().enable_notification(memory).map_err(outside)?;
        Ok(!more)
    }

    fn runs(&self, ring: &VringState<SharedMemory>) -> bool {
        ring.is_enabled() && ring.get_queue().ready() && !self.vring.is_broken()
    }

    /// Signals the guest if that is owed.
    fn pay_signal(&self) {
        if self.vring.owes_signal() {
            self.pay_signal_of(&self.vring.lock_to_serve());
        }
    }

    fn pay_signal_of(&self, ring: &VringState<SharedMemory>) {
        if let Err(error) = self.vring.pay_signal(ring)
            && let Some(hidden) = self.shared.log_limit.admit(Instant::now())
        {
            let name = self.disk.name();
            log::warn!("disk {name}: cannot signal the guest: {error} ({hidden} like it not logged)");
        }
    }
}

/// The index of the available ring, which the guest moves on when it adds requests.
fn available_slice(memory: &GuestMemoryMmap, at: GuestAddress) -> Result<VolatileSlice<'_>, BrokenQueue> {
    GuestMemoryBackend::get_slice(memory, at, size_of::<u16>()).map_err(|_| BrokenQueue::RingOutsideMemory)
}
