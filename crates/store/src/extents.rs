//! The arena's extents: which are held from the OS, for what, and how much of each is in use.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

use crate::{
    budget::{Budget, Claim},
    extent_state::ExtentState,
    fault_injection,
    memory_file::{HUGE_PAGE_BYTES, MemoryFile},
    pool::Persistence,
    survey::Survey,
    zeroed::zeroed,
};

/// The unit in which the arena takes memory from the OS and gives it back, in bytes. Large enough that the tail no block fits into
/// (half a block on average) is about half a percent of it; small enough that a pool of a few mebibytes still has some.
pub(crate) const EXTENT_BYTES: usize = 128 << 10;

/// Extents that make a huge page.
pub(crate) const EXTENTS_PER_HUGE_PAGE: u32 = (HUGE_PAGE_BYTES / EXTENT_BYTES) as u32;

/// An extent of the arena, counted from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ExtentId(pub(crate) u32);

impl ExtentUse {
    /// Whether its blocks may not be dropped.
    pub(crate) fn is_persistent(self) -> bool {
        self != ExtentUse::Ephemeral
    }

    /// Whether its blocks are still to be recompressed once they are cold.
    pub(crate) fn is_recompressible(self) -> bool {
        matches!(self, ExtentUse::Persistent | ExtentUse::Survivors)
    }

    /// Where compaction moves its blocks.
    pub(crate) fn moves_to(self) -> ExtentUse {
        if self == ExtentUse::Cold { ExtentUse::Cold } else { ExtentUse::Survivors }
    }
}

/// What an extent's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum ExtentUse {
    /// Fresh persistent blocks.
    Persistent = 1,
    /// Ephemeral blocks.
    Ephemeral = 2,
    /// Persistent blocks that were moved here when their extent was compacted.
    Survivors = 3,
    /// Persistent blocks that were cold: compressed harder, or left as they were because that gained too little.
    Cold = 4,
}

/// All extents.
#[derive(Debug)]
pub(crate) struct Extents {
    /// One 16-bit cell an extent, 0 = free, else its use and whether it is complete. In a memory file, for whoever takes the arena
    /// over.
    table: MemoryFile,
    /// Derived: can be counted from the indexes.
    states: Box<[ExtentState]>,
    /// Derived: of each stretch of the arena as large as a huge page, whether it is one (1) or not (0).
    huge: Box<[AtomicU32]>,
    free: Mutex<FreeExtents>,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct FreeExtents {
    /// Given back; the lowest is used first, so that the arena stays short.
    returned: BinaryHeap<Reverse<u32>>,
    /// From here on none was ever used.
    untouched_from: u32,
    /// Free extents whose memory was kept.
    spare: Vec<ExtentId>,
    /// Extents in use.
    used: u32,
}

/// One extent is kept for so many in use: taking memory from the OS and giving it back costs 60 us, a tenth of what the puts do that
/// fill an extent; and what is kept is 1.6% at most.
const USED_EXTENTS_PER_SPARE: usize = 64;

impl FreeExtents {
    fn take_spare(&mut self) -> Option<ExtentId> {
        let spare = self.spare.pop()?;
        self.used += 1;
        Some(spare)
    }
}

impl Extents {
    /// How long the table's file is for so many extents, in bytes.
    pub(crate) const fn file_bytes(count: u32) -> usize {
        (count as usize * 2).next_multiple_of(4096)
    }

    pub(crate) fn over(table: MemoryFile, count: u32, budget: Arc<Budget>) -> Self {
        Self {
            table,
            states: zeroed(count as usize),
            huge: zeroed((count / EXTENTS_PER_HUGE_PAGE) as usize),
            free: Mutex::default(),
            budget,
        }
    }

    /// Takes a free extent; it is open and empty, and the OS may have yet to find its memory. `None`: the claim goes beyond the limit.
    pub(crate) fn acquire(&self, usage: ExtentUse, claim: Claim) -> Option<ExtentId> {
        // A spare one is held already. But growth must leave the working room free, or compaction could not go on.
        let spare = if self.budget.has_room(0, claim) { self.lock().take_spare() } else { None };
        let extent = match spare {
            Some(spare) => spare,
            None if self.budget.try_reserve(EXTENT_BYTES as u64, claim) => {
                let Some(extent) = self.pop_free() else {
                    self.budget.release(EXTENT_BYTES as u64);
                    return None;
                };
                extent
            }
            None => return None,
        };
        self.state(extent).open();
        self.set_cell(extent, usage.cell(false));
        Some(extent)
    }

