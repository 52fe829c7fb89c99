//! Which slots of which extents a size class uses. Plain bookkeeping: derived state, guarded by its class's lock.

use crate::classes::SizeClass;

/// An extent of the arena, counted from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ExtentId(pub(crate) u32);

/// Where an extent stands in its class's list. It changes when another extent leaves the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u32);

/// The extents of one class and their slots.
///
/// Invariant: an extent is in `with_room` exactly when it has a free slot and is not retired; `with_room_at` says where.
#[derive(Debug)]
pub(crate) struct ClassSlots {
    slots_per_extent: u32,
    extents: Vec<ExtentSlots>,
    with_room: Vec<Place>,
}

#[derive(Debug)]
struct ExtentSlots {
    extent: ExtentId,
    used: u32,
    /// One bit a slot, set when it is used.
    bitmap: Box<[u64]>,
    with_room_at: Option<u32>,
    /// No new blocks: it is being emptied.
    retired: bool,
}

/// What freeing a slot did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// The extent has other blocks.
    StillUsed,
    /// It was the extent's last block. The extent has left the class; `moved` now stands where it stood.
    Empty { moved: Option<(ExtentId, Place)> },
    /// The slot was not used: the caller's offset is wrong.
    WasFree,
}

impl ClassSlots {
    pub(crate) fn new(class: SizeClass) -> Self {
        Self { slots_per_extent: class.slots() as u32, extents: Vec::new(), with_room: Vec::new() }
    }

    pub(crate) fn extents(&self) -> usize {
        self.extents.len()
    }

    /// Takes in an empty extent.
    pub(crate) fn add(&mut self, extent: ExtentId) -> Place {
        let place = Place(self.extents.len() as u32);
        let words = self.slots_per_extent.div_ceil(64) as usize;
        let with_room_at = Some(self.with_room.len() as u32);
        self.with_room.push(place);
        self.extents.push(ExtentSlots {
            extent,
            used: 0,
            bitmap: vec![0; words].into(),
            with_room_at,
            retired: false,
        });
        place
    }

    /// Takes a free slot of an extent that has one.
    pub(crate) fn take(&mut self) -> Option<(ExtentId, u32)> {
        let place = *self.with_room.last()?;
        let extent = &mut self.extents[place.0 as usize];
        let (word, bits) = extent.bitmap.iter_mut().enumerate().find(|(_, bits)| **bits != u64::MAX)?;
        let bit = bits.trailing_ones();
        *bits |= 1 << bit;
        extent.used += 1;
        if extent.used == self.slots_per_extent {
            extent.with_room_at = None;
            self.with_room.pop();
        }
        Some((self.extents[place.0 as usize].extent, word as u32 * 64 + bit))
    }

    /// Gives a slot back.
    pub(crate) fn free(&mut self, place: Place, slot: u32) -> Freed {
        let extent = &mut self.extents[place.0 as usize];
        let (word, mask) = (slot as usize / 64, 1 << (slot % 64));
        if extent.bitmap[word] & mask == 0 {
            return Freed::WasFree;
        }
        extent.bitmap[word] &= !mask;
        extent.used -= 1;
        if extent.used == 0 {
            return Freed::Empty { moved: self.remove(place) };
        }
        if extent.with_room_at.is_none() && !extent.retired {
            extent.with_room_at = Some(self.with_room.len() as u32);
            self.with_room.push(place);
        }
        Freed::StillUsed
    }

    /// Puts no new blocks into an extent, and lists the slots it uses.
    pub(crate) fn retire(&mut self, place: Place) -> Vec<u32> {
        self.leave_with_room(place);
        let extent = &mut self.extents[place.0 as usize];
        extent.retired = true;
        (0..self.slots_per_extent)
            .filter(|slot| extent.bitmap[*slot as usize / 64] >> (slot % 64) & 1 == 1)
            .collect()
    }

    fn leave_with_room(&mut self, place: Place) {
        let Some(at) = self.extents[place.0 as usize].with_room_at.take() else { return };
        self.with_room.swap_remove(at as usize);
        if let Some(moved) = self.with_room.get(at as usize) {
            self.extents[moved.0 as usize].with_room_at = Some(at);
        }
    }

    fn remove(&mut self, place: Place) -> Option<(ExtentId, Place)> {
        self.leave_with_room(place);
        self.extents.swap_remove(place.0 as usize);
        let moved = self.extents.get(place.0 as usize)?;
        if let Some(at) = moved.with_room_at {
            self.with_room[at as usize] = place;
        }
        Some((moved.extent, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn slots_are_given_once_and_extents_leave_when_empty(steps in proptest::collection::vec(any::<(u8, u16)>(), 1..600)) {
            let class = SizeClass::LARGEST;
            let mut slots = ClassSlots::new(class);
            let mut places: BTreeMap<ExtentId, Place> = BTreeMap::new();
            let mut used: BTreeSet<(ExtentId, u32)> = BTreeSet::new();
            let mut next = 0;
            for (step, pick) in steps {
                if step % 8 < 5 {
                    let taken = slots.take().unwrap_or_else(|| {
                        places.insert(ExtentId(next), slots.add(ExtentId(next)));
                        next += 1;
                        slots.take().unwrap()
                    });
                    prop_assert!(taken.1 < class.slots() as u32);
                    prop_assert!(used.insert(taken), "{taken:?} given twice");
                } else if let Some(&(extent, slot)) = used.iter().nth(usize::from(pick) % used.len().max(1)) {
                    used.remove(&(extent, slot));
                    let last = !used.iter().any(|(other, _)| *other == extent);
                    match slots.free(places[&extent], slot) {
                        Freed::StillUsed => prop_assert!(!last),
                        Freed::Empty { moved } => {
                            prop_assert!(last);
                            places.remove(&extent);
                            if let Some((moved, place)) = moved {
                                places.insert(moved, place);
                            }
                        }
                        Freed::WasFree => prop_assert!(false, "a used slot was called free"),
                    }
                }
            }
            prop_assert_eq!(slots.extents(), places.len());
            for (&extent, &place) in &places {
                let listed: BTreeSet<_> = slots.retire(place).into_iter().collect();
                let expected: BTreeSet<_> = used.iter().filter(|(e, _)| *e == extent).map(|(_, s)| *s).collect();
                prop_assert_eq!(listed, expected);
            }
            prop_assert_eq!(slots.take(), None, "a retired extent took a block");
        }
    }

    #[test]
    fn freeing_a_free_slot_changes_nothing() {
        let mut slots = ClassSlots::new(SizeClass::LARGEST);
        let place = slots.add(ExtentId(9));
        let (_, slot) = slots.take().unwrap();
        assert_eq!(slots.free(place, slot + 1), Freed::WasFree);
        assert_eq!(slots.free(place, slot), Freed::Empty { moved: None });
    }
}
