//! What is stored, told without fetching it.

use std::ops::Range;

use super::Pool;
use crate::{
    directory::Directory,
    entry::{DamagedEntry, Entry},
    ids::{IndexSlot, ObjectId, PageIndex},
    index::ENTRIES_PER_INDEX_PAGE,
};

/// What a pool keeps of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing: it was never put, or flushed.
    Nothing,
    /// A page of zeroes.
    Zeroes,
    /// Some other page, or one that was lost: a get says.
    Contents,
}

impl From<Result<Entry, DamagedEntry>> for Stored {
    fn from(entry: Result<Entry, DamagedEntry>) -> Self {
        match entry {
            Ok(Entry::Absent) => Self::Nothing,
            Ok(Entry::SameFilled(0)) => Self::Zeroes,
            _ => Self::Contents,
        }
    }
}

impl Pool {
    /// What is kept of the first page of a range, and of how many pages from there the same. At least one, unless the range is empty.
    /// Pages in which nothing is stored cost little, however many. No get is counted, and no page gets younger.
    pub fn look(&self, object: ObjectId, pages: Range<u64>) -> (Stored, u64) {
        let mut run = (Stored::Nothing, 0);
        let mut at = pages.start;
        while at < pages.end {
            let (stored, alike) = self.look_locked(object, at..pages.end);
            if run.1 > 0 && stored != run.0 {
                break;
            }
            run = (stored, run.1 + alike);
            at += alike;
        }
        run
    }

    /// The same within what one lock guards.
    fn look_locked(&self, object: ObjectId, pages: Range<u64>) -> (Stored, u64) {
        let found = match self.directory.find(object, PageIndex(pages.start)) {
            Ok(Some(found)) => found,
            Ok(None) => return (Stored::Nothing, 1),
            // Beyond the object's end, and so is the rest.
            Err(_) => return (Stored::Nothing, pages.end - pages.start),
        };
        let first = found.slot;
        let Directory::Flat { pages: all } = self.directory else {
            let _counters = self.lock(first);
            return (Stored::from(self.index.load(first)), 1);
        };
        let end =
            u64::from(first.0) / ENTRIES_PER_INDEX_PAGE * ENTRIES_PER_INDEX_PAGE + ENTRIES_PER_INDEX_PAGE;
        let slots = u64::from(first.0)..end.min(pages.end).min(all);
        if self.index.is_page_empty(first) {
            return (Stored::Nothing, slots.end - slots.start);
        }
        // Under the lock the index page stays: even reading one that is given back would make the OS find memory for it.
        let _counters = self.lock(first);
        let stored = Stored::from(self.index.load(first));
        let is_alike = |slot: &u64| Stored::from(self.index.load(IndexSlot(*slot as u32))) == stored;
        (stored, slots.take_while(is_alike).count() as u64)
    }
}
