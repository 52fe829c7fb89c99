//! From (object, page index) to a place in the pool's index.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use crate::ids::{IndexSlot, ObjectId, PageIndex};

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

/// The leaves of a sparse pool.
#[derive(Debug)]
pub(crate) struct Leaves {
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
    pub(crate) fn sparse(max_pages: u64) -> Self {
        let count = max_pages.div_ceil(LEAF_ENTRIES).min(u64::from(u32::MAX) / LEAF_ENTRIES) as u32;
        let leaves = Leaves {
            objects: HashMap::new(),
            free: Vec::new(),
            untouched_from: 0,
            count,
            refused_since_sweep: 0,
        };
        Directory::Sparse(RwLock::new(leaves))
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
            leaves.free.push(leaf);
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
        let free = &mut self.free;
        self.objects.retain(|_, object| {
            object.retain(|_, leaf| {
                let gone = is_free(slots_of(*leaf));
                if gone {
                    free.push(*leaf);
                }
                !gone
            });
            !object.is_empty()
        });
    }
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
        let directory = Directory::sparse(32); // two leaves
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
        let directory = Directory::sparse(10); // one leaf
        assert!(directory.find_or_add(ObjectId(1), PageIndex(0), in_use).is_ok());
        assert_eq!(directory.find_or_add(ObjectId(2), PageIndex(0), in_use).err(), Some(NoPlace));
        assert!(directory.find_or_add(ObjectId(2), PageIndex(0), |_| true).is_ok());
        assert!(directory.find(ObjectId(1), PageIndex(0)).unwrap().is_none());
    }

    #[test]
    fn a_range_means_the_same_pages_however_it_is_looked_up() {
        let directory = Directory::sparse(1 << 16);
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
