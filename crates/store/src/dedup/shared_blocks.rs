//! Blocks that several pages refer to: one cell each, which says where the block is, and a count of the pages.
//!
//! The cells are in a memory file and outlive the daemon; the counts can be derived from the indexes. A cell has a mark of its domain,
//! so that an entry that was damaged does not bring it into another one when a store is opened. Cell, count and block change
//! under the cell's lock, which is taken below the lock of a page's stripe and above nothing.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::domain::{Domain, DomainId};
use crate::{
    arena::{Arena, Emptied},
    budget::Budget,
    entry::{BlockRef, ContentsTag, Entry, MAX_CELLS, Place, SharedRef},
    ids::{IndexSlot, PoolId},
    index::{ENTRIES_PER_INDEX_PAGE, Index, NoRoom, PaidPage},
    memory_file::MemoryFile,
    sparse::{Sparse, sparse},
    stamp::Stamp,
    stock::Stock,
    tier_table::{Pinned, TierTable},
    zeroed::Zeroed,
};

/// What stands for the owner in the header of a shared block; its slot is the number of the cell.
pub(crate) const SHARED_POOL: PoolId = PoolId(u16::MAX - 1);

const LOCKS: usize = 64;

#[derive(Debug)]
pub(crate) struct SharedBlocks {
    cells: Index,
    records: Sparse<Record>,
    locks: [Mutex<()>; LOCKS],
    free: Mutex<FreeCells>,
}

/// What is derived of a cell. Changed under its lock.
#[derive(Debug)]
struct Record {
    pages: AtomicU32,
    /// Its domain's id, and in the highest bit whether the block was used since recompression last looked.
    domain_and_use: AtomicU32,
}

const USED: u32 = 1 << 31;

impl Record {
    fn enter(&self, domain: &Domain, pages: u32) {
        self.domain_and_use.store(domain.id().0 | USED, Ordering::Relaxed);
        self.pages.store(pages, Ordering::Relaxed);
    }

    fn domain(&self) -> DomainId {
        DomainId(self.domain_and_use.load(Ordering::Relaxed) & !USED)
    }

    fn note_use(&self) {
        let bits = self.domain_and_use.load(Ordering::Relaxed);
        if bits & USED == 0 {
            self.domain_and_use.store(bits | USED, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was last asked.
    fn take_use(&self) -> bool {
        let bits = self.domain_and_use.load(Ordering::Relaxed);
        self.domain_and_use.store(bits & !USED, Ordering::Relaxed);
        bits & USED != 0
    }
}

// SAFETY: two integers in cells.
unsafe impl Zeroed for Record {}

#[derive(Debug, Default)]
struct FreeCells {
    /// Given back; the lowest is used first, so that the file stays short.
    returned: BinaryHeap<Reverse<u32>>,
    untouched_from: u32,
}

/// A number for a cell that nothing refers to yet. Goes back when dropped.
#[derive(Debug)]
pub(crate) struct NewCell<'a> {
    cells: &'a SharedBlocks,
    number: Option<IndexSlot>,
}

/// Where blocks are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Homes<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) tier: &'a TierTable,
}

impl Homes<'_> {
    fn free(self, place: Place) -> Option<Emptied> {
        match place {
            Place::Arena(block) => self.arena.free(block),
            Place::Tier(tiered) => {
                self.tier.free(tiered);
                None
            }
        }
    }
}

/// What giving up a reference did.
#[derive(Debug)]
pub(crate) struct Released {
    /// The block that is gone with its last page.
    pub(crate) gone: Option<Place>,
    pub(crate) emptied: Option<Emptied>,
}

impl SharedBlocks {
    /// How long the file of the cells is, in bytes.
    pub(crate) fn file_bytes() -> usize {
        Index::file_bytes(MAX_CELLS)
    }

    /// Cells in a file in which nothing is stored yet, or whose contents are still to be taken over.
    pub(crate) fn over(file: MemoryFile, budget: Arc<Budget>, stock: Arc<Stock>) -> Self {
        Self {
            cells: Index::over(file, MAX_CELLS, SHARED_POOL, budget, stock),
            records: sparse(MAX_CELLS as usize),
            locks: [const { Mutex::new(()) }; LOCKS],
            free: Mutex::default(),
        }
    }

    /// Begins to take over what the file holds. Then come the pages that refer to it, and [`SharedBlocks::resume`].
    pub(crate) fn recover(&self) -> io::Result<()> {
        self.cells
            .recover(|_, cells| cells.iter().filter(|cell| cell.load(Ordering::Relaxed) != 0).count() as u32)
    }

    /// Counts a page that was found to refer to a cell. `admit` says whether the cell's block can be right; it is asked for the first
    /// page. `None`: the page refers to no block of its domain. A block: it was its first page.
    pub(crate) fn adopt_page(
        &self,
        shared: SharedRef,
        domain: &Domain,
        admit: impl FnOnce(Place) -> bool,
    ) -> Option<Option<Place>> {
        let _cell = self.lock(shared.cell)?;
        let record = &self.records[shared.cell.0 as usize];
        if record.pages.load(Ordering::Relaxed) == 0 {
            let place = place_of(self.cells.load(shared.cell).ok()?)?;
            let is_right = may_be_of(place, shared) && self.cells.stamp(shared.cell) == domain.mark();
            if !is_right || !admit(place) {
                return None;
            }
            record.enter(domain, 1);
            return Some(Some(place));
        }
        self.place_in(shared, domain.id())?;
        record.pages.fetch_add(1, Ordering::Relaxed);
        Some(None)
    }

