//! From (object, page index) to a place in the pool's index.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use crate::{
    ids::{IndexSlot, ObjectId, PageIndex},
    leaf_records::LeafRecords,
    memory_file::MemoryFile,
};

/// Entries that a sparse pool hands out together: neighbouring pages of one object.
const LEAF_ENTRIES: u64 = 16;

/// How a pool finds the entry of a page.
#[derive(Debug)]
pub(crate) enum Directory {
    /// One object, number 0; a page's entry stands at its index.
    Flat {
        /// Pages of the object.
        pages: u64,
    },
    /// Any objects, each with any pages; entries are handed out in leaves of 16 neighbours.
    Sparse(RwLock<Leaves>),
}

/// The leaves of a sparse pool. Everything here but the records is derived from them.
#[derive(Debug)]
pub(crate) struct Leaves {
    records: LeafRecords,
    objects: HashMap<ObjectId, HashMap<u64, u32>>,
    free: Vec<u32>,
    untouched_from: u32,
    count: u32,
    refused_since_sweep: u32,
}

/// A found place. For a sparse pool it keeps the place from being given to another page until dropped.
pub(crate) struct Found<'a> {
    pub(crate) slot: IndexSlot,
    _leaves: Option<RwLockReadGuard<'a, Leaves>>,
}

/// The key can have no place: beyond the object's end, or no leaf is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPlace;

impl Directory {
    /// How long the file of a sparse directory is, in bytes.
    pub(crate) fn file_bytes(max_pages: u64) -> usize {
        LeafRecords::file_bytes(leaf_count(max_pages))
    }

    /// A sparse directory over a file in which nothing is stored yet.
    pub(crate) fn sparse(max_pages: u64, file: MemoryFile) -> Self {
        Directory::Sparse(RwLock::new(Leaves {
            records: LeafRecords::over(file),
            objects: HashMap::new(),
            free: Vec::new(),
            untouched_from: 0,
            count: leaf_count(max_pages),
            refused_since_sweep: 0,
        }))
    }

    /// A sparse directory as its file says, and how many of its records are damaged; what stood in their leaves is lost.
    pub(crate) fn recover(max_pages: u64, file: MemoryFile) -> io::Result<(Self, u64)> {
        let directory = Self::sparse(max_pages, file);
        let mut damaged = 0;
        if let Directory::Sparse(leaves) = &directory {
            damaged = leaves.write().unwrap_or_else(PoisonError::into_inner).recover()?;
        }
        Ok((directory, damaged))
    }

    /// Which slots stand for pages.
    pub(crate) fn places(&self) -> Places {
        match self {
            Directory::Flat { pages } => Places::Below(*pages),
            Directory::Sparse(leaves) => {
                let leaves = leaves.read().unwrap_or_else(PoisonError::into_inner);
                let mut taken = vec![false; leaves.untouched_from as usize];
                leaves
                    .objects
                    .values()
                    .flat_map(HashMap::values)
                    .for_each(|leaf| taken[*leaf as usize] = true);
                Places::InLeaves(taken)
            }
        }
    }

    /// Where the page's entry stands, if the page can have one already.
    pub(crate) fn find(&self, object: ObjectId, index: PageIndex) -> Result<Option<Found<'_>>, NoPlace> {
        match self {
            Directory::Flat { pages } => {
                if object != ObjectId(0) || index.0 >= *pages {
                    return Err(NoPlace);
                }
                Ok(Some(Found { slot: IndexSlot(index.0 as u32), _leaves: None }))
            }
            Directory::Sparse(leaves) => {
                let leaves = leaves.read().unwrap_or_else(PoisonError::into_inner);
                let leaf =
                    leaves.objects.get(&object).and_then(|object| object.get(&(index.0 / LEAF_ENTRIES)));
                let slot =
                    leaf.map(|leaf| IndexSlot(leaf * LEAF_ENTRIES as u32 + (index.0 % LEAF_ENTRIES) as u32));
                Ok(slot.map(|slot| Found { slot, _leaves: Some(leaves) }))
            }
        }
    }

    /// Where the page's entry stands; makes a place for it if there is none. `is_free` says of a leaf's slots whether nothing is
    /// stored in them; it is asked when all leaves are taken.
    pub(crate) fn find_or_add(
        &self,
        object: ObjectId,
        index: PageIndex,
        is_free: impl Fn(Range<u32>) -> bool,
    ) -> Result<Found<'_>, NoPlace> {
        loop {
            if let Some(found) = self.find(object, index)? {
                return Ok(found);
            }
            if let Directory::Sparse(leaves) = self {
                let mut leaves = leaves.write().unwrap_or_else(PoisonError::into_inner);
                leaves.add(object, index.0 / LEAF_ENTRIES, &is_free)?;
            }
        }
    }

    /// Calls `each` with the place of every page of an object in `pages`.
    pub(crate) fn for_each(&self, object: ObjectId, pages: &Range<u64>, mut each: impl FnMut(IndexSlot)) {
        match self {
            Directory::Flat { pages: all } if object == ObjectId(0) => {
                (pages.start..pages.end.min(*all)).for_each(|page| each(IndexSlot(page as u32)));
            }
            Directory::Flat { .. } => {}
            Directory::Sparse(leaves) => {
                let leaves = leaves.read().unwrap_or_else(PoisonError::into_inner);
                let Some(object) = leaves.objects.get(&object) else { return };
                let numbers = pages.start / LEAF_ENTRIES..pages.end.div_ceil(LEAF_ENTRIES);
                let mut each_of_leaf = |number: u64, leaf: u32| {
                    let in_range =
                        slots_of(leaf).zip(number * LEAF_ENTRIES..).filter(|(_, page)| pages.contains(page));
                    in_range.for_each(|(slot, _)| each(IndexSlot(slot)));
                };
                // Whichever is shorter: the range, or what there is of the object.
                if numbers.end.saturating_sub(numbers.start) < object.len() as u64 {
                    numbers
                        .filter_map(|number| Some((number, *object.get(&number)?)))
                        .for_each(|(n, l)| each_of_leaf(n, l));
                } else {
                    object.iter().for_each(|(number, leaf)| each_of_leaf(*number, *leaf));
                }
            }
        }
    }

    /// Forgets an object's places after calling `each` with every one of them.
    pub(crate) fn remove(&self, object: ObjectId, mut each: impl FnMut(IndexSlot)) {
        let Directory::Sparse(leaves) = self else { return };
        let mut leaves = leaves.write().unwrap_or_else(PoisonError::into_inner);
        let Some(removed) = leaves.objects.remove(&object) else { return };
        for leaf in removed.into_values() {
            slots_of(leaf).for_each(|slot| each(IndexSlot(slot)));
            leaves.records.free(leaf);
            leaves.free.push(leaf);
        }
        if leaves.objects.is_empty() {
            leaves.records.free_all();
            leaves.free = Vec::new();
            leaves.untouched_from = 0;
        }
    }
}

