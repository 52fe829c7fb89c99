//! Replacing entries of the index, and the books that change with them.

use super::{NO_INDEX_PAGE, Persistence, Pool, Refusal};
use crate::{
    arena::Emptied,
    block::MAX_BLOCK_BYTES,
    counters::Counters,
    entry::{BlockRef, DamagedEntry, Entry},
    ids::IndexSlot,
    index::{INDEX_PAGE_BYTES, IndexMemory, NoRoom, PaidPage},
    stamp::Stamp,
};

impl Pool {
    /// Drops an ephemeral page if it is still in that block; says whether it was.
    pub(crate) fn evict(&self, slot: IndexSlot, block: BlockRef) -> bool {
        if self.persistence != Persistence::Ephemeral || u64::from(slot.0) >= self.index.slots() {
            return false;
        }
        let mut counters = self.lock(slot);
        if self.index.load(slot) != Ok(Entry::Block(block)) {
            return false;
        }
        counters.evicted_pages += 1;
        let emptied = self.replace(&mut counters, slot, Entry::Absent);
        drop(counters);
        self.engine.arena.settle(emptied);
        true
    }

    /// Whether a page is in that block.
    pub(crate) fn refers_to(&self, slot: IndexSlot, block: BlockRef) -> bool {
        u64::from(slot.0) < self.index.slots() && {
            let _counters = self.lock(slot);
            self.index.load(slot) == Ok(Entry::Block(block))
        }
    }

    /// Makes a page's entry refer to a copy of its block and frees the block. False: the page is not in that block any more.
    pub(crate) fn relocate(&self, slot: IndexSlot, from: BlockRef, to: BlockRef) -> bool {
        self.relocate_and(slot, from, to, |_| {})
    }

    /// As [`Pool::relocate`]; if it is done, `note` gets the counters.
    pub(crate) fn relocate_and(
        &self,
        slot: IndexSlot,
        from: BlockRef,
        to: BlockRef,
        note: impl FnOnce(&mut Counters),
    ) -> bool {
        self.move_page(slot, Entry::Block(from), Entry::Block(to), note)
    }

    /// Makes a page's entry say that its contents are elsewhere, and frees the block they were in; its age stays. False: the page is not
    /// in that block any more, or it takes its client over its cap.
    pub(super) fn move_page(
        &self,
        slot: IndexSlot,
        from: Entry,
        to: Entry,
        note: impl FnOnce(&mut Counters),
    ) -> bool {
        let mut counters = self.lock(slot);
        if self.index.load(slot) != Ok(from) {
            return false;
        }
        let stamp = self.index.stamp(slot);
        let Ok(emptied) = self.exchange_place(&mut counters, slot, to, stamp, &mut PaidPage::none()) else {
            return false;
        };
        note(&mut counters);
        drop(counters);
        self.engine.arena.settle(emptied);
        true
    }

    /// As [`Pool::exchange`], where the new entry takes no more memory than the old one, which cannot fail.
    pub(super) fn replace(&self, counters: &mut Counters, slot: IndexSlot, new: Entry) -> Option<Emptied> {
        let exchanged = self.exchange(counters, slot, new, Stamp::OLD, &mut PaidPage::none());
        debug_assert!(exchanged.is_ok(), "no room to replace an entry by {new:?}");
        exchanged.ok().flatten()
    }

    /// As [`Pool::exchange_place`], where the page has other contents from now on.
    pub(super) fn exchange(
        &self,
        counters: &mut Counters,
        slot: IndexSlot,
        new: Entry,
        stamp: Stamp,
        index_page: &mut PaidPage<'_>,
    ) -> Result<Option<Emptied>, Refusal> {
        let old = self.index.load(slot);
        // What leads to the page by its contents is known only as long as it has them.
        let old_crc = old.ok().and_then(|old| self.crc_locked(old));
        let emptied = self.exchange_place(counters, slot, new, stamp, index_page)?;
        if let Some(crc) = old_crc {
            self.forget_contents(crc, slot);
        }
        Ok(emptied)
    }

