//! Queues for readers: each read has one for itself.

use std::{
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{queue::Queue, windows::WINDOW_BYTES};

/// Reads that can be under way at once: what keeps an SSD busy. With 44 KiB for each, 1.4 MiB in all.
const LANES: usize = 32;

/// The queues that nobody uses, and those that the kernel has not given back yet.
pub(crate) struct Lanes {
    lanes: Mutex<State>,
    freed: Condvar,
}

struct State {
    idle: Vec<Queue>,
    stuck: Vec<Queue>,
}

impl State {
    fn reap(&mut self) {
        for at in (0..self.stuck.len()).rev() {
            if self.stuck[at].settle() {
                let lane = self.stuck.swap_remove(at);
                self.idle.push(lane);
            }
        }
    }
}

impl Lanes {
    /// All of them. Errors: as those of [`Queue::new`].
    pub(crate) fn new() -> io::Result<Self> {
        let idle = (0..LANES).map(|_| Queue::new(1, WINDOW_BYTES)).collect::<io::Result<_>>()?;
        Ok(Self {
            lanes: Mutex::new(State { idle, stuck: Vec::with_capacity(LANES) }),
            freed: Condvar::new(),
        })
    }

    /// An idle one. `None`: there was none until `deadline`.
    pub(crate) fn take(&self, deadline: Instant) -> Option<Queue> {
        let mut lanes = self.lock();
        loop {
            if let Some(lane) = lanes.idle.pop() {
                return Some(lane);
            }
            lanes.reap();
            if !lanes.idle.is_empty() {
                continue;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return None;
            }
            lanes = self.freed.wait_timeout(lanes, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Done with it, or with waiting for it.
    pub(crate) fn give_back(&self, lane: Queue) {
        let mut lanes = self.lock();
        if lane.is_busy() {
            lanes.stuck.push(lane);
        } else {
            lanes.idle.push(lane);
        }
        drop(lanes);
        self.freed.notify_one();
    }

    /// Looks for those that the kernel has given back.
    pub(crate) fn reap(&self) {
        self.lock().reap();
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Two lists, whole between any two of their changes.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
