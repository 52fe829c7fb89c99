//! A worker with what is known of it.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use crate::process::Worker;

/// A program that is to take over has this long to find out whether it can follow.
pub(crate) const STAND_BY: Duration = Duration::from_secs(30);
/// A spare worker has longer: what it needs may have to be swapped out first, on a host that does little else.
pub(crate) const SPARE_STAND_BY: Duration = Duration::from_secs(300);

/// One worker with what is known of it.
pub(crate) struct Hired {
    pub(crate) worker: Worker,
    pub(crate) file: OwnedFd,
    pub(crate) is_ready: bool,
    /// Its program has never served.
    pub(crate) is_on_trial: bool,
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
            is_on_trial: false,
            heard: Instant::now(),
            wants_to_take: false,
            is_ending: false,
            is_heard: true,
            asked: None,
        }
    }

    /// It is to serve, and does not yet.
    pub(crate) fn is_starting(&self) -> bool {
        !self.is_ready && !self.is_ending
    }

    /// It stands by for too long, whatever it says meanwhile.
    pub(crate) fn is_late(&self, now: Instant, limit: Duration) -> bool {
        !self.wants_to_take && !self.is_ending && now.duration_since(self.worker.started) >= limit
    }
}
