//! A pool's part in its client's ages: stamping entries, counting gets by distance, sweeping.

use std::ops::Range;

use super::{Counters, Pool};
use crate::{
    ages::{self, Cold, Sweep},
    entry::{BlockRef, DamagedEntry, Entry},
    ids::IndexSlot,
    index::ENTRIES_PER_INDEX_PAGE,
    stamp::Stamp,
};

impl Pool {
    /// What a page is stamped with that is put now, under the lock of its stripe.
    pub(super) fn stamp_of_put(&self) -> Stamp {
        self.account.ages.stamp()
    }

    /// Counts a put that was just published, under the lock it was published under.
    pub(super) fn note_put(&self, counters: &mut Counters) {
        counters.puts += 1;
        self.account.ages.count_put(counters.puts, || (self.account.stored_pages(), ages::now_ms()));
    }

    /// Counts what a get found, under the lock it was found under; gives its reuse distance, if it is known.
    pub(super) fn note_get(&self, slot: IndexSlot, found: Result<Entry, DamagedEntry>) -> Option<u64> {
        if matches!(found, Ok(Entry::Absent | Entry::Refused) | Err(DamagedEntry)) {
            return None;
        }
        let before = self.index.restamp(slot, self.account.ages.stamp());
        self.account.ages.count_get(self.stripe_of(slot), before)
    }

    /// Whether a page is in that block, and is cold.
    pub(crate) fn is_cold(&self, slot: IndexSlot, block: BlockRef, cold: Cold) -> bool {
        let stamp = {
            let _counters = self.lock(slot);
            if self.index.load(slot) != Ok(Entry::Block(block)) {
                return false;
            }
            self.index.stamp(slot)
        };
        self.account.ages.is_cold(stamp, cold)
    }

    /// Sweeps the stamps of some index pages, each under its lock.
    pub(crate) fn sweep_ages(&self, sweep: &Sweep, index_pages: Range<u64>) {
        for index_page in index_pages {
            let slot = IndexSlot((index_page * ENTRIES_PER_INDEX_PAGE) as u32);
            if !self.index.is_page_empty(slot) {
                let _counters = self.lock(slot);
                let now = self.account.ages.stamp();
                self.index.restamp_page_of(slot, |stamp| sweep.sweep(stamp, now));
            }
        }
    }

    pub(crate) fn index_pages(&self) -> u64 {
        self.index.index_pages()
    }
}
