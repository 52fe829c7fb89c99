//! How many connections there may be at all addresses together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Connections at all addresses at one time. Each has a thread, a descriptor, and up to 768 KiB of buffers: 3 GiB if all of them are in the
/// middle of long requests.
const MAX_CONNECTIONS: usize = 4096;

/// The places for connections.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    most: usize,
    now: AtomicUsize,
}

/// A place that is taken. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place(Arc<Taken>);

impl Places {
    /// As many as there may be in this process: half of its descriptors are left to everything else.
    pub(crate) fn of_this_process() -> Self {
        let half = descriptor_limit().map_or(usize::MAX, |limit| limit / 2);
        Self::new(MAX_CONNECTIONS.min(half).max(1))
    }

    fn new(most: usize) -> Self {
        Self(Arc::new(Taken { most, now: AtomicUsize::new(0) }))
    }

    /// How many there are.
    pub(crate) fn most(&self) -> usize {
        self.0.most
    }

    /// Takes one. `None`: all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        let more = |now| (now < self.0.most).then_some(now + 1);
        self.0.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many descriptors this process may have. `None`: any number.
fn descriptor_limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one limit to where there is room for one.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if asked == 0 { usize::try_from(limit.rlim_cur).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_and_come_free() {
        let places = Places::new(2);
        let first = places.take().unwrap();
        let _second = places.clone().take().unwrap();
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
    }

    #[test]
    fn half_of_the_descriptors_are_left_to_others() {
        assert!(Places::of_this_process().most() <= descriptor_limit().unwrap() / 2);
    }
}
