//! Forgetting pages.

use std::ops::Range;

use super::Pool;
use crate::{
    arena::Emptied,
    counters::Counters,
    directory::Directory,
    entry::Entry,
    ids::{IndexSlot, ObjectId, PageIndex},
    index::ENTRIES_PER_INDEX_PAGE,
};

impl Pool {
    /// Forgets a page.
    pub fn flush_page(&self, object: ObjectId, index: PageIndex) {
        if let Ok(Some(found)) = self.directory.find(object, index) {
            self.flush_slot(found.slot);
        }
    }

    /// Forgets the pages of a range of an object. A range in which nothing is stored costs little, however long.
    pub fn flush_range(&self, object: ObjectId, pages: Range<u64>) {
        match &self.directory {
            Directory::Flat { pages: all } if object == ObjectId(0) => {
                self.flush_slots(pages.start..pages.end.min(*all));
            }
            directory => directory.for_each(object, &pages, |slot| self.flush_slot(slot)),
        }
    }

    /// Forgets all pages of an object.
    pub fn flush_object(&self, object: ObjectId) {
        match &self.directory {
            Directory::Flat { pages } => self.flush_range(object, 0..*pages),
            directory @ Directory::Sparse(_) => directory.remove(object, |slot| self.flush_slot(slot)),
        }
    }

    /// Forgets everything and refuses puts from now on.
    pub(crate) fn destroy(&self) {
        self.close();
        // From here on it is gone, whenever the process dies; the number is free again when this pool is dropped.
        self.engine.catalog.remove_pool(self.id);
        self.flush_slots(0..self.index.index_pages() * ENTRIES_PER_INDEX_PAGE);
    }

    /// Refuses puts from now on.
    pub(crate) fn close(&self) {
        self.state.destroy();
        self.wait_for_puts();
    }

    /// Forgets the pages of a range of index slots, skipping index pages that hold nothing.
    fn flush_slots(&self, slots: Range<u64>) {
        let mut emptied = Vec::new();
        let mut start = slots.start;
        while start < slots.end {
            let index_page = start / ENTRIES_PER_INDEX_PAGE;
            let end = ((index_page + 1) * ENTRIES_PER_INDEX_PAGE).min(slots.end);
            if !self.index.is_page_empty(IndexSlot(start as u32)) {
                let mut counters = self.lock(IndexSlot(start as u32));
                for slot in start..end {
                    emptied.extend(self.flush_locked(&mut counters, IndexSlot(slot as u32)));
                }
                drop(counters);
                emptied.drain(..).for_each(|emptied| self.engine.arena.settle(Some(emptied)));
            }
            start = end;
        }
    }

    fn flush_slot(&self, slot: IndexSlot) {
        let mut counters = self.lock(slot);
        let emptied = self.flush_locked(&mut counters, slot);
        drop(counters);
        self.engine.arena.settle(emptied);
    }

    fn flush_locked(&self, counters: &mut Counters, slot: IndexSlot) -> Option<Emptied> {
        if self.index.load(slot) == Ok(Entry::Absent) {
            return None;
        }
        counters.flushes += 1;
        self.replace(counters, slot, Entry::Absent)
    }
}