    /// Ends the taking over: cells that no page refers to are free.
    pub(crate) fn resume(&self) {
        let (mut returned, mut end) = (BinaryHeap::new(), 0);
        for index_page in 0..self.cells.index_pages() {
            let first = (index_page * ENTRIES_PER_INDEX_PAGE) as u32;
            if self.cells.is_page_empty(IndexSlot(first)) {
                continue;
            }
            for cell in first..first + ENTRIES_PER_INDEX_PAGE as u32 {
                if self.records[cell as usize].pages.load(Ordering::Relaxed) == 0 {
                    if self.cells.load(IndexSlot(cell)) != Ok(Entry::Absent) {
                        self.clear(IndexSlot(cell));
                    }
                    continue;
                }
                returned.extend((end..cell).map(Reverse));
                end = cell + 1;
            }
        }
        *self.lock_free() = FreeCells { returned, untouched_from: end };
    }

    /// Takes a free cell. `None`: there is none.
    pub(crate) fn new_cell(&self) -> Option<NewCell<'_>> {
        let mut free = self.lock_free();
        let number = match free.returned.pop() {
            Some(Reverse(number)) => number,
            None if u64::from(free.untouched_from) == MAX_CELLS => return None,
            None => {
                free.untouched_from += 1;
                free.untouched_from - 1
            }
        };
        drop(free);
        Some(NewCell { cells: self, number: Some(IndexSlot(number)) })
    }

    /// Pins the block of a cell that an entry refers to, whose lock the caller holds. `None`: there is no such block in the domain.
    pub(crate) fn pin(&self, shared: SharedRef, domain: DomainId, homes: Homes<'_>) -> Option<Pinned> {
        let _cell = self.lock(shared.cell)?;
        let place = self.place_in(shared, domain)?;
        self.records[shared.cell.0 as usize].note_use();
        match place {
            Place::Arena(block) => {
                homes.arena.pin_block(block.offset);
                Some(Pinned::Arena(block))
            }
            Place::Tier(tiered) => homes.tier.pin(tiered),
        }
    }

    /// As [`SharedBlocks::pin`] for a block in memory, and counts one more page. Undone by [`SharedBlocks::release`].
    pub(crate) fn pin_and_count(
        &self,
        shared: SharedRef,
        domain: DomainId,
        arena: &Arena,
    ) -> Option<BlockRef> {
        let _cell = self.lock(shared.cell)?;
        let Place::Arena(block) = self.place_in(shared, domain)? else { return None };
        let record = &self.records[shared.cell.0 as usize];
        record.pages.fetch_add(1, Ordering::Relaxed);
        record.note_use();
        arena.pin_block(block.offset);
        Some(block)
    }

    /// How many pages refer to a cell.
    pub(crate) fn pages(&self, shared: SharedRef) -> u32 {
        self.records.get(shared.cell.0 as usize).map_or(0, |record| record.pages.load(Ordering::Relaxed))
    }

    /// Counts one page less, and frees the block with the last one.
    pub(crate) fn release(&self, shared: SharedRef, domain: DomainId, homes: Homes<'_>) -> Released {
        let stays = Released { gone: None, emptied: None };
        let Some(cell) = self.lock(shared.cell) else { return stays };
        let Some(place) = self.place_in(shared, domain) else { return stays };
        if self.records[shared.cell.0 as usize].pages.fetch_sub(1, Ordering::Relaxed) > 1 {
            return stays;
        }
        self.clear(shared.cell);
        let emptied = homes.free(place);
        drop(cell);
        self.lock_free().returned.push(Reverse(shared.cell.0));
        Released { gone: Some(place), emptied }
    }

    /// Whether a cell's block is there.
    pub(crate) fn refers_to(&self, cell: IndexSlot, block: BlockRef) -> bool {
        self.lock(cell).is_some_and(|_cell| self.cells.load(cell) == Ok(Entry::Block(block)))
    }

    /// The domain of a cell whose block is there, if it was not used since this was last asked, or `whatever_its_use`.
    pub(crate) fn cold_in(
        &self,
        cell: IndexSlot,
        block: BlockRef,
        whatever_its_use: bool,
    ) -> Option<DomainId> {
        let _cell = self.lock(cell)?;
        let record = &self.records[cell.0 as usize];
        let is_there = self.cells.load(cell) == Ok(Entry::Block(block));
        (is_there && (!record.take_use() || whatever_its_use)).then(|| record.domain())
    }

    /// Makes a cell refer to a copy of its block, which may take less, and frees the block. `None`: the cell's block is not there any
    /// more.
    pub(crate) fn relocate(
        &self,
        cell: IndexSlot,
        from: Place,
        to: Place,
        homes: Homes<'_>,
    ) -> Option<Option<Emptied>> {
        let _cell = self.lock(cell)?;
        if self.cells.load(cell) != Ok(entry_of(from)) {
            return None;
        }
        let mark = self.cells.stamp(cell);
        let _replaced = self.cells.replace(cell, entry_of(to), mark, &mut PaidPage::none());
        Some(homes.free(from))
    }

    /// The domain of a cell whose block is there.
    pub(crate) fn domain_at(&self, cell: IndexSlot, place: Place) -> Option<DomainId> {
        let _cell = self.lock(cell)?;
        (self.cells.load(cell) == Ok(entry_of(place))).then(|| self.records[cell.0 as usize].domain())
    }

    /// Clears a cell whose lock the caller holds.
    fn clear(&self, cell: IndexSlot) {
        // An entry that becomes absent needs no memory.
        let _replaced = self.cells.replace(cell, Entry::Absent, Stamp::OLD, &mut PaidPage::none());
    }

    /// Where the block of a cell is whose lock the caller holds.
    fn place_in(&self, shared: SharedRef, domain: DomainId) -> Option<Place> {
        let record = self.records.get(shared.cell.0 as usize)?;
        if record.pages.load(Ordering::Relaxed) == 0 || record.domain() != domain {
            return None;
        }
        place_of(self.cells.load(shared.cell).ok()?).filter(|place| may_be_of(*place, shared))
    }

    /// Has the OS find the memory of a page of cells and of those behind it. False: it had less than `left_bytes` and what is wanted.
    pub(crate) fn find_pages(&self, first: u32, left_bytes: &mut u64) -> bool {
        // What else is known of the cells is in memory that may have yet to be found as well.
        let start = first as usize * ENTRIES_PER_INDEX_PAGE as usize;
        for record in self.records.iter().skip(start).step_by(ENTRIES_PER_INDEX_PAGE as usize / 2).take(16) {
            record.pages.fetch_or(0, Ordering::Relaxed);
        }
        self.cells.find_pages(first, left_bytes, |cell| self.lock(cell))
    }

    /// Gives pages of cells back that were found and not used.
    pub(crate) fn release_found_pages(&self) {
        self.cells.release_found_pages(|cell| self.lock(cell));
    }

    fn lock(&self, cell: IndexSlot) -> Option<MutexGuard<'_, ()>> {
        if u64::from(cell.0) >= MAX_CELLS {
            return None;
        }
        // Cells of one page of the file have one lock, which its count of entries needs.
        let index_page = u64::from(cell.0) / ENTRIES_PER_INDEX_PAGE;
        let lock = &self.locks[(index_page % LOCKS as u64) as usize];
        Some(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_free(&self) -> MutexGuard<'_, FreeCells> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn block(&self, cell: IndexSlot) -> Option<BlockRef> {
        match self.cells.load(cell) {
            Ok(Entry::Block(block)) => Some(block),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn flip_bit(&self, cell: IndexSlot, bit: u32) {
        self.cells.flip_bit(cell, bit);
    }

    #[cfg(test)]
    pub(crate) fn allocated_bytes(&self) -> io::Result<u64> {
        self.cells.allocated_bytes()
    }
}

/// A block may have become shorter since an entry first referred to its cell.
fn may_be_of(place: Place, shared: SharedRef) -> bool {
    place.block_bytes() <= shared.block_bytes
}

fn place_of(entry: Entry) -> Option<Place> {
    match entry {
        Entry::Block(block) => Some(Place::Arena(block)),
        Entry::Tiered(tiered) => Some(Place::Tier(tiered)),
        _ => None,
    }
}

fn entry_of(place: Place) -> Entry {
    match place {
        Place::Arena(block) => Entry::Block(block),
        Place::Tier(tiered) => Entry::Tiered(tiered),
    }
}

impl NewCell<'_> {
    /// Its number.
    pub(crate) fn number(&self) -> Option<IndexSlot> {
        self.number
    }

    /// Makes it refer to a block with such contents, for so many pages. Errors: no memory for the cell.
    pub(crate) fn publish(
        mut self,
        domain: &Domain,
        block: BlockRef,
        contents: ContentsTag,
        pages: u32,
    ) -> Result<SharedRef, NoRoom> {
        let cell = self.number.ok_or(NoRoom)?;
        let mut page = self.cells.cells.pay_for_page(cell)?;
        if page.is_paid() && !self.cells.cells.is_page_there(cell) {
            self.cells.cells.request_page_of(cell); // the next page that could be shared finds it
            return Err(NoRoom);
        }
        let locked = self.cells.lock(cell);
        self.cells.cells.replace(cell, Entry::Block(block), domain.mark(), &mut page)?;
        self.cells.records[cell.0 as usize].enter(domain, pages);
        drop(locked);
        self.number = None;
        Ok(SharedRef { cell, block_bytes: block.block_bytes, contents })
    }
}

impl Drop for NewCell<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.cells.lock_free().returned.push(Reverse(number.0));
        }
    }
}
