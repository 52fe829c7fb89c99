//! Blocks of a tier's copies that nobody needs any more, until the tier is told: for tiers that keep single blocks.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::tier::{TierCopy, TierRun};

/// So many are remembered until the tier is told, which is at least once a second. Their memory is set aside from the start.
const MOST: usize = 1 << 16;

/// A block of a copy.
pub(crate) type DeadBlock = (TierCopy, TierRun);

/// What becomes of a dead block now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The tier is told.
    Told,
    /// It is told the next time.
    Later,
    /// It is never told, and keeps the block until the whole copy goes.
    Never,
}

#[derive(Debug)]
pub(crate) struct DeadBlocks {
    list: Mutex<Vec<DeadBlock>>,
    /// What those that tell the tier work on; its memory is the list's the next time.
    spare: Mutex<Vec<DeadBlock>>,
    untold_bytes: AtomicU64,
}

impl DeadBlocks {
    pub(crate) fn new() -> Self {
        let list = || Mutex::new(Vec::with_capacity(MOST));
        Self { list: list(), spare: list(), untold_bytes: AtomicU64::new(0) }
    }

    /// A block died.
    pub(crate) fn add(&self, dead: DeadBlock) {
        let mut list = lock(&self.list);
        if list.len() == MOST {
            drop(list);
            self.leave_untold(&dead);
        } else {
            list.push(dead);
        }
    }

    fn leave_untold(&self, (_, run): &DeadBlock) {
        self.untold_bytes.fetch_add(u64::from(run.bytes), Ordering::Relaxed);
    }

    /// Hands over what died and is to be told.
    pub(crate) fn take(&self, fate: impl Fn(&DeadBlock) -> Fate, tell: impl FnOnce(&[DeadBlock])) {
        let mut taken = lock(&self.spare);
        std::mem::swap(&mut *lock(&self.list), &mut *taken);
        taken.retain(|dead| match fate(dead) {
            Fate::Told => true,
            Fate::Later => {
                self.add(*dead);
                false
            }
            Fate::Never => {
                self.leave_untold(dead);
                false
            }
        });
        if !taken.is_empty() {
            tell(&taken);
        }
        taken.clear();
    }

    /// Bytes of blocks of which the tier was never told that they died.
    pub(crate) fn untold_bytes(&self) -> u64 {
        self.untold_bytes.load(Ordering::Relaxed)
    }
}

fn lock(list: &Mutex<Vec<DeadBlock>>) -> MutexGuard<'_, Vec<DeadBlock>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(at: u32) -> DeadBlock {
        (TierCopy { place: at, writing: 1 }, TierRun { start: 0, bytes: 8 })
    }

    #[test]
    fn each_meets_its_fate() {
        let blocks = DeadBlocks::new();
        (0..9).for_each(|at| blocks.add(dead(at)));
        let fate = |(copy, _): &DeadBlock| [Fate::Told, Fate::Later, Fate::Never][copy.place as usize % 3];
        let places = |told: &[DeadBlock]| told.iter().map(|(copy, _)| copy.place).collect::<Vec<_>>();
        let mut told = Vec::new();
        blocks.take(fate, |now| told = places(now));
        assert_eq!((told.as_slice(), blocks.untold_bytes()), (&[0, 3, 6][..], 24));
        blocks.take(|_| Fate::Told, |now| told = places(now));
        assert_eq!(told, [1, 4, 7]);
        blocks.take(|_| Fate::Told, |_| panic!("nothing is left"));
    }

    #[test]
    fn a_full_list_counts_what_it_has_no_place_for() {
        let blocks = DeadBlocks::new();
        (0..MOST as u32 + 3).for_each(|at| blocks.add(dead(at)));
        assert_eq!(blocks.untold_bytes(), 24);
        blocks.take(|_| Fate::Told, |told| assert_eq!(told.len(), MOST));
        blocks.take(|_| Fate::Told, |_| panic!("nothing is left"));
    }
}
