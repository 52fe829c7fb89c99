//! What a pool takes.

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether a pool takes pages.
///
/// ```text
/// Open <--freeze, thaw--> Frozen
///   '------destroy----------'-----> Destroyed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PoolState {
    Open,
    /// Gets and flushes work, puts are refused.
    Frozen,
    /// Puts are refused for good.
    Destroyed,
}

/// A [`PoolState`] that all threads see. Whoever changes it takes every stripe's lock afterwards: then the puts that saw it as it was
/// are through.
#[derive(Debug)]
pub(super) struct AtomicPoolState(AtomicU8);

impl AtomicPoolState {
    pub(super) fn new(frozen: bool) -> Self {
        let state = if frozen { PoolState::Frozen } else { PoolState::Open };
        Self(AtomicU8::new(state as u8))
    }

    pub(super) fn get(&self) -> PoolState {
        const OPEN: u8 = PoolState::Open as u8;
        const FROZEN: u8 = PoolState::Frozen as u8;
        match self.0.load(Ordering::SeqCst) {
            OPEN => PoolState::Open,
            FROZEN => PoolState::Frozen,
            _ => PoolState::Destroyed,
        }
    }

    pub(super) fn destroy(&self) {
        self.0.store(PoolState::Destroyed as u8, Ordering::SeqCst);
    }

    /// Freezes or thaws, unless it is destroyed.
    pub(super) fn set_frozen(&self, frozen: bool) {
        let (from, to) =
            if frozen { (PoolState::Open, PoolState::Frozen) } else { (PoolState::Frozen, PoolState::Open) };
        let _already_or_destroyed =
            self.0.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_destroyed_stays_so() {
        let state = AtomicPoolState::new(false);
        state.set_frozen(true);
        assert_eq!(state.get(), PoolState::Frozen);
        state.set_frozen(false);
        assert_eq!(state.get(), PoolState::Open);
        state.set_frozen(true);
        state.destroy();
        for frozen in [false, true] {
            state.set_frozen(frozen);
            assert_eq!(state.get(), PoolState::Destroyed);
        }
    }
}
