//! The index: one 8-byte entry a page, in a sparse memory file.
//!
//! A 4 KiB page of the index is charged to the budget when its first entry is written, and given back when its last one is
//! forgotten. Every change happens under the lock of the stripe that the index page belongs to.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    budget::{Budget, Claim},
    entry::{DamagedEntry, Entry},
    fault_injection::{self, Point},
    ids::{IndexSlot, PoolId},
    memory_file::MemoryFile,
    stamp::Stamp,
    stock::Stock,
    zeroed::zeroed,
};

mod ahead;
mod page_state;

use ahead::Ahead;
use page_state::PageMemory;
pub(crate) use page_state::PageState;

/// Entries in one 4 KiB page of the index.
pub(crate) const ENTRIES_PER_INDEX_PAGE: u64 = 512;

/// What one page of the index takes, in bytes.
pub(crate) const INDEX_PAGE_BYTES: u64 = ENTRIES_PER_INDEX_PAGE * 8;

/// The entries of one pool.
#[derive(Debug)]
pub(crate) struct Index {
    entries: MemoryFile,
    /// How many entries of each index page are not absent. Derived; changed under the page's stripe.
    populations: Box<[AtomicU32]>,
    /// Who has the memory of each index page.
    states: Box<[PageState]>,
    ahead: Ahead,
    budget: Arc<Budget>,
}

/// What a change did to the memory the index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexMemory {
    Unchanged,
    /// One more index page is held.
    Grew,
    /// One index page went back.
    Shrank,
}

/// The limit leaves no room for another index page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// An index page that was charged to the budget before it is known whether it will be needed. What is not used is given back.
#[derive(Debug)]
pub(crate) struct PaidPage<'a>(Option<Charge<'a>>);

#[derive(Debug)]
struct Charge<'a> {
    budget: &'a Budget,
    /// The page that came with the charge, if it was found ahead.
    taken: Option<&'a PageState>,
}

impl PaidPage<'_> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn is_paid(&self) -> bool {
        self.0.is_some()
    }

    fn use_up(&mut self) -> bool {
        self.0.take().is_some()
    }
}

impl Drop for PaidPage<'_> {
    fn drop(&mut self) {
        if let Some(Charge { budget, taken }) = &self.0
            && !taken.is_some_and(PageState::put_back)
        {
            budget.release(INDEX_PAGE_BYTES);
        }
    }
}

impl Index {
    /// How long the file of an index is, in bytes.
    pub(crate) fn file_bytes(slots: u64) -> usize {
        (slots.div_ceil(ENTRIES_PER_INDEX_PAGE).max(1) * INDEX_PAGE_BYTES) as usize
    }

    /// An index over a file in which nothing is stored yet. Costs nothing until used.
    /// `owner` is the pool that asks for its pages to be found ahead.
    pub(crate) fn over(
        entries: MemoryFile,
        slots: u64,
        owner: PoolId,
        budget: Arc<Budget>,
        stock: Arc<Stock>,
    ) -> Self {
        let pages = Self::file_bytes(slots) / INDEX_PAGE_BYTES as usize;
        let ahead = Ahead { stock, owner, found: Mutex::default() };
        Self { entries, populations: zeroed(pages), states: zeroed(pages), ahead, budget }
    }