    /// Takes back an extent that nobody uses. Its memory goes to the OS, but for a few that are kept to be used again.
    pub(crate) fn give_back(&self, memory: &MemoryFile, extent: ExtentId) {
        self.set_cell(extent, 0);
        let surplus = {
            let mut free = self.lock();
            free.used -= 1;
            free.spare.push(extent);
            // Not in the working room: what compaction took from it has to come back.
            let may_keep = self.budget.has_room(0, Claim::Growth);
            let kept = if may_keep { free.used as usize / USED_EXTENTS_PER_SPARE } else { 0 };
            if free.spare.len() <= kept { Vec::new() } else { free.spare.split_off(kept) }
        };
        surplus.into_iter().for_each(|extent| self.give_to_os(memory, extent));
    }

    /// Gives one of the extents that are kept to be used again to the OS. False: there is none.
    pub(crate) fn release_spare(&self, memory: &MemoryFile) -> bool {
        let spare = self.lock().spare.pop();
        spare.map(|extent| self.give_to_os(memory, extent)).is_some()
    }

    fn give_to_os(&self, memory: &MemoryFile, extent: ExtentId) {
        self.set_huge(extent.stretch(), false); // a hole splits it
        // Punching a hole in a memory file only fails for lack of kernel memory. The extent then stays usable and is given
        // back the next time.
        let _ = memory.give_back(extent.offset(), EXTENT_BYTES);
        self.lock().returned.push(Reverse(extent.0));
        self.budget.release(EXTENT_BYTES as u64);
    }

    /// Whether a claim for one more extent would be granted now.
    pub(crate) fn has_room(&self, claim: Claim) -> bool {
        self.budget.has_room(EXTENT_BYTES as u64, claim)
            || self.budget.has_room(0, claim) && !self.lock().spare.is_empty()
    }

    /// Whether so many bytes outside the arena would be granted now.
    pub(crate) fn has_room_for_bytes(&self, bytes: u64) -> bool {
        self.budget.has_room(bytes, Claim::Growth)
    }

    /// Whether a client that has had its share of the limit may have more.
    pub(crate) fn has_headroom(&self) -> bool {
        self.budget.has_room(0, Claim::BeyondShare)
    }

    /// What an extent is used for. `None`: it is free, or there is none of that number.
    pub(crate) fn usage(&self, extent: ExtentId) -> Option<ExtentUse> {
        let cell = self.table.as_u16s().get(extent.0 as usize)?;
        ExtentUse::of_cell(cell.load(Ordering::Acquire)).map(|(usage, _)| usage)
    }

    /// Says in the table that an extent is sealed and all its blocks are written. The caller holds a pin, so the extent stays.
    pub(crate) fn mark_complete(&self, extent: ExtentId) {
        if let Some(usage) = self.usage(extent) {
            self.set_cell(extent, usage.cell(true));
        }
        self.state(extent).mark_complete();
    }

    /// What the table says of all extents up to the last one in use.
    pub(crate) fn survey(&self) -> io::Result<Survey> {
        let mut end = 0;
        for range in self.table.held_ranges() {
            let range = range?;
            let cells = &self.table.as_u16s()[range.start / 2..range.end / 2];
            let last = cells.iter().rposition(|cell| cell.load(Ordering::Acquire) != 0);
            end = last.map_or(end, |last| range.start / 2 + last + 1);
        }
        let cells = self.table.as_u16s()[..end.min(self.states.len())].iter();
        Ok(Survey::new(cells.map(|cell| ExtentUse::of_cell(cell.load(Ordering::Acquire)))))
    }

    /// Takes over a complete extent.
    pub(crate) fn adopt(&self, extent: ExtentId, usage: ExtentUse, live_bytes: u32) {
        if self.cell(extent).load(Ordering::Relaxed) != usage.cell(true) {
            self.set_cell(extent, usage.cell(true));
        }
        self.state(extent).restore(live_bytes);
        self.budget.adopt(EXTENT_BYTES as u64);
    }

    /// Takes over an extent that cannot be walked. The table goes on saying that it has to be looked at.
    pub(crate) fn adopt_damaged(&self, extent: ExtentId, usage: ExtentUse, live_bytes: u32) {
        self.set_cell(extent, usage.cell(false));
        self.state(extent).restore(live_bytes);
        self.state(extent).mark_damaged();
        self.budget.adopt(EXTENT_BYTES as u64);
    }

