//! What was recalled: copies that will be dropped, and those that were, until their borrower has flushed them.

use std::collections::{BTreeMap, BTreeSet};

use tmem_store::TierCopy;

/// How many dropped copies are remembered. A borrower flushes them at once; one that does not is told "not there" for the oldest ones.
const MAX_DROPPED: usize = 1 << 18;

/// What a dropped copy takes, in bytes: an entry of the map below, with what its nodes leave free.
pub(super) const DROPPED_BYTES: usize = 32;

/// Recalled copies of one borrower.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    /// When which place is dropped, in milliseconds of whoever calls.
    due: BTreeSet<(u64, u32)>,
    /// What was dropped: places and writings.
    dropped: BTreeMap<u32, u64>,
}

impl Recalls {
    pub(super) fn add(&mut self, place: u32, until_ms: u64) {
        self.due.insert((until_ms, place));
    }

    /// The copy that is recalled is no more, or is to stay.
    pub(super) fn remove(&mut self, place: u32, until_ms: u64) {
        self.due.remove(&(until_ms, place));
    }

    /// A place whose time has come, if there is one.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<u32> {
        let first = self.due.first().copied().filter(|(until_ms, _)| *until_ms <= now_ms)?;
        self.due.remove(&first);
        Some(first.1)
    }

    /// What another process has dropped.
    pub(super) fn of_dropped(mut dropped: BTreeMap<u32, u64>) -> Self {
        while dropped.len() > MAX_DROPPED {
            dropped.pop_first();
        }
        Self { due: BTreeSet::new(), dropped }
    }

    pub(super) fn drop_copy(&mut self, copy: TierCopy) {
        self.dropped.insert(copy.place, copy.writing);
        if self.dropped.len() > MAX_DROPPED {
            self.dropped.pop_first();
        }
    }

    pub(super) fn was_dropped(&self, copy: TierCopy) -> bool {
        self.dropped.get(&copy.place) == Some(&copy.writing)
    }

    /// Something else is at the place, or its borrower knows.
    pub(super) fn forget(&mut self, place: u32) {
        self.dropped.remove(&place);
    }

    /// How many copies are recalled, and how many were dropped.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.due.len(), self.dropped.len())
    }

    pub(super) fn due(&self) -> impl Iterator<Item = (u64, u32)> {
        self.due.iter().copied()
    }

    pub(super) fn dropped(&self) -> impl Iterator<Item = TierCopy> {
        self.dropped.iter().map(|(place, writing)| TierCopy { place: *place, writing: *writing })
    }
}
