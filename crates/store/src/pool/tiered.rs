//! Pages in a tier: moving them there and back, and fetching them from there.

use super::{
    Pool,
    get::{Got, InTier, MOST_TOGETHER, Waiting},
};
use crate::{
    block::{self, BlockHeader, MAX_BLOCK_BYTES, PayloadCrc},
    counters::Counters,
    dedup::IfFull,
    entry::{BlockRef, Entry, Place, TieredRef},
    error::GetError,
    extents::ExtentUse,
    fault_injection::{self, Point},
    ids::{IndexSlot, PageIndex},
    page::PageTarget,
    tier::TierRead,
};

impl Pool {
    /// Makes a page's entry refer to a copy of its block in a tier. False: the page is not in that block any more.
    pub(crate) fn move_to_tier(
        &self,
        slot: IndexSlot,
        from: BlockRef,
        to: TieredRef,
        contents: PayloadCrc,
    ) -> bool {
        if u64::from(slot.0) >= self.index.slots() {
            return false;
        }
        let moved = self.move_page(slot, Entry::Block(from), Entry::Tiered(to), |counters| {
            counters.written_back_pages += 1;
        });
        if moved {
            // To compare a page with it would take a read. If it has been put anew since, it is found a little less well.
            self.forget_contents(contents, slot);
        }
        moved
    }

    /// Makes a page's entry refer to another copy of its block in a tier. False: the page is not there any more.
    pub(crate) fn move_in_tier(&self, slot: IndexSlot, from: TieredRef, to: TieredRef) -> bool {
        u64::from(slot.0) < self.index.slots()
            && self.move_page(slot, Entry::Tiered(from), Entry::Tiered(to), |_| {})
    }

    /// Whether a page is there.
    pub(crate) fn is_tiered_at(&self, slot: IndexSlot, tiered: TieredRef) -> bool {
        u64::from(slot.0) < self.index.slots() && {
            let _counters = self.lock(slot);
            self.index.load(slot) == Ok(Entry::Tiered(tiered))
        }
    }

    /// Whether a page that was used so many puts ago would still be in memory if the least recently used pages had gone, as far as its
    /// stripe's counters say.
    pub(super) fn would_reach(&self, stripe: &Counters, distance_pages: u64) -> bool {
        let in_memory = stripe.block_pages + stripe.shared_pages;
        let all = u128::from(in_memory + stripe.tiered_pages).max(1);
        let reach = u128::from(self.account.stored_pages()) * u128::from(in_memory) / all;
        u128::from(distance_pages) <= reach
    }

    /// Fetches a page from the tier.
    pub(super) fn get_from_tier(&self, from: &InTier, target: &mut PageTarget<'_>) -> Result<Got, GetError> {
        let mut bytes = [0; MAX_BLOCK_BYTES as usize];
        let bytes = &mut bytes[..usize::from(from.tiered.block_bytes)];
        let read = self.engine.tiering.read(from.tiered, from.copy, bytes);
        self.take_from_tier(from, read, bytes, target)
    }

    /// Fetches pages from the tier, all at once, and says of each what came of it.
    #[inline(never)]
    pub(super) fn get_together_from_tier<'t>(
        &self,
        waiting: &mut [Option<Waiting<'t>>; MOST_TOGETHER],
        each: &mut impl FnMut(PageIndex, PageTarget<'t>, Result<Got, GetError>),
    ) {
        let mut bytes = [[0; MAX_BLOCK_BYTES as usize]; MOST_TOGETHER];
        let mut reads: Vec<TierRead<'_>> = (waiting.iter().flatten())
            .zip(&mut bytes)
            .map(|((from, ..), bytes)| {
                let block = &mut bytes[..usize::from(from.tiered.block_bytes)];
                TierRead::new(from.copy, from.tiered.start as usize, block)
            })
            .collect();
        self.engine.tiering.read_many(&mut reads);
        for ((from, index, mut target), read) in waiting.iter_mut().filter_map(Option::take).zip(reads) {
            let result = read.result.map_err(GetError::from);
            let got = self.take_from_tier(&from, result, read.into, &mut target);
            each(index, target, got);
        }
    }

    /// Unpacks a block that was read of a copy, and gives up the copy. Takes the page back into memory if there is plenty, or if it is wanted there
    /// and nothing has to be written for it.
    fn take_from_tier(
        &self,
        from: &InTier,
        read: Result<(), GetError>,
        bytes: &[u8],
        target: &mut PageTarget<'_>,
    ) -> Result<Got, GetError> {
        let InTier { slot, entry, tiered, copy, is_wanted_in_memory } = *from;
        let mut counters = self.lock(slot);
        counters.tier_gets += 1;
        counters.tier_errors += u64::from(read == Err(GetError::TierUnavailable));
        drop(counters);
        let unpacked = read
            .inspect_err(|error| {
                let (pool, page) = (self.id.0, slot.0);
                tmem_faults::say(format_args!(
                    "lost in the tier: pool={pool} page={page} place={} writing={} error={error:?}",
                    copy.place, copy.writing
                ));
            })
            .and_then(|()| self.unpack(slot, entry, bytes, tiered.block_bytes, target));
        let got = unpacked.map(|(header, payload)| {
            if self.engine.has_plenty_of_room() || is_wanted_in_memory && !self.engine.is_pressed() {
                self.promote(slot, entry, tiered, header, payload);
            }
            Got::Page
        });
        self.engine.tiering.table.unpin(tiered.place);
        self.count_damage(slot, got)
    }

    /// Takes a page back into memory. If there is no room after all, it stays where it is.
    fn promote(&self, slot: IndexSlot, entry: Entry, tiered: TieredRef, header: BlockHeader, payload: &[u8]) {
        let engine = &self.engine;
        let Some(to) = engine.arena.reserve(tiered.block_bytes, ExtentUse::Persistent) else { return };
        // SAFETY: the block was just reserved here and is committed below.
        if let Some(block) = unsafe { engine.arena.block_mut(to) } {
            header.write(block, payload, PayloadCrc::of(payload));
        }
        fault_injection::point(Point::Promotion);
        let moved = match entry {
            Entry::Tiered(_) => self.move_page(slot, entry, Entry::Block(to), |_| {}),
            Entry::Shared(shared) => {
                let places = (Place::Tier(tiered), Place::Arena(to));
                engine.relocate_shared(shared.cell, places.0, places.1)
            }
            _ => false,
        };
        if !moved {
            let _pinned = engine.arena.free(to);
        }
        // SAFETY: the block is pinned until it is committed, and complete.
        let contents = unsafe { engine.arena.block(to) }.and_then(block::fresh_crc);
        engine.arena.commit(to.offset);
        if let Some(crc) = contents.filter(|_| moved) {
            self.remember_contents(crc, slot, IfFull::LeaveOut);
        }
    }
}