    /// Says in the table that an extent is free.
    pub(crate) fn clear(&self, extent: ExtentId) {
        if self.cell(extent).load(Ordering::Relaxed) != 0 {
            self.set_cell(extent, 0);
        }
    }

    /// Goes on with these extents, and all from `untouched_from` on, free.
    pub(crate) fn resume(&self, free: Vec<ExtentId>, untouched_from: u32) {
        let used = untouched_from - free.len() as u32;
        let returned = free.into_iter().map(|extent| Reverse(extent.0)).collect();
        *self.lock() = FreeExtents { returned, untouched_from, spare: Vec::new(), used };
    }

    pub(crate) fn count(&self) -> u32 {
        self.states.len() as u32
    }

    pub(crate) fn state(&self, extent: ExtentId) -> &ExtentState {
        &self.states[extent.0 as usize]
    }

    /// Whether a stretch of the arena is a huge page.
    pub(crate) fn is_huge(&self, stretch: u32) -> bool {
        self.huge[stretch as usize].load(Ordering::Relaxed) != 0
    }

    pub(crate) fn set_huge(&self, stretch: u32, is_huge: bool) {
        let cell = &self.huge[stretch as usize];
        if is_huge != (cell.load(Ordering::Relaxed) != 0) {
            cell.store(is_huge.into(), Ordering::Relaxed);
        }
    }

    /// Extents from this one on were never used.
    pub(crate) fn untouched_from(&self) -> u32 {
        self.lock().untouched_from
    }

    fn set_cell(&self, extent: ExtentId, cell: u16) {
        fault_injection::point();
        self.cell(extent).store(cell, Ordering::Release);
    }

    fn cell(&self, extent: ExtentId) -> &AtomicU16 {
        &self.table.as_u16s()[extent.0 as usize]
    }

    fn pop_free(&self) -> Option<ExtentId> {
        let mut free = self.lock();
        if let Some(Reverse(extent)) = free.returned.pop() {
            free.used += 1;
            return Some(ExtentId(extent));
        }
        if free.untouched_from as usize == self.states.len() {
            return None;
        }
        free.untouched_from += 1;
        free.used += 1;
        Some(ExtentId(free.untouched_from - 1))
    }

    fn lock(&self) -> MutexGuard<'_, FreeExtents> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In a cell of the table: the extent is complete.
const COMPLETE: u16 = 1 << 7;

impl ExtentUse {
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(ExtentUse::Persistent),
            2 => Some(ExtentUse::Ephemeral),
            3 => Some(ExtentUse::Survivors),
            4 => Some(ExtentUse::Cold),
            _ => None,
        }
    }

    /// Whether blocks of such pools are in such extents.
    pub(crate) fn is_for(self, persistence: Persistence) -> bool {
        (self == ExtentUse::Ephemeral) == (persistence == Persistence::Ephemeral)
    }

    /// What the table holds: the lower byte, and all its bits turned over in the upper one, so that a flipped bit is seen.
    fn cell(self, complete: bool) -> u16 {
        let byte = self as u16 | if complete { COMPLETE } else { 0 };
        byte | (!byte & 0xff) << 8
    }

    /// `None`: the extent is free, or the cell is damaged.
    fn of_cell(cell: u16) -> Option<(Self, bool)> {
        let byte = cell & 0xff;
        let usage = Self::from_number(byte & !COMPLETE).filter(|_| cell >> 8 == !byte & 0xff)?;
        Some((usage, byte & COMPLETE != 0))
    }
}

impl ExtentId {
    /// Where it starts in the arena, in bytes.
    pub(crate) fn offset(self) -> usize {
        self.0 as usize * EXTENT_BYTES
    }

    /// The stretch, as large as a huge page, that it belongs to.
    fn stretch(self) -> u32 {
        self.0 / EXTENTS_PER_HUGE_PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_what_was_stored_or_nothing() {
        for usage in [ExtentUse::Persistent, ExtentUse::Ephemeral, ExtentUse::Survivors] {
            for complete in [false, true] {
                let cell = usage.cell(complete);
                assert_eq!(ExtentUse::of_cell(cell), Some((usage, complete)));
                (0..16).for_each(|bit| assert_eq!(ExtentUse::of_cell(cell ^ 1 << bit), None));
            }
        }
        assert_eq!(ExtentUse::of_cell(0), None);
    }
}
