//! Which extents have copies in the tier while they are in memory: write-through.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::Arena;
use crate::{
    entry::TierPlace,
    extent_order::ExtentOrder,
    extents::{ExtentId, ExtentUse},
    sparse::{Sparse, sparse},
    tier::TierCopy,
    tier_table::TierTable,
    walk::Walk,
};

#[derive(Debug)]
pub(crate) struct Copies {
    wanted: AtomicBool,
    /// Sealed extents without a copy.
    order: ExtentOrder,
    /// By extent: the place of its copy, plus 1; 0 = it has none. A copy is kept open in the table for as long as it stands here.
    places: Sparse<AtomicU32>,
    table: Arc<TierTable>,
}

impl Copies {
    pub(crate) fn new(extents: u32, table: Arc<TierTable>) -> Self {
        Self {
            wanted: AtomicBool::new(false),
            order: ExtentOrder::new(extents),
            places: sparse(extents as usize),
            table,
        }
    }

    /// Remembers the copy of an extent that the caller has pinned.
    pub(crate) fn enter(&self, extent: ExtentId, copy: TierCopy) {
        self.places[extent.0 as usize].store(copy.place + 1, Ordering::Release);
    }

    fn has(&self, extent: ExtentId) -> bool {
        self.places[extent.0 as usize].load(Ordering::Acquire) != 0
    }

    /// Takes the copy of an extent, for the caller to close.
    pub(crate) fn take(&self, extent: ExtentId) -> Option<TierCopy> {
        let place =
            if self.has(extent) { self.places[extent.0 as usize].swap(0, Ordering::AcqRel) } else { 0 };
        Some(self.table.copy_at(TierPlace(place.checked_sub(1)?)))
    }

    /// Forgets the copy of an extent that goes back to the OS.
    pub(super) fn forget(&self, extent: ExtentId) {
        if let Some(copy) = self.take(extent) {
            self.table.close(copy);
        }
    }
}

impl Arena {
    /// Begins or ends to have sealed extents copied. Copies that there are stay.
    pub(crate) fn set_copying(&self, wanted: bool) {
        if self.copies.wanted.swap(wanted, Ordering::Relaxed) == wanted || !wanted {
            return;
        }
        for extent in (0..self.extents.untouched_from()).map(ExtentId) {
            if self.extents.state(extent).see().sealed {
                self.wait_to_be_copied(extent);
            }
        }
    }

    /// A sealed extent begins to wait to be copied, if that is wanted.
    pub(crate) fn wait_to_be_copied(&self, extent: ExtentId) {
        let is_wanted = |extent| self.extents.usage(extent).is_some_and(ExtentUse::is_persistent);
        if self.copies.wanted.load(Ordering::Relaxed) && is_wanted(extent) {
            self.copies.order.push(extent, self.now_ms(), is_wanted);
        }
    }

    /// Pins the extent that has waited longest to be copied. `None`: there is none.
    pub(crate) fn pin_uncopied(&self) -> Option<Walk<'_>> {
        let wait = |extent| self.wait_to_be_copied(extent);
        loop {
            let (walk, _) = self.pin_first_of(&self.copies.order, 0, ExtentUse::is_persistent, wait)?;
            // It may have begun to wait twice.
            if !self.copies.has(walk.extent()) {
                return Some(walk);
            }
        }
    }
}
