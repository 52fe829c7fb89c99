//! Overwriting blocks with zeroes when nothing refers to them any more, for whoever wants that.
//!
//! A get may still be reading the block: it pins the extent while its page's lock is held and reads after that. So a block is overwritten
//! when nobody but its own zeroing pins the extent: at once as a rule, else by whoever takes the last other pin away. No pin that comes
//! later is for that block. In its place stands a block of nobody's, so that the extent can be walked as before. A process that dies
//! in between leaves a block that is damaged: its extent is not compacted, and goes back with its last page.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering, fence},
    },
};

use super::{Arena, Emptied, extent_of};
use crate::{
    block::{self, HEADER_BYTES},
    entry::BlockRef,
    extents::ExtentId,
};

/// Whether blocks are overwritten, and those that have to wait for it.
#[derive(Debug, Default)]
pub(super) struct Zeroing {
    is_on: AtomicBool,
    /// It was on at some time: something may be waiting.
    was_on: AtomicBool,
    /// How many extents have blocks that wait.
    waiting_extents: AtomicU32,
    /// Each of these extents is pinned once for all of its blocks.
    waiting: Mutex<HashMap<ExtentId, Vec<BlockRef>>>,
}

impl Zeroing {
    fn waiting(&self) -> MutexGuard<'_, HashMap<ExtentId, Vec<BlockRef>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arena {
    /// Whether blocks are overwritten from now on when they are freed.
    pub(crate) fn set_zero_on_flush(&self, is_on: bool) {
        if is_on {
            self.zeroing.was_on.store(true, Ordering::SeqCst);
        }
        self.zeroing.is_on.store(is_on, Ordering::SeqCst);
    }

    /// As [`Arena::free`], if blocks are to be overwritten. `None`: they are not, and nothing was done.
    pub(super) fn free_zeroed(&self, block: BlockRef) -> Option<Option<Emptied>> {
        if !self.zeroing.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let extent = extent_of(block.offset);
        let state = self.extents.state(extent);
        state.pin();
        let _pinned = state.free(u32::from(block.block_bytes));
        let is_first = {
            let mut waiting = self.zeroing.waiting();
            let blocks = waiting.entry(extent).or_default();
            blocks.push(block);
            let is_first = blocks.len() == 1;
            if is_first {
                self.zeroing.waiting_extents.fetch_add(1, Ordering::SeqCst);
            }
            is_first
        };
        // The first one's pin is the extent's.
        let emptied = if is_first { None } else { self.take_pin(extent) };
        debug_assert!(emptied.is_none(), "the extent is pinned for what waits");
        Some(self.zero_unread(extent))
    }

    /// A pin was taken away from an extent: what waited for that is overwritten.
    pub(super) fn pin_went(&self, extent: ExtentId) {
        if !self.zeroing.was_on.load(Ordering::Relaxed) {
            return;
        }
        // Whoever frees a block says so before it looks at the pins, and here it is the other way round: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.zeroing.waiting_extents.load(Ordering::SeqCst) > 0 {
            let emptied = self.zero_unread(extent);
            self.settle(emptied);
        }
    }

    /// Overwrites what waits in an extent if nobody reads there.
    fn zero_unread(&self, extent: ExtentId) -> Option<Emptied> {
        let mut waiting = self.zeroing.waiting();
        if !waiting.contains_key(&extent) {
            return None;
        }
        fence(Ordering::SeqCst);
        if self.extents.state(extent).see().pins != 1 {
            return None;
        }
        let blocks = waiting.remove(&extent).unwrap_or_default();
        blocks.into_iter().for_each(|block| self.zero(block));
        self.zeroing.waiting_extents.fetch_sub(1, Ordering::SeqCst);
        // Before the next block can wait there: whoever frees it would take this pin for a reader's, and nobody would come back to it.
        self.take_pin(extent)
    }

    /// Overwrites a block that nobody refers to or reads.
    fn zero(&self, block: BlockRef) {
        let bytes = usize::from(block.block_bytes);
        let Some(mut start) = self.memory.at(block.offset.0 as usize, bytes) else { return };
        // SAFETY: inside the mapping. No index entry leads there, whoever read it has taken its pin away, and the extent is not given to
        // anybody else while it is pinned for this.
        let block_memory = unsafe { std::slice::from_raw_parts_mut(start.as_mut(), bytes) };
        block_memory[HEADER_BYTES..].fill(0);
        block::write_filler(block_memory, block.block_bytes);
    }

    fn take_pin(&self, extent: ExtentId) -> Option<Emptied> {
        let seen = self.extents.state(extent).unpin();
        seen.is_unused().then_some(Emptied { extent, sealed: seen.sealed })
    }

    /// How many extents have blocks that wait to be overwritten.
    #[cfg(test)]
    pub(crate) fn waits_to_be_zeroed(&self) -> u32 {
        self.zeroing.waiting_extents.load(Ordering::SeqCst)
    }

    /// Whether the extent that a block was in is not in use.
    #[cfg(test)]
    pub(crate) fn is_extent_free(&self, block: BlockRef) -> bool {
        self.extents.usage(extent_of(block.offset)).is_none()
    }

    /// Whether all of a block but its header is zeroes.
    #[cfg(test)]
    pub(crate) fn is_zeroed(&self, block: BlockRef) -> bool {
        // SAFETY: only tests look here, and they know that nobody writes there meanwhile.
        let bytes = unsafe { self.block(block) };
        bytes.is_some_and(|bytes| bytes[HEADER_BYTES..].iter().all(|byte| *byte == 0))
    }
}
