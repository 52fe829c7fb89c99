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
    fault_injection::{self, Point},
    memory_file::{HUGE_PAGE_BYTES, MemoryFile},
    pool::Persistence,
    stock::Stock,
    survey::Survey,
    zeroed::zeroed,
};

mod stocking;

pub(crate) use stocking::Stocking;

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
    stock: Arc<Stock>,
}

#[derive(Debug, Default)]
struct FreeExtents {
    /// Given back; the lowest is used first, so that the arena stays short.
    returned: BinaryHeap<Reverse<u32>>,
    /// From here on none was ever used.
    untouched_from: u32,
    /// Free extents whose memory was kept, of which the OS may have yet to find some.
    spare: Vec<ExtentId>,
    /// The stock: free extents whose memory is all there.
    ready: Vec<ExtentId>,
    /// Extents taken from the stock since somebody last looked.
    taken: u32,
    /// Extents in use.
    used: u32,
}

/// One extent is kept for so many in use: taking memory from the OS and giving it back costs 60 us, a tenth of what the puts do that
/// fill an extent; and what is kept is 1.6% at most.
const USED_EXTENTS_PER_SPARE: usize = 64;

/// Of what becomes free, so many times the stock is kept at least, until nothing was taken for a while: where pages are overwritten,
/// extents become free as fast as they are taken, but not just then.
const KEPT_PER_STOCKED: usize = 2;

impl FreeExtents {
    /// A free extent that is held, and whether its memory is all there.
    fn take_held(&mut self) -> Option<(ExtentId, bool)> {
        let ready = self.ready.pop().map(|extent| (extent, true));
        let held = ready.or_else(|| Some((self.spare.pop()?, false)))?;
        self.used += 1;
        Some(held)
    }

    fn has_held(&self) -> bool {
        !self.ready.is_empty() || !self.spare.is_empty()
    }

    fn take_ready(&mut self, claim: Claim) -> Option<ExtentId> {
        if !self.has_ready(claim) {
            return None;
        }
        let ready = self.ready.pop()?;
        self.used += 1;
        self.taken += 1;
        Some(ready)
    }

    /// Takes out what is more than so many of those that are free and held, first those whose memory is not all there.
    fn cut_to(&mut self, kept: usize) -> Vec<ExtentId> {
        let excess = (self.ready.len() + self.spare.len()).saturating_sub(kept);
        let mut surplus = self.spare.split_off(self.spare.len().saturating_sub(excess));
        surplus.extend(self.ready.split_off(self.ready.len() - (excess - surplus.len())));
        surplus
    }

    /// The last one is compaction's, which must be able to move blocks just when there is nothing else.
    fn has_ready(&self, claim: Claim) -> bool {
        self.ready.len() > usize::from(claim == Claim::Growth)
    }

    /// The lowest extent that is neither in use nor held. `None`: the arena has no more.
    fn take_free(&mut self, count: usize) -> Option<ExtentId> {
        if let Some(Reverse(extent)) = self.returned.pop() {
            return Some(ExtentId(extent));
        }
        if self.untouched_from as usize == count {
            return None;
        }
        self.untouched_from += 1;
        Some(ExtentId(self.untouched_from - 1))
    }
}

impl Extents {
    /// How long the table's file is for so many extents, in bytes.
    pub(crate) const fn file_bytes(count: u32) -> usize {
        (count as usize * 2).next_multiple_of(4096)
    }

    pub(crate) fn over(table: MemoryFile, count: u32, budget: Arc<Budget>, stock: Arc<Stock>) -> Self {
        Self {
            table,
            states: zeroed(count as usize),
            huge: zeroed((count / EXTENTS_PER_HUGE_PAGE) as usize),
            free: Mutex::default(),
            budget,
            stock,
        }
    }

    /// Takes a free extent; it is open and empty. Where a stock is kept its memory is there, else the OS may have yet to find it. `None`:
    /// the claim goes beyond the limit, or the stock.
    pub(crate) fn acquire(&self, usage: ExtentUse, claim: Claim) -> Option<ExtentId> {
        // What is free and held takes nothing more. But growth must leave the working room free, or compaction could not go on.
        let may_take = self.budget.has_room(0, claim);
        let (extent, populated) = if self.stock.is_kept() {
            (may_take.then(|| self.take_ready(claim)).flatten()?, true)
        } else {
            let held = may_take.then(|| self.lock().take_held()).flatten();
            held.or_else(|| Some((self.take_new(claim)?, false)))?
        };
        self.state(extent).open(populated);
        self.set_cell(extent, usage.cell(false));
        Some(extent)
    }

    fn take_ready(&self, claim: Claim) -> Option<ExtentId> {
        let mut free = self.lock();
        let ready = free.take_ready(claim);
        let is_low = free.ready.len() <= self.stock.target() as usize / 2;
        drop(free);
        if is_low {
            self.stock.want();
        }
        ready
    }

    fn take_new(&self, claim: Claim) -> Option<ExtentId> {
        if !self.budget.try_reserve(EXTENT_BYTES as u64, claim) {
            return None;
        }
        let mut free = self.lock();
        let Some(extent) = free.take_free(self.states.len()) else {
            drop(free);
            self.budget.release(EXTENT_BYTES as u64);
            return None;
        };
        free.used += 1;
        Some(extent)
    }

    /// Takes back an extent that nobody uses. Its memory goes to the OS, but for a few that are kept to be used again.
    pub(crate) fn give_back(&self, memory: &MemoryFile, extent: ExtentId) {
        self.set_cell(extent, 0);
        let populated = self.state(extent).see().populated;
        let is_kept = self.stock.is_kept();
        let surplus = {
            let mut free = self.lock();
            free.used -= 1;
            let free = &mut *free;
            let list = if populated { &mut free.ready } else { &mut free.spare };
            list.push(extent);
            // Not in the working room: what compaction took from it has to come back. But the last of the stock is the working room.
            let kept = if self.budget.has_room(0, Claim::Growth) {
                let part = free.used as usize / USED_EXTENTS_PER_SPARE;
                if is_kept { part.max(KEPT_PER_STOCKED * self.stock.target() as usize) } else { part }
            } else {
                usize::from(is_kept && self.budget.has_room(0, Claim::Compaction))
            };
            free.cut_to(kept)
        };
        surplus.into_iter().for_each(|extent| self.give_to_os(memory, extent));
        if is_kept {
            if populated {
                self.stock.note_arrival();
            } else {
                self.stock.want();
            }
        }
    }

    /// Gives one of the extents that are kept to be used again to the OS, but not the last of a stock. False: there is none.
    pub(crate) fn release_spare(&self, memory: &MemoryFile) -> bool {
        let mut free = self.lock();
        let least = usize::from(self.stock.is_kept());
        let spare =
            free.spare.pop().or_else(|| if free.ready.len() > least { free.ready.pop() } else { None });
        drop(free);
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
        if self.stock.is_kept() {
            return self.budget.has_room(0, claim) && self.lock().has_ready(claim);
        }
        self.budget.has_room(EXTENT_BYTES as u64, claim)
            || self.budget.has_room(0, claim) && self.lock().has_held()
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
        *self.lock() = FreeExtents { returned, untouched_from, used, ..FreeExtents::default() };
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
        fault_injection::point(Point::Extent);
        self.cell(extent).store(cell, Ordering::Release);
    }

    fn cell(&self, extent: ExtentId) -> &AtomicU16 {
        &self.table.as_u16s()[extent.0 as usize]
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
