//! How much memory the store may hold from the OS, and how much it holds.

use crate::sync::{AtomicU64, Ordering};

/// A hard limit on bytes held. Whoever wants memory reserves it here first.
///
/// Invariant: a reservation never takes `held` above the limit of that moment, whatever other threads do. Lowering the limit
/// takes nothing away; it only refuses what comes after.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: AtomicU64,
    held_bytes: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes: AtomicU64::new(limit_bytes), held_bytes: AtomicU64::new(0) }
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit_bytes(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    /// Takes `bytes` if they fit under the limit; says whether it did.
    #[must_use]
    pub(crate) fn try_reserve(&self, bytes: u64) -> bool {
        let mut held = self.held_bytes.load(Ordering::Relaxed);
        loop {
            let Some(wanted) = held.checked_add(bytes) else { return false };
            if wanted > self.limit_bytes() {
                return false;
            }
            match self.held_bytes.compare_exchange_weak(held, wanted, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => held = now,
            }
        }
    }

    /// Gives back what [`Budget::try_reserve`] took.
    pub(crate) fn release(&self, bytes: u64) {
        let before = self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released {bytes} of {before} bytes held");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn r7_a_reservation_never_passes_the_limit() {
        let budget = Budget::new(100);
        assert!(budget.try_reserve(60));
        assert!(!budget.try_reserve(41));
        assert!(budget.try_reserve(40));
        assert!(!budget.try_reserve(1));
        assert!(!budget.try_reserve(u64::MAX));
        budget.release(100);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn a_lower_limit_refuses_only_what_comes_after() {
        let budget = Budget::new(100);
        assert!(budget.try_reserve(80));
        budget.set_limit_bytes(50);
        assert_eq!(budget.held_bytes(), 80);
        assert!(!budget.try_reserve(1));
        budget.release(40);
        assert!(budget.try_reserve(10));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    #[test]
    fn two_threads_never_hold_more_than_the_limit() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(10));
            let other = budget.clone();
            let thread = thread::spawn(move || {
                let took = other.try_reserve(6);
                assert!(other.held_bytes() <= 10);
                if took {
                    other.release(6);
                }
                took
            });
            let took = budget.try_reserve(6);
            assert!(budget.held_bytes() <= 10);
            if took {
                budget.release(6);
            }
            let other_took = thread.join().unwrap();
            assert!(took || other_took, "both refused though either fits alone");
            assert_eq!(budget.held_bytes(), 0);
        });
    }
}