/// Which slots of an index stand for pages.
#[derive(Debug)]
pub(crate) enum Places {
    Below(u64),
    InLeaves(Vec<bool>),
}

impl Places {
    pub(crate) fn contains(&self, slot: IndexSlot) -> bool {
        match self {
            Places::Below(pages) => u64::from(slot.0) < *pages,
            Places::InLeaves(taken) => {
                taken.get(slot.0 as usize / LEAF_ENTRIES as usize).is_some_and(|taken| *taken)
            }
        }
    }
}

impl Leaves {
    fn add(
        &mut self,
        object: ObjectId,
        number: u64,
        is_free: &impl Fn(Range<u32>) -> bool,
    ) -> Result<(), NoPlace> {
        if self.objects.get(&object).is_some_and(|object| object.contains_key(&number)) {
            return Ok(()); // another put was quicker
        }
        let leaf = self.take(is_free).ok_or(NoPlace)?;
        self.records.take(leaf, object, number);
        self.objects.entry(object).or_default().insert(number, leaf);
        Ok(())
    }

    fn take(&mut self, is_free: &impl Fn(Range<u32>) -> bool) -> Option<u32> {
        if self.free.is_empty() && self.untouched_from < self.count {
            self.untouched_from += 1;
            return Some(self.untouched_from - 1);
        }
        // Looking through all leaves takes long, so it is done once per so many refusals.
        if self.free.is_empty() {
            if self.refused_since_sweep > 0 {
                self.refused_since_sweep -= 1;
                return None;
            }
            self.sweep(is_free);
            if self.free.is_empty() {
                self.refused_since_sweep = self.count / 16;
            }
        }
        self.free.pop()
    }

    /// Takes back the leaves in which nothing is stored any more: their pages were flushed one by one, or evicted.
    fn sweep(&mut self, is_free: &impl Fn(Range<u32>) -> bool) {
        let (free, records) = (&mut self.free, &self.records);
        self.objects.retain(|_, object| {
            object.retain(|_, leaf| {
                let gone = is_free(slots_of(*leaf));
                if gone {
                    records.free(*leaf);
                    free.push(*leaf);
                }
                !gone
            });
            !object.is_empty()
        });
    }

    /// Derives everything from the records; gives how many of them are damaged.
    fn recover(&mut self) -> io::Result<u64> {
        let mut taken = Vec::new();
        let mut twice = Vec::new();
        let objects = &mut self.objects;
        let damaged = self.records.for_each(self.count, |leaf, object, number| {
            // Two leaves for the same pages are damage: only one of them can be meant.
            if objects.entry(object).or_default().insert(number, leaf).is_some() {
                twice.push((object, number));
            }
            taken.push(leaf);
        })?;
        for (object, number) in &twice {
            self.objects.entry(*object).or_default().remove(number);
        }
        taken.sort_unstable();
        self.untouched_from = taken.last().map_or(0, |last| last + 1);
        let mut is_taken = vec![false; self.untouched_from as usize];
        self.objects.values().flat_map(HashMap::values).for_each(|leaf| is_taken[*leaf as usize] = true);
        self.free = (0..self.untouched_from).filter(|leaf| !is_taken[*leaf as usize]).collect();
        let lost = taken.len() - is_taken.iter().filter(|taken| **taken).count();
        for leaf in taken.iter().filter(|leaf| !is_taken[**leaf as usize]) {
            self.records.free(*leaf);
        }
        Ok(damaged + lost as u64)
    }
}