    /// Takes over what the file holds: `look` is shown the cells of every index page that the OS holds, by number of the index page,
    /// may change them, and says how many hold something then. Index pages without any go back; the others are charged.
    pub(crate) fn recover(&self, mut look: impl FnMut(u64, &[AtomicU64]) -> u32) -> io::Result<()> {
        let page_bytes = INDEX_PAGE_BYTES as usize;
        for range in self.entries.held_ranges() {
            let range = range?;
            for index_page in range.start / page_bytes..range.end.div_ceil(page_bytes) {
                let first = index_page * ENTRIES_PER_INDEX_PAGE as usize;
                let cells = &self.entries.as_u64s()[first..][..ENTRIES_PER_INDEX_PAGE as usize];
                let population = look(index_page as u64, cells);
                self.budget.adopt(INDEX_PAGE_BYTES);
                let _nobodys = self.states[index_page].use_up();
                if population == 0 {
                    self.give_back_page_of(IndexSlot(first as u32));
                }
                self.populations[index_page].store(population, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    fn new(slots: u64, budget: Arc<Budget>) -> io::Result<Self> {
        let file = MemoryFile::create("tmem-index", Self::file_bytes(slots))?;
        Ok(Self::over(file, slots, PoolId(0), budget, Arc::new(Stock::new())))
    }

    pub(crate) fn index_pages(&self) -> u64 {
        self.populations.len() as u64
    }

    pub(crate) fn slots(&self) -> u64 {
        self.index_pages() * ENTRIES_PER_INDEX_PAGE
    }

    pub(crate) fn load(&self, slot: IndexSlot) -> Result<Entry, DamagedEntry> {
        Entry::decode(self.bits(slot))
    }

    /// Whether nothing at all is stored under the index page of a slot.
    pub(crate) fn is_page_empty(&self, slot: IndexSlot) -> bool {
        self.population(slot).load(Ordering::Relaxed) == 0
    }

    /// Charges the index page of a slot to the budget, if it holds nothing yet.
    pub(crate) fn pay_for_page(&self, slot: IndexSlot) -> Result<PaidPage<'_>, NoRoom> {
        if !self.is_page_empty(slot) {
            return Ok(PaidPage::none());
        }
        let state = self.state(slot);
        let taken = state.take().then_some(state);
        if taken.is_some() {
            self.request_pages_behind(slot);
        } else if !self.budget.try_reserve(INDEX_PAGE_BYTES, Claim::Growth) {
            return Err(NoRoom);
        }
        Ok(PaidPage(Some(Charge { budget: &self.budget, taken })))
    }

    /// Replaces an entry by one with that stamp. Errors: the new entry needs an index page that the limit has no room for; nothing has
    /// changed then.
    pub(crate) fn replace(
        &self,
        slot: IndexSlot,
        new: Entry,
        stamp: Stamp,
        paid: &mut PaidPage<'_>,
    ) -> Result<IndexMemory, NoRoom> {
        let cell = self.cell(slot);
        let new_bits = if new == Entry::Absent { 0 } else { stamp.on(new.encode()) };
        let was_absent = self.bits(slot) == 0;
        let population = self.population(slot);
        let mut memory = IndexMemory::Unchanged;
        match (was_absent, new == Entry::Absent) {
            (true, false) => {
                if population.load(Ordering::Relaxed) == 0 {
                    self.use_page_of(slot, paid)?;
                    memory = IndexMemory::Grew;
                }
                population.fetch_add(1, Ordering::Relaxed);
                fault_injection::point(Point::Index);
                cell.store(new_bits, Ordering::Release);
            }
            (false, true) => {
                fault_injection::point(Point::Index);
                cell.store(0, Ordering::Release);
                // A damaged entry may never have been counted; then the count runs low, and is set right here.
                let left = population.load(Ordering::Relaxed).saturating_sub(1);
                let left = if left == 0 { self.count(slot) } else { left };
                population.store(left, Ordering::Relaxed);
                if left == 0 {
                    self.give_back_page_of(slot);
                    memory = IndexMemory::Shrank;
                }
            }
            _ => {
                fault_injection::point(Point::Index);
                cell.store(new_bits, Ordering::Release);
            }
        }
        Ok(memory)
    }

    /// A slot's index page gets its first entry, which a charge goes with.
    fn use_page_of(&self, slot: IndexSlot, paid: &mut PaidPage<'_>) -> Result<(), NoRoom> {
        let state = self.state(slot);
        if self.ahead.stock.is_kept() && !state.see().is_there() {
            return Err(NoRoom); // it went back since it was paid for
        }
        if !paid.is_paid() && state.use_ready() {
            return Ok(());
        }
        if !paid.use_up() && !self.budget.try_reserve(INDEX_PAGE_BYTES, Claim::Growth) {
            return Err(NoRoom);
        }
        if state.use_up() == PageMemory::Ready {
            self.budget.release(INDEX_PAGE_BYTES);
        }
        Ok(())
    }

    /// The stamp of an entry that stands for a page.
    pub(crate) fn stamp(&self, slot: IndexSlot) -> Stamp {
        Stamp::of(self.cell(slot).load(Ordering::Relaxed))
    }

    /// Stamps an entry that stands for a page; gives the stamp it had.
    pub(crate) fn restamp(&self, slot: IndexSlot, stamp: Stamp) -> Stamp {
        let cell = self.cell(slot);
        let bits = cell.load(Ordering::Relaxed);
        let before = Stamp::of(bits);
        if before != stamp {
            cell.store(stamp.on(bits), Ordering::Release);
        }
        before
    }

    /// Stamps anew every entry of a slot's index page that is stamped.
    pub(crate) fn restamp_page_of(&self, slot: IndexSlot, new: impl Fn(Stamp) -> Stamp) {
        for cell in self.cells_of_page(slot) {
            let bits = cell.load(Ordering::Relaxed);
            let stamp = Stamp::of(bits);
            let new = new(stamp);
            if new != stamp {
                cell.store(new.on(bits), Ordering::Release);
            }
        }
    }

    /// Counts the entries of a slot's index page that are not absent.
    fn count(&self, slot: IndexSlot) -> u32 {
        self.cells_of_page(slot).iter().filter(|cell| cell.load(Ordering::Relaxed) != 0).count() as u32
    }

    fn cells_of_page(&self, slot: IndexSlot) -> &[AtomicU64] {
        let first = u64::from(slot.0) / ENTRIES_PER_INDEX_PAGE * ENTRIES_PER_INDEX_PAGE;
        &self.entries.as_u64s()[first as usize..][..ENTRIES_PER_INDEX_PAGE as usize]
    }

    fn give_back_page_of(&self, slot: IndexSlot) {
        let index_page = u64::from(slot.0) / ENTRIES_PER_INDEX_PAGE;
        // It only fails for lack of kernel memory, and an index page that stays is all zeroes: absent, as it should be.
        let _ = self.entries.give_back((index_page * INDEX_PAGE_BYTES) as usize, INDEX_PAGE_BYTES as usize);
        self.budget.release(INDEX_PAGE_BYTES);
        self.state(slot).give_back();
    }

    /// The entry's bits. An empty index page is not looked at: even reading it would make the OS find memory for it.
    fn bits(&self, slot: IndexSlot) -> u64 {
        if self.is_page_empty(slot) { 0 } else { self.cell(slot).load(Ordering::Acquire) }
    }

    fn population(&self, slot: IndexSlot) -> &AtomicU32 {
        &self.populations[(u64::from(slot.0) / ENTRIES_PER_INDEX_PAGE) as usize]
    }

    fn state(&self, slot: IndexSlot) -> &PageState {
        &self.states[(u64::from(slot.0) / ENTRIES_PER_INDEX_PAGE) as usize]
    }

    fn cell(&self, slot: IndexSlot) -> &AtomicU64 {
        &self.entries.as_u64s()[slot.0 as usize]
    }

    #[cfg(any(test, feature = "fault-injection"))]
    pub(crate) fn flip_bit(&self, slot: IndexSlot, bit: u32) {
        self.cell(slot).fetch_xor(1 << bit, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn overwrite(&self, slot: IndexSlot, entry: Entry) {
        self.cell(slot).store(entry.encode(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn allocated_bytes(&self) -> io::Result<u64> {
        self.entries.allocated_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(index: &Index, slot: IndexSlot, new: Entry) -> Result<IndexMemory, NoRoom> {
        index.replace(slot, new, Stamp::OLD, &mut PaidPage::none())
    }

    #[test]
    fn an_untouched_terabyte_costs_nothing() {
        let budget = Arc::new(Budget::new(1 << 20, 0));
        let index = Index::new(1 << 28, budget.clone()).unwrap();
        assert_eq!(index.load(IndexSlot((1 << 28) - 1)), Ok(Entry::Absent));
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn r7_an_index_page_is_held_from_its_first_entry_to_its_last() {
        let budget = Arc::new(Budget::new(INDEX_PAGE_BYTES, 0));
        let index = Index::new(2048, budget.clone()).unwrap();
        assert_eq!(replace(&index, IndexSlot(3), Entry::SameFilled(1)), Ok(IndexMemory::Grew));
        assert_eq!(replace(&index, IndexSlot(4), Entry::SameFilled(2)), Ok(IndexMemory::Unchanged));
        assert_eq!(replace(&index, IndexSlot(600), Entry::SameFilled(3)), Err(NoRoom));
        assert_eq!(index.load(IndexSlot(600)), Ok(Entry::Absent));
        assert_eq!(index.allocated_bytes().unwrap(), INDEX_PAGE_BYTES, "reading costs memory");
        assert_eq!(replace(&index, IndexSlot(3), Entry::Absent), Ok(IndexMemory::Unchanged));
        assert_eq!(replace(&index, IndexSlot(4), Entry::Absent), Ok(IndexMemory::Shrank));
        assert_eq!((budget.held_bytes(), index.allocated_bytes().unwrap()), (0, 0));
    }

    #[test]
    fn an_index_is_found_again_from_its_file() {
        let budget = Arc::new(Budget::new(1 << 20, 0));
        let index = Index::new(4096, budget.clone()).unwrap();
        [3, 700, 701, 4095].iter().for_each(|slot| {
            replace(&index, IndexSlot(*slot), Entry::SameFilled(*slot)).unwrap();
        });
        index.entries.populate(2 * INDEX_PAGE_BYTES as usize, INDEX_PAGE_BYTES as usize).unwrap();
        let file = std::os::fd::AsFd::as_fd(&index.entries).try_clone_to_owned().unwrap();
        let file = MemoryFile::open(file, Index::file_bytes(4096)).unwrap();
        let fresh = Arc::new(Budget::new(1 << 20, 0));
        let again = Index::over(file, 4096, PoolId(0), fresh.clone(), Arc::new(Stock::new()));
        let count =
            |cells: &[AtomicU64]| cells.iter().filter(|cell| cell.load(Ordering::Relaxed) != 0).count();
        again.recover(|_, cells| count(cells) as u32).unwrap();
        assert_eq!((fresh.held_bytes(), again.allocated_bytes().unwrap()), (3 * 4096, 3 * 4096));
        assert_eq!(again.load(IndexSlot(701)), Ok(Entry::SameFilled(701)));
        assert_eq!(replace(&again, IndexSlot(700), Entry::Absent), Ok(IndexMemory::Unchanged));
        assert_eq!(replace(&again, IndexSlot(701), Entry::Absent), Ok(IndexMemory::Shrank));
    }

    #[test]
    fn r1_a_damaged_neighbour_does_not_take_an_entry_along() {
        let budget = Arc::new(Budget::new(1 << 20, 0));
        let index = Index::new(512, budget).unwrap();
        replace(&index, IndexSlot(1), Entry::SameFilled(1)).unwrap();
        index.flip_bit(IndexSlot(2), 40); // never stored, never counted
        assert_eq!(index.load(IndexSlot(2)), Err(DamagedEntry));
        assert_eq!(replace(&index, IndexSlot(2), Entry::Absent), Ok(IndexMemory::Unchanged));
        assert_eq!(index.load(IndexSlot(1)), Ok(Entry::SameFilled(1)));
    }
}
