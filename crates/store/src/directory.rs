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
        let count = (max_pages / LEAF_ENTRIES).min(u64::from(u32::MAX) / LEAF_ENTRIES) as u32;
        Directory::Sparse(RwLock::new(Leaves {
            objects: HashMap::new(),
            free: Vec::new(),
            untouched_from: 0,
            count,
        }))
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

    /// Where the page's entry stands; makes a place for it if there is none.
    pub(crate) fn find_or_add(&self, object: ObjectId, index: PageIndex) -> Result<Found<'_>, NoPlace> {
        loop {
            if let Some(found) = self.find(object, index)? {
                return Ok(found);
            }
            if let Directory::Sparse(leaves) = self {
                leaves.write().unwrap_or_else(PoisonError::into_inner).add(object, index.0 / LEAF_ENTRIES)?;
            }
        }
    }

    /// Calls `each` with the place of every page of an object in `pages`; nothing finds or adds a place of a sparse pool meanwhile.
    pub(crate) fn for_each(&self, object: ObjectId, pages: &Range<u64>, mut each: impl FnMut(IndexSlot)) {
        match self {
            Directory::Flat { pages: all } if object == ObjectId(0) => {
                (pages.start..pages.end.min(*all)).for_each(|page| each(IndexSlot(page as u32)));
            }
            Directory::Flat { .. } => {}
            Directory::Sparse(leaves) => {
                let leaves = leaves.write().unwrap_or_else(PoisonError::into_inner);
                let Some(object) = leaves.objects.get(&object) else { return };
                for (number, leaf) in object {
                    for i in 0..LEAF_ENTRIES {
                        if pages.contains(&(number * LEAF_ENTRIES + i)) {
                            each(IndexSlot(leaf * LEAF_ENTRIES as u32 + i as u32));
                        }
                    }
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
            for i in 0..LEAF_ENTRIES as u32 {
                each(IndexSlot(leaf * LEAF_ENTRIES as u32 + i));
            }
            leaves.free.push(leaf);
        }
    }
}

impl Leaves {
    fn add(&mut self, object: ObjectId, number: u64) -> Result<(), NoPlace> {
        let object = self.objects.entry(object).or_default();
        if object.contains_key(&number) {
            return Ok(()); // another put was quicker
        }
        let leaf = match self.free.pop() {
            Some(leaf) => leaf,
            None if self.untouched_from < self.count => {
                self.untouched_from += 1;
                self.untouched_from - 1
            }
            None => return Err(NoPlace),
        };
        object.insert(number, leaf);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_pool_has_one_object_of_its_size() {
        let directory = Directory::Flat { pages: 10 };
        assert_eq!(
            directory.find_or_add(ObjectId(0), PageIndex(9)).map(|found| found.slot),
            Ok(IndexSlot(9))
        );
        assert_eq!(directory.find_or_add(ObjectId(0), PageIndex(10)).err(), Some(NoPlace));
        assert_eq!(directory.find_or_add(ObjectId(1), PageIndex(0)).err(), Some(NoPlace));
    }

    #[test]
    fn places_of_a_removed_object_are_used_again() {
        let directory = Directory::sparse(32); // two leaves
        let first = directory.find_or_add(ObjectId(1), PageIndex(1000)).map(|found| found.slot);
        let second = directory.find_or_add(ObjectId(2), PageIndex(1000)).map(|found| found.slot);
        assert_ne!(first, second);
        assert_eq!(directory.find_or_add(ObjectId(3), PageIndex(0)).err(), Some(NoPlace));
        let mut forgotten = Vec::new();
        directory.remove(ObjectId(1), |slot| forgotten.push(slot));
        assert!(forgotten.contains(&first.unwrap()) && forgotten.len() == 16);
        assert!(directory.find(ObjectId(1), PageIndex(1000)).unwrap().is_none());
        assert!(directory.find_or_add(ObjectId(3), PageIndex(0)).is_ok());
    }
}