fn leaf_count(max_pages: u64) -> u32 {
    max_pages.div_ceil(LEAF_ENTRIES).min(u64::from(u32::MAX) / LEAF_ENTRIES) as u32
}

fn slots_of(leaf: u32) -> Range<u32> {
    let first = leaf * LEAF_ENTRIES as u32;
    first..first + LEAF_ENTRIES as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(_: Range<u32>) -> bool {
        false
    }

    fn file(max_pages: u64) -> MemoryFile {
        MemoryFile::create("test", Directory::file_bytes(max_pages)).unwrap()
    }

    fn sparse(max_pages: u64) -> Directory {
        Directory::sparse(max_pages, file(max_pages))
    }

    #[test]
    fn a_sparse_directory_is_found_again_from_its_file() {
        let first = file(16 * 400);
        let second = MemoryFile::open(
            std::os::fd::AsFd::as_fd(&first).try_clone_to_owned().unwrap(),
            Directory::file_bytes(16 * 400),
        );
        let directory = Directory::sparse(16 * 400, first);
        let keys: Vec<_> = (0..360).map(|i| (ObjectId(i % 7), PageIndex(i << (i % 50)))).collect();
        let slots: Vec<_> =
            keys.iter().map(|key| directory.find_or_add(key.0, key.1, in_use).unwrap().slot).collect();
        directory.remove(ObjectId(3), |_| {});
        let (again, damaged) = Directory::recover(16 * 400, second.unwrap()).unwrap();
        assert_eq!(damaged, 0);
        let places = again.places();
        for (key, slot) in keys.iter().zip(slots) {
            let found = again.find(key.0, key.1).unwrap().map(|found| found.slot);
            assert_eq!(found, (key.0 != ObjectId(3)).then_some(slot));
            assert_eq!(places.contains(slot), key.0 != ObjectId(3));
        }
        assert!(!places.contains(IndexSlot(16 * 399)));
        assert!((0..40).all(|i| again.find_or_add(ObjectId(9), PageIndex(i * 16), in_use).is_ok()));
    }

    #[test]
    fn a_flat_pool_has_one_object_of_its_size() {
        let directory = Directory::Flat { pages: 10 };
        assert_eq!(
            directory.find_or_add(ObjectId(0), PageIndex(9), in_use).map(|found| found.slot),
            Ok(IndexSlot(9))
        );
        assert_eq!(directory.find_or_add(ObjectId(0), PageIndex(10), in_use).err(), Some(NoPlace));
        assert_eq!(directory.find_or_add(ObjectId(1), PageIndex(0), in_use).err(), Some(NoPlace));
    }

    #[test]
    fn places_of_a_removed_object_are_used_again() {
        let directory = sparse(32); // two leaves
        let first = directory.find_or_add(ObjectId(1), PageIndex(1000), in_use).map(|found| found.slot);
        let second = directory.find_or_add(ObjectId(2), PageIndex(1000), in_use).map(|found| found.slot);
        assert_ne!(first, second);
        assert_eq!(directory.find_or_add(ObjectId(3), PageIndex(0), in_use).err(), Some(NoPlace));
        let mut forgotten = Vec::new();
        directory.remove(ObjectId(1), |slot| forgotten.push(slot));
        assert!(forgotten.contains(&first.unwrap()) && forgotten.len() == 16);
        assert!(directory.find(ObjectId(1), PageIndex(1000)).unwrap().is_none());
        assert!(directory.find_or_add(ObjectId(3), PageIndex(0), in_use).is_ok());
    }

    #[test]
    fn leaves_in_which_nothing_is_stored_are_used_again() {
        let directory = sparse(10); // one leaf
        assert!(directory.find_or_add(ObjectId(1), PageIndex(0), in_use).is_ok());
        assert_eq!(directory.find_or_add(ObjectId(2), PageIndex(0), in_use).err(), Some(NoPlace));
        assert!(directory.find_or_add(ObjectId(2), PageIndex(0), |_| true).is_ok());
        assert!(directory.find(ObjectId(1), PageIndex(0)).unwrap().is_none());
    }

    #[test]
    fn a_range_means_the_same_pages_however_it_is_looked_up() {
        let directory = sparse(1 << 16);
        for index in (0..3000).step_by(7) {
            assert!(directory.find_or_add(ObjectId(1), PageIndex(index), in_use).is_ok());
        }
        for range in [0..1, 5..40, 100..2000, 0..u64::MAX, 2990..5000, 40..40] {
            let mut found = Vec::new();
            directory.for_each(ObjectId(1), &range, |slot| found.push(slot));
            found.sort();
            let pages = (range.start..range.end.min(3008))
                .filter_map(|page| directory.find(ObjectId(1), PageIndex(page)).unwrap());
            let mut expected: Vec<_> = pages.map(|found| found.slot).collect();
            expected.sort();
            assert_eq!(found, expected, "{range:?}");
        }
    }
}