    /// Replaces an entry, frees the block it held and keeps the books; gives the extent that this emptied, to be settled once the
    /// lock is given back. Errors: no memory for the index, or the client's cap; nothing has changed then.
    pub(super) fn exchange_place(
        &self,
        counters: &mut Counters,
        slot: IndexSlot,
        new: Entry,
        stamp: Stamp,
        index_page: &mut PaidPage<'_>,
    ) -> Result<Option<Emptied>, Refusal> {
        let old = self.index.load(slot);
        let (charge_before, charge_after) = (charge(old), charge(Ok(new)));
        let (before, after) = (counts(old), counts(Ok(new)));
        let grows = old == Ok(Entry::Absent) && new != Entry::Absent && self.index.is_page_empty(slot);
        let needed = charge_after + if grows { INDEX_PAGE_BYTES } else { 0 };
        if !self.account.try_replace(charge_before, needed) {
            return Err(Refusal::OverCap);
        }
        match self.index.replace(slot, new, stamp, index_page) {
            Ok(IndexMemory::Unchanged) => {}
            Ok(IndexMemory::Grew) => counters.index_bytes += INDEX_PAGE_BYTES,
            Ok(IndexMemory::Shrank) => {
                counters.index_bytes -= INDEX_PAGE_BYTES;
                let _less = self.account.try_replace(INDEX_PAGE_BYTES, 0);
            }
            Err(NoRoom) => {
                let _less = self.account.try_replace(needed, charge_before);
                return Err(NO_INDEX_PAGE);
            }
        }
        counters.replace(&before, &after);
        self.account.count_pages(before.stored_pages(), after.stored_pages());
        if let Some((domain, numbers)) = &self.domain {
            domain.count(*numbers, &before, &after);
        }
        match old {
            Ok(Entry::Block(block)) => Ok(self.engine.arena.free(block)),
            Ok(Entry::Shared(shared)) => Ok(self.release_shared(shared)),
            Ok(Entry::Tiered(tiered)) => {
                self.engine.tiering.table.free(tiered);
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// What a page's places in the domain's table and in a shared cell count for against its client's cap, in bytes: what they take, and
/// what the first 4 KiB of the table are more than that for some hundred pages.
const TABLE_CHARGE_BYTES: u64 = 24;

/// What a page in a block of that size counts for against its client's cap and share, in bytes.
pub(super) fn block_charge(block_bytes: u16) -> u64 {
    u64::from(block_bytes) + TABLE_CHARGE_BYTES
}

/// What an entry counts for against its client's cap and share, in bytes. A shared block counts for each of its pages as if it were the page's
/// own: any of them may be the last that is left with it, and the cap is to hold then, too.
pub(super) fn charge(entry: Result<Entry, DamagedEntry>) -> u64 {
    match entry {
        Ok(Entry::Block(block)) => block_charge(block.block_bytes),
        Ok(Entry::Shared(shared)) => block_charge(shared.block_bytes),
        _ => 0,
    }
}

/// What an entry stands for in the books. A damaged one cannot say, so what it held stays in the books.
pub(super) fn counts(entry: Result<Entry, DamagedEntry>) -> Counters {
    match entry {
        Ok(Entry::SameFilled(_)) => Counters { same_filled_pages: 1, ..Counters::default() },
        Ok(Entry::Block(block)) => Counters {
            block_pages: 1,
            raw_pages: u64::from(block.block_bytes == MAX_BLOCK_BYTES),
            block_bytes: u64::from(block.block_bytes),
            ..Counters::default()
        },
        Ok(Entry::Shared(_)) => Counters { shared_pages: 1, ..Counters::default() },
        Ok(Entry::Tiered(tiered)) => {
            Counters { tiered_pages: 1, tiered_bytes: u64::from(tiered.block_bytes), ..Counters::default() }
        }
        Ok(Entry::Absent | Entry::Refused) | Err(DamagedEntry) => Counters::default(),
    }
}
