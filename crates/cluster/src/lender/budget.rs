//! What all borrowers together may have.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A limit, and what is held. Each borrower's own lock guards what it has; here is only the sum.
#[derive(Debug, Default)]
pub(super) struct Budget {
    limit_bytes: AtomicU64,
    held_bytes: AtomicU64,
}

impl Budget {
    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Relaxed);
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Relaxed)
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Relaxed)
    }

    /// Takes so much more, if it is there. However many ask at a time, they do not get more than there is.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let limit = self.limit_bytes();
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= limit);
        self.held_bytes.try_update(Relaxed, Relaxed, more).is_ok()
    }

    /// What one borrower has went from `before` to `after`: what it took with [`Self::take`] is part of `before`.
    pub(super) fn correct(&self, before: u64, after: u64) {
        if after >= before {
            self.held_bytes.fetch_add(after - before, Relaxed);
        } else {
            self.held_bytes.fetch_sub(before - after, Relaxed);
        }
    }
}
