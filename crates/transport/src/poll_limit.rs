//! The most that a thread polls.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Poll limit when nobody says otherwise, in microseconds. A guest that swaps faults again after about a
/// hundred microseconds, and waking a sleeping thread costs 55 to 70.
pub const DEFAULT_POLL_LIMIT_US: u32 = 1000;

/// How long a thread goes on looking for requests before it sleeps, at most, in microseconds.
/// 0 = never. Clones share one value, and it may change while guests run.
#[derive(Clone, Debug)]
pub struct PollLimit(pub Arc<AtomicU32>);

impl PollLimit {
    /// A limit of its own, shared with nobody yet.
    pub fn from_us(limit_us: u32) -> PollLimit {
        PollLimit(Arc::new(AtomicU32::new(limit_us)))
    }

    /// The limit now, in microseconds.
    pub fn us(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes the limit for every frontend that shares it.
    pub fn set_us(&self, limit_us: u32) {
        self.0.store(limit_us, Ordering::Relaxed);
    }
}

impl Default for PollLimit {
    fn default() -> PollLimit {
        PollLimit::from_us(DEFAULT_POLL_LIMIT_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_poll_limit() {
        let limit = PollLimit::from_us(5);
        limit.clone().set_us(7);
        assert_eq!(limit.us(), 7);
    }
}
