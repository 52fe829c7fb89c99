//! Finding the memory of index pages ahead of the puts that need it.

use std::{
    collections::VecDeque,
    sync::{MutexGuard, PoisonError},
};

use super::{ENTRIES_PER_INDEX_PAGE, INDEX_PAGE_BYTES, Index, PageMemory};
use crate::{
    budget::Claim,
    ids::{IndexSlot, PoolId},
    stock::{Request, Stock},
    zeroed::find_memory_of,
};

/// A swap area fills in runs of 256 to 512 pages, mostly upwards: behind an index page that is used so many are found, 8 MiB of a disk.
const PAGES_AHEAD: u32 = 4;

/// So many index pages that nobody used are kept; then the oldest go back.
const MOST_READY: usize = 32;

/// For whom an index's pages are found, and which were.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) stock: std::sync::Arc<Stock>,
    pub(super) owner: PoolId,
    /// Index pages that were found, oldest first. Some may have been used since.
    pub(super) found: std::sync::Mutex<VecDeque<u32>>,
}

impl Ahead {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u32>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Whether an entry can be written without waiting for the OS. Where no stock is kept it may have to.
    pub(crate) fn is_page_there(&self, slot: IndexSlot) -> bool {
        !self.ahead.stock.is_kept() || !self.is_page_empty(slot) || self.state(slot).see().is_there()
    }

    /// Asks for the memory of a slot's index page, and for what may be needed next.
    pub(crate) fn request_page_of(&self, slot: IndexSlot) {
        let first = (u64::from(slot.0) / ENTRIES_PER_INDEX_PAGE) as u32;
        self.ahead.stock.request(Request::IndexPages { pool: self.ahead.owner, first });
    }

    /// A slot's index page is about to be used: asks for the next ones while there still are some.
    pub(super) fn request_pages_behind(&self, slot: IndexSlot) {
        let middle = u64::from(slot.0) + u64::from(PAGES_AHEAD / 2) * ENTRIES_PER_INDEX_PAGE;
        let Ok(middle) = u32::try_from(middle).map(IndexSlot) else { return };
        if u64::from(middle.0) < self.slots() && !self.is_page_there(middle) {
            self.request_page_of(slot);
        }
    }

    /// Has the OS find the memory of an index page, if it holds nothing, and of those behind it. What is found is taken off `left_bytes`,
    /// beyond which the OS is not asked. `lock` is that of a slot's stripe. False: the OS had less than is wanted.
    pub(crate) fn find_pages<Guard>(
        &self,
        first: u32,
        left_bytes: &mut u64,
        lock: impl Fn(IndexSlot) -> Guard,
    ) -> bool {
        let end = u64::from(first) + 1 + u64::from(PAGES_AHEAD);
        for page in first..end.min(self.index_pages()) as u32 {
            let slot = IndexSlot(page * ENTRIES_PER_INDEX_PAGE as u32);
            if !self.is_page_empty(slot) || !self.state(slot).find() {
                continue;
            }
            // What a put waits for may be charged twice for a moment, when there is room for it once.
            let claim = if page == first { Claim::Compaction } else { Claim::Growth };
            if !self.budget.try_reserve(INDEX_PAGE_BYTES, claim) {
                self.state(slot).failed();
                return true;
            }
            find_memory_of(self.population(slot)); // it is in memory that may have yet to be found as well
            let offset = page as usize * INDEX_PAGE_BYTES as usize;
            if *left_bytes < INDEX_PAGE_BYTES
                || self.entries.populate(offset, INDEX_PAGE_BYTES as usize).is_err()
            {
                self.state(slot).failed();
                self.budget.release(INDEX_PAGE_BYTES);
                return false;
            }
            *left_bytes -= INDEX_PAGE_BYTES;
            if !self.state(slot).found() {
                self.budget.release(INDEX_PAGE_BYTES);
                continue;
            }
            self.ahead.stock.note_arrival();
            let mut found = self.ahead.lock();
            found.push_back(page);
            let oldest = if found.len() > MOST_READY { found.pop_front() } else { None };
            drop(found);
            if let Some(oldest) = oldest {
                self.release_page(oldest, &lock);
            }
        }
        true
    }

    /// Gives index pages back that were found and not used.
    pub(crate) fn release_found_pages<Guard>(&self, lock: impl Fn(IndexSlot) -> Guard) {
        let found = std::mem::take(&mut *self.ahead.lock());
        found.into_iter().for_each(|page| self.release_page(page, &lock));
    }

    fn release_page<Guard>(&self, page: u32, lock: &impl Fn(IndexSlot) -> Guard) {
        let slot = IndexSlot(page * ENTRIES_PER_INDEX_PAGE as u32);
        let _locked = lock(slot);
        if self.state(slot).release() {
            // It only fails for lack of kernel memory, and an index page that stays is all zeroes: absent, as it should be.
            let _ =
                self.entries.give_back(page as usize * INDEX_PAGE_BYTES as usize, INDEX_PAGE_BYTES as usize);
            self.budget.release(INDEX_PAGE_BYTES);
        } else if self.state(slot).see() == PageMemory::Taken {
            self.ahead.lock().push_back(page); // the put that has it may not need it
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // Their memory goes with the file.
        for page in std::mem::take(&mut *self.ahead.lock()) {
            if self.state(IndexSlot(page * ENTRIES_PER_INDEX_PAGE as u32)).release() {
                self.budget.release(INDEX_PAGE_BYTES);
            }
        }
    }
}
