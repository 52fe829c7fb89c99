//! What a lender is but for the bytes.

use std::collections::{BTreeMap, BTreeSet};

use tmem_cluster::Epoch;
use tmem_store::TierCopy;

/// How many places there are.
pub const PLACES: u32 = 12;

/// What it holds at a place: which writing, taken in which epoch, and until when.
#[derive(Clone, Copy)]
struct Held {
    writing: u64,
    epoch: Epoch,
    until_ms: Option<u64>,
}

/// A lender.
pub struct Lender {
    /// The stretch of its life.
    pub epoch: Epoch,
    held: BTreeMap<u32, Held>,
    /// What it lost without a word.
    pub lost: BTreeSet<(u32, u64)>,
}

impl Default for Lender {
    fn default() -> Self {
        Self { epoch: Epoch(1), held: BTreeMap::new(), lost: BTreeSet::new() }
    }
}

impl Lender {
    /// Takes a copy, in place of what is there.
    pub fn put(&mut self, copy: TierCopy) {
        let held = Held { writing: copy.writing, epoch: self.epoch, until_ms: None };
        self.held.insert(copy.place, held);
        self.lost.remove(&(copy.place, copy.writing));
    }

    /// Forgets that copy, and no other.
    pub fn flush(&mut self, copy: TierCopy) {
        if self.held.get(&copy.place).is_some_and(|held| held.writing == copy.writing) {
            self.held.remove(&copy.place);
        }
    }

    /// Whether it has the copy and may be asked for it: what it took in an earlier epoch is not to be trusted.
    pub fn has(&self, copy: TierCopy) -> bool {
        self.held
            .get(&copy.place)
            .is_some_and(|held| held.writing == copy.writing && held.epoch == self.epoch)
    }

    /// How many copies it holds of this epoch.
    pub fn held(&self) -> usize {
        self.held.values().filter(|held| held.epoch == self.epoch).count()
    }

    /// Begins to live anew, perhaps with what it had.
    pub fn begin_epoch(&mut self, keeps: bool) {
        self.epoch.0 += 1;
        self.lost.clear();
        if !keeps {
            self.held.clear();
        }
    }

    /// Loses what is at a place.
    pub fn lose(&mut self, place: u32) {
        if let Some(held) = self.held.remove(&place) {
            self.lost.insert((place, held.writing));
        }
    }

    /// Will drop what it has at these places: which copies.
    pub fn recall(&mut self, places: &[u32], until_ms: u64) -> Vec<TierCopy> {
        let mut recalled = Vec::new();
        for place in places {
            if let Some(held) = self.held.get_mut(place)
                && held.until_ms.is_none()
                && held.epoch == self.epoch
            {
                held.until_ms = Some(until_ms);
                recalled.push(TierCopy { place: *place, writing: held.writing });
            }
        }
        recalled
    }

    /// Drops what was recalled and is due: which copies.
    pub fn expire(&mut self, now_ms: u64) -> Vec<TierCopy> {
        let is_due = |held: &Held| held.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        let due: Vec<TierCopy> = (self.held.iter())
            .filter(|(_, held)| is_due(held))
            .map(|(place, held)| TierCopy { place: *place, writing: held.writing })
            .collect();
        due.iter().for_each(|copy| self.flush(*copy));
        due
    }
}
