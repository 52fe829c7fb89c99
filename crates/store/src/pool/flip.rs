//! Damage on purpose: a bit of a stored page is turned over.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicU8, Ordering},
};

use super::Pool;
use crate::{
    entry::{BlockRef, Entry},
    fault_injection::Flip,
    ids::{ArenaOffset, IndexSlot, PageIndex, PoolId},
    tier_table::Pinned,
};

/// A disk that is nearly empty is not searched through.
const MOST_TRIES: u64 = 4096;

impl Pool {
    /// Turns over a bit of one of the pages, chosen by `random`, each time another number. `tell` is told which page that is before it
    /// happens, and while nothing else can happen to it. False: there is none that could be damaged so.
    pub(crate) fn flip(
        &self,
        flip: Flip,
        random: impl Fn() -> u64,
        tell: impl Fn(PoolId, PageIndex),
    ) -> bool {
        let slots = self.index.slots();
        let (first, bit) = (random() % slots, random());
        for slot in (first..slots).chain(0..first).take(MOST_TRIES.min(slots) as usize) {
            if let ControlFlow::Break(()) = self.flip_in(IndexSlot(slot as u32), flip, bit, &tell) {
                return true;
            }
        }
        false
    }

    fn flip_in(
        &self,
        slot: IndexSlot,
        flip: Flip,
        bit: u64,
        tell: impl Fn(PoolId, PageIndex),
    ) -> ControlFlow<()> {
        let counters = self.lock(slot);
        if self.index.is_page_empty(slot) {
            return ControlFlow::Continue(());
        }
        let page = PageIndex(slot.0.into());
        let pinned = match (flip, self.index.load(slot)) {
            (_, Ok(Entry::Absent) | Err(_)) => return ControlFlow::Continue(()),
            (Flip::Index, Ok(_)) => {
                tell(self.id, page);
                self.index.flip_bit(slot, (bit % 64) as u32);
                return ControlFlow::Break(());
            }
            (Flip::Arena, Ok(Entry::Block(block))) => {
                self.engine.arena.pin_block(block.offset);
                Some(Pinned::Arena(block))
            }
            (Flip::Arena, Ok(Entry::Shared(shared))) => self.pin_shared(shared),
            (Flip::Arena, Ok(_)) => None,
        };
        match pinned {
            Some(Pinned::Arena(block)) => {
                tell(self.id, page);
                self.flip_in_block(block, bit);
                drop(counters);
                self.engine.arena.commit(block.offset);
                ControlFlow::Break(())
            }
            Some(Pinned::Tier(tiered, _)) => {
                drop(counters);
                self.engine.tiering.table.unpin(tiered.place);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Continue(()),
        }
    }

    fn flip_in_block(&self, block: BlockRef, bit: u64) {
        let bit = bit % (u64::from(block.block_bytes) * 8);
        let place = BlockRef { offset: ArenaOffset(block.offset.0 + bit / 8), block_bytes: 1 };
        // SAFETY: the block's extent is pinned, so the byte is there. It is nobody's to write to: that is what this is for. Whoever reads it
        // checks what was read.
        if let Some([byte]) = unsafe { self.engine.arena.block_mut(place) } {
            // SAFETY: a valid byte, reached as an atomic one.
            unsafe { AtomicU8::from_ptr(byte) }.fetch_xor(1 << (bit % 8), Ordering::Relaxed);
        }
    }
}
