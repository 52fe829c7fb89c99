//! The stock of extents: free ones whose memory is all there.

use std::sync::atomic::Ordering;

use super::{EXTENT_BYTES, Extents};
use crate::{budget::Claim, memory_file::MemoryFile};

/// What became of the search for an extent's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stocking {
    /// The stock has one more extent.
    Stocked,
    /// It has as many as it is to have.
    Enough,
    /// The limit has no room for more.
    AtLimit,
    /// The OS has no memory.
    NoMemory,
}

impl Extents {
    /// Has the OS find the memory of one more extent of the stock, in the time that takes, if it has `available_bytes` of it.
    pub(crate) fn stock_one(&self, memory: &MemoryFile, available_bytes: u64) -> Stocking {
        let (held, claim) = {
            let mut free = self.lock();
            if free.ready.len() >= self.stock.target() as usize {
                return Stocking::Enough;
            }
            // The first is compaction's.
            let claim = if free.ready.is_empty() { Claim::Compaction } else { Claim::Growth };
            (free.spare.pop(), claim)
        };
        let extent = if let Some(held) = held {
            held
        } else {
            if !self.budget.try_reserve(EXTENT_BYTES as u64, claim) {
                return Stocking::AtLimit;
            }
            if available_bytes < EXTENT_BYTES as u64 {
                self.budget.release(EXTENT_BYTES as u64);
                return Stocking::NoMemory;
            }
            let Some(extent) = self.lock().take_free(self.states.len()) else {
                self.budget.release(EXTENT_BYTES as u64);
                return Stocking::AtLimit;
            };
            extent
        };
        // What is known of it is in memory that may have yet to be found as well.
        self.state(extent).touch();
        self.cell(extent).fetch_or(0, Ordering::Relaxed);
        if memory.populate(extent.offset(), EXTENT_BYTES).is_err() {
            self.give_to_os(memory, extent);
            return Stocking::NoMemory;
        }
        self.lock().ready.push(extent);
        self.stock.note_arrival();
        Stocking::Stocked
    }

    /// Gives what is more than the stock is to have to the OS.
    pub(crate) fn trim_stock(&self, memory: &MemoryFile) {
        let surplus = self.lock().cut_to(self.stock.target() as usize);
        surplus.into_iter().for_each(|extent| self.give_to_os(memory, extent));
    }

    /// How many extents were taken from the stock since this was last asked.
    pub(crate) fn take_taken(&self) -> u32 {
        std::mem::take(&mut self.lock().taken)
    }

    /// Whether the stock can get another extent, were the OS to find its memory.
    pub(crate) fn can_be_stocked(&self) -> bool {
        let free = self.lock();
        let claim = if free.ready.is_empty() { Claim::Compaction } else { Claim::Growth };
        !free.spare.is_empty() || self.budget.has_room(EXTENT_BYTES as u64, claim)
    }

    /// Extents in the stock.
    pub(crate) fn stocked(&self) -> usize {
        self.lock().ready.len()
    }
}
