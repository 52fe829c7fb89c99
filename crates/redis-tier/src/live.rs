//! Which copies there are: what has to be told to live on, and what has to be removed.

use std::{collections::BTreeMap, ops::Bound};

use tmem_store::{TierCopy, TierRun};

/// Blocks that wait for their removal; more are left until their copies go.
const MAX_DEAD_BLOCKS: usize = 1 << 16;

/// The copies of one store.
#[derive(Debug, Default)]
pub(crate) struct Live {
    copies: BTreeMap<u32, Held>,
    /// Of all of them.
    bytes: u64,
    dead: Vec<TierCopy>,
    dead_blocks: Vec<(TierCopy, TierRun)>,
    /// Where the search for copies that are due goes on.
    next_place: u32,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    writing: u64,
    /// What the server keeps of it.
    bytes: u32,
    /// When it was last told to live on, in seconds of the tier's own clock. `None`: by somebody else, nobody knows when.
    told_s: Option<u32>,
}

impl Live {
    /// A copy was written, or is known from before, of so many bytes.
    pub(crate) fn insert(&mut self, copy: TierCopy, bytes: u32, told_s: Option<u32>) {
        if let Some(before) = self.take(copy.place).filter(|before| before.writing != copy.writing) {
            self.dead.push(TierCopy { place: copy.place, writing: before.writing });
        }
        self.bytes += u64::from(bytes);
        self.copies.insert(copy.place, Held { writing: copy.writing, bytes, told_s });
    }

    /// Nobody needs what is at a place.
    pub(crate) fn discard(&mut self, place: u32) {
        if let Some(held) = self.take(place) {
            self.dead.push(TierCopy { place, writing: held.writing });
        }
    }

    fn take(&mut self, place: u32) -> Option<Held> {
        let held = self.copies.remove(&place)?;
        self.bytes -= u64::from(held.bytes);
        Some(held)
    }

    /// A block of a copy was removed.
    pub(crate) fn shrink(&mut self, copy: TierCopy, bytes: u32) {
        if let Some(held) = self.copies.get_mut(&copy.place).filter(|held| held.writing == copy.writing) {
            let gone = bytes.min(held.bytes);
            held.bytes -= gone;
            self.bytes -= u64::from(gone);
        }
    }

    /// What the server keeps of all copies, in bytes of the store.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// There may be something of a copy that counts as not written.
    pub(crate) fn bury(&mut self, copy: TierCopy) {
        self.dead.push(copy);
    }

    /// A block is not needed any more.
    pub(crate) fn release(&mut self, copy: TierCopy, run: TierRun) {
        if self.dead_blocks.len() < MAX_DEAD_BLOCKS && self.has(copy) {
            self.dead_blocks.push((copy, run));
        }
    }

    /// The server does not have a copy any more.
    pub(crate) fn forget(&mut self, copy: TierCopy) {
        if self.has(copy) {
            self.take(copy.place);
        }
    }

    pub(crate) fn has(&self, copy: TierCopy) -> bool {
        self.copies.get(&copy.place).is_some_and(|held| held.writing == copy.writing)
    }

    pub(crate) fn len(&self) -> usize {
        self.copies.len()
    }

    /// Copies to be removed, `most` at most. If that fails, they are [buried](Live::bury) again.
    pub(crate) fn take_dead(&mut self, most: usize) -> Vec<TierCopy> {
        let from = self.dead.len().saturating_sub(most);
        self.dead.split_off(from)
    }

    /// Blocks to be removed, `most` at most, of copies that are still needed.
    pub(crate) fn take_dead_blocks(&mut self, most: usize) -> Vec<(TierCopy, TierRun)> {
        let from = self.dead_blocks.len().saturating_sub(most);
        let taken = self.dead_blocks.split_off(from);
        taken.into_iter().filter(|(copy, _)| self.has(*copy)).collect()
    }

    /// Nobody needs anything any more.
    pub(crate) fn discard_all(&mut self) {
        let copies = std::mem::take(&mut self.copies);
        self.bytes = 0;
        self.dead.extend(copies.iter().map(|(&place, held)| TierCopy { place, writing: held.writing }));
    }

    /// Copies that were not told to live on for `every_s`, `most` at most, among the next `look_at`; and how many were looked at.
    pub(crate) fn due(
        &mut self,
        now_s: u32,
        every_s: u32,
        most: usize,
        look_at: usize,
    ) -> (Vec<TierCopy>, usize) {
        let (mut due, mut looked_at) = (Vec::new(), 0);
        let after = self.copies.range((Bound::Included(self.next_place), Bound::Unbounded));
        self.next_place = 0;
        for (&place, held) in after {
            if due.len() == most || looked_at == look_at {
                self.next_place = place;
                break;
            }
            looked_at += 1;
            if held.told_s.is_none_or(|told_s| now_s.saturating_sub(told_s) >= every_s) {
                due.push(TierCopy { place, writing: held.writing });
            }
        }
        (due, looked_at)
    }

    /// A copy was told to live on.
    pub(crate) fn told(&mut self, copy: TierCopy, now_s: u32) {
        if let Some(held) = self.copies.get_mut(&copy.place).filter(|held| held.writing == copy.writing) {
            held.told_s = Some(now_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(place: u32, writing: u64) -> TierCopy {
        TierCopy { place, writing }
    }

    #[test]
    fn all_copies_come_round_and_none_before_it_is_due() {
        let mut live = Live::default();
        (0..100).for_each(|place| live.insert(copy(place, 1), 10, Some(place)));
        live.insert(copy(100, 1), 100, None);
        let mut found = Vec::new();
        for _ in 0..20 {
            for copy in live.due(60, 10, 7, 20).0 {
                live.told(copy, 60);
                found.push(copy.place);
            }
        }
        found.sort_unstable();
        assert_eq!(found, (0..=50).chain([100]).collect::<Vec<_>>());
        live.told(copy(3, 2), 1000);
        live.due(0, 1, 1000, 1000); // to the end of the turn
        let due: Vec<_> = live.due(70, 10, 1000, 1000).0.iter().map(|copy| copy.place).collect();
        assert_eq!(
            due,
            (0..=60).chain([100]).collect::<Vec<_>>(),
            "another writing of 3 was told, not this one"
        );
    }

    #[test]
    fn what_nobody_needs_is_removed_once_and_blocks_of_needed_copies_alone() {
        let mut live = Live::default();
        let run = TierRun { start: 8, bytes: 16 };
        live.insert(copy(1, 1), 100, None);
        live.insert(copy(2, 2), 100, None);
        live.release(copy(1, 1), run);
        live.release(copy(2, 2), run);
        live.release(copy(2, 1), run);
        live.discard(1);
        live.discard(1);
        live.discard(7);
        live.insert(copy(2, 3), 100, None);
        live.release(copy(2, 3), run);
        assert_eq!(live.take_dead_blocks(10), [(copy(2, 3), run)]);
        assert_eq!(live.take_dead(1), [copy(2, 2)]);
        live.bury(copy(2, 2));
        assert_eq!(live.take_dead(10), [copy(1, 1), copy(2, 2)]);
        assert_eq!((live.take_dead(10), live.len()), (vec![], 1));
        assert_eq!(live.bytes(), 100);
        live.shrink(copy(2, 2), 40);
        live.shrink(copy(2, 3), 40);
        assert_eq!(live.bytes(), 60);
        live.discard_all();
        assert_eq!(live.bytes(), 0);
        assert_eq!((live.take_dead(10), live.len()), (vec![copy(2, 3)], 0));
    }
}
