//! How much memory the store may hold from the OS, and how much it holds.

use crate::sync::{AtomicU64, Ordering};

/// What memory is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// New pages. They leave the working room alone.
    Growth,
    /// New pages of a client that has had its share of the limit. They leave the working room alone, and the headroom: a sixteenth of the
    /// limit that is for clients that have not. As much again is left when recompression begins to take pages of any age.
    BeyondShare,
    /// Moving blocks out of extents that are given back for it. May use the working room.
    Compaction,
}

/// This part of the limit is the headroom.
pub(crate) const HEADROOM_PART: u64 = 16;

/// A hard limit on bytes held. Whoever wants memory reserves it here first. A part of it, the working room, is kept for compaction,
/// which must be able to move blocks just when the limit is reached.
///
/// Invariant: a reservation never takes `held` above the limit of that moment, whatever other threads do. Lowering the limit
/// takes nothing away; it only refuses what comes after.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: AtomicU64,
    held_bytes: AtomicU64,
    /// How far compaction may go: the limit, or after the limit was lowered below what is held, that and the working room, falling
    /// with what is held.
    compaction_limit_bytes: AtomicU64,
    working_room_bytes: u64,
}

impl Budget {
    pub(crate) fn new(limit_bytes: u64, working_room_bytes: u64) -> Self {
        Self {
            limit_bytes: AtomicU64::new(limit_bytes),
            held_bytes: AtomicU64::new(0),
            compaction_limit_bytes: AtomicU64::new(limit_bytes),
            working_room_bytes,
        }
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }

    /// How far new pages may go.
    pub(crate) fn growth_limit_bytes(&self) -> u64 {
        self.limit_bytes().saturating_sub(self.working_room_bytes)
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit_bytes(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Relaxed);
        let reach = limit_bytes.max(self.held_bytes() + self.working_room_bytes);
        self.compaction_limit_bytes.store(reach, Ordering::Relaxed);
    }

    /// Enters what is held already, be it more than the limit allows.
    pub(crate) fn adopt(&self, bytes: u64) {
        self.held_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.set_limit_bytes(self.limit_bytes());
    }

    /// Whether more is held than the limit allows, because it was lowered.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.held_bytes() > self.limit_bytes()
    }

    /// Takes `bytes` if they fit under the limit; says whether it did.
    #[must_use]
    pub(crate) fn try_reserve(&self, bytes: u64, claim: Claim) -> bool {
        let mut held = self.held_bytes.load(Ordering::Relaxed);
        while self.fits(held, bytes, claim) {
            match self.held_bytes.compare_exchange_weak(
                held,
                held + bytes,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => held = now,
            }
        }
        false
    }

    /// Whether a reservation would be granted at this moment.
    pub(crate) fn has_room(&self, bytes: u64, claim: Claim) -> bool {
        self.fits(self.held_bytes(), bytes, claim)
    }

    fn fits(&self, held: u64, bytes: u64, claim: Claim) -> bool {
        let (kept_back, limit) = match claim {
            Claim::Growth => (self.working_room_bytes, self.limit_bytes()),
            Claim::BeyondShare => {
                let limit = self.limit_bytes();
                (self.working_room_bytes + limit / HEADROOM_PART, limit)
            }
            Claim::Compaction => (0, self.compaction_limit_bytes.load(Ordering::Relaxed)),
        };
        held.checked_add(bytes)
            .and_then(|wanted| wanted.checked_add(kept_back))
            .is_some_and(|wanted| wanted <= limit)
    }

    /// Gives back what [`Budget::try_reserve`] took.
    pub(crate) fn release(&self, bytes: u64) {
        let before = self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released {bytes} of {before} bytes held");
        if self.compaction_limit_bytes.load(Ordering::Relaxed) > self.limit_bytes() {
            let reach = self.limit_bytes().max(before - bytes + self.working_room_bytes);
            self.compaction_limit_bytes.fetch_min(reach, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn r7_a_reservation_never_passes_the_limit() {
        let budget = Budget::new(100, 0);
        assert!(budget.try_reserve(60, Claim::Growth));
        assert!(!budget.try_reserve(41, Claim::Growth));
        assert!(budget.try_reserve(40, Claim::Growth));
        assert!(!budget.try_reserve(1, Claim::Compaction));
        assert!(!budget.try_reserve(u64::MAX, Claim::Growth));
        budget.release(100);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn growth_leaves_the_working_room_to_compaction() {
        let budget = Budget::new(100, 30);
        assert!(!budget.try_reserve(71, Claim::Growth));
        assert!(budget.try_reserve(70, Claim::Growth));
        assert!(!budget.has_room(1, Claim::Growth));
        assert!(budget.has_room(30, Claim::Compaction));
        assert!(budget.try_reserve(30, Claim::Compaction));
        assert_eq!(budget.held_bytes(), 100);
    }

    #[test]
    fn whoever_has_had_its_share_leaves_the_headroom_to_others() {
        let budget = Budget::new(1600, 30);
        assert!(budget.try_reserve(1470, Claim::BeyondShare));
        assert!(!budget.has_room(1, Claim::BeyondShare) && budget.has_room(0, Claim::BeyondShare));
        assert!(budget.try_reserve(100, Claim::Growth));
        assert!(!budget.has_room(0, Claim::BeyondShare) && !budget.has_room(1, Claim::Growth));
    }

    #[test]
    fn a_lower_limit_refuses_only_what_comes_after() {
        let budget = Budget::new(100, 0);
        assert!(budget.try_reserve(80, Claim::Growth));
        budget.set_limit_bytes(50);
        assert_eq!(budget.held_bytes(), 80);
        assert!(!budget.try_reserve(1, Claim::Compaction));
        budget.release(40);
        assert!(budget.try_reserve(10, Claim::Growth));
    }

    #[test]
    fn what_was_adopted_can_be_more_than_the_limit() {
        let budget = Budget::new(50, 10);
        budget.adopt(80);
        assert!(budget.is_exceeded() && !budget.try_reserve(1, Claim::Growth));
        assert!(budget.try_reserve(10, Claim::Compaction) && !budget.try_reserve(1, Claim::Compaction));
    }

    #[test]
    fn compaction_can_work_its_way_down_to_a_lower_limit() {
        let budget = Budget::new(100, 10);
        assert!(budget.try_reserve(90, Claim::Growth));
        budget.set_limit_bytes(40);
        let mut held = 90;
        while held > 30 {
            assert!(budget.try_reserve(10, Claim::Compaction), "stuck at {held}");
            assert!(!budget.try_reserve(1, Claim::Compaction), "more than the working room at {held}");
            budget.release(20);
            held -= 10;
        }
        assert!(budget.try_reserve(10, Claim::Compaction));
        assert!(!budget.try_reserve(1, Claim::Compaction));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    #[test]
    fn two_threads_never_hold_more_than_the_limit() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(10, 2));
            let other = budget.clone();
            let thread = thread::spawn(move || {
                let took = other.try_reserve(6, Claim::Growth);
                assert!(other.held_bytes() <= 10);
                if took {
                    other.release(6);
                }
                took
            });
            let took = budget.try_reserve(6, Claim::Growth);
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
