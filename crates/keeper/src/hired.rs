//! A worker with what is known of it.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use crate::process::Worker;

/// A worker that stands by has this long to find out whether it can follow.
pub(crate) const STAND_BY: Duration = Duration::from_secs(30);

/// One worker with what is known of it.
pub(crate) struct Hired {
    pub(crate) worker: Worker,
    pub(crate) file: OwnedFd,
    pub(crate) is_ready: bool,
    pub(crate) heard: Instant,
    /// It waits for the answer to `Take`.
    pub(crate) wants_to_take: bool,
    /// It was told to end, or is being killed.
    pub(crate) is_ending: bool,
    /// Its socket is open.
    pub(crate) is_heard: bool,
    /// It hangs, and was asked then what its threads are at.
    pub(crate) asked: Option<Instant>,
}

impl Hired {
    pub(crate) fn new(worker: Worker, file: OwnedFd) -> Hired {
        Hired {
            worker,
            file,
            is_ready: false,
            heard: Instant::now(),
            wants_to_take: false,
            is_ending: false,
            is_heard: true,
            asked: None,
        }
    }

    /// It stands by for too long, whatever it says meanwhile.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        !self.wants_to_take && !self.is_ending && now.duration_since(self.worker.started) >= STAND_BY
    }
}
