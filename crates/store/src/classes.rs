//! Size classes: an extent of the arena is cut into slots of one size.
//!
//! Slots are multiples of 8 bytes and as large as an extent divided by their number allows, so an extent's tail is never more than
//! a few hundred bytes; neighbouring classes are at least 1/40 apart, so that a block wastes about 1% of itself on average and
//! the number of half-filled extents stays small.

use crate::{block::HEADER_BYTES, page::PAGE_BYTES};

/// The unit in which the arena takes memory from the OS and gives it back, in bytes.
pub(crate) const EXTENT_BYTES: usize = 128 << 10;

/// A block that holds a page as it is.
const LARGEST_BLOCK_BYTES: usize = HEADER_BYTES + PAGE_BYTES;
const SMALLEST_SLOT_BYTES: usize = 24;
const STEP_DIVISOR: usize = 40;

/// A size class, counted from the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SizeClass(pub(crate) u8);

/// How many classes there are.
pub(crate) const CLASSES: usize = count_classes();

/// Slot sizes from the smallest to the largest.
const SLOT_BYTES: [u16; CLASSES] = slot_sizes();

/// For a block of `n` bytes, rounded up to units of 8: its class.
const CLASS_OF_UNITS: [u8; LARGEST_BLOCK_BYTES.div_ceil(8) + 1] = classes_by_units();

impl SizeClass {
    /// The class of blocks that hold a page as it is.
    #[cfg(test)]
    pub(crate) const LARGEST: SizeClass = SizeClass(CLASSES as u8 - 1);

    /// The smallest class whose slots take a block of `block_bytes`.
    pub(crate) fn for_block(block_bytes: usize) -> SizeClass {
        debug_assert!(block_bytes <= LARGEST_BLOCK_BYTES);
        SizeClass(CLASS_OF_UNITS[block_bytes.div_ceil(8)])
    }

    pub(crate) fn from_index(index: usize) -> Option<SizeClass> {
        (index < CLASSES).then_some(SizeClass(index as u8))
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn slot_bytes(self) -> usize {
        usize::from(SLOT_BYTES[self.index()])
    }

    /// Slots in one extent.
    pub(crate) fn slots(self) -> usize {
        EXTENT_BYTES / self.slot_bytes()
    }

    /// This class and all with larger slots.
    pub(crate) fn and_larger(self) -> impl Iterator<Item = SizeClass> {
        (self.0..CLASSES as u8).map(SizeClass)
    }

    /// The largest payload that is worth compressing: one byte more would take the slot of a raw page.
    pub(crate) fn worthwhile_payload_bytes() -> usize {
        usize::from(SLOT_BYTES[CLASSES - 2]) - HEADER_BYTES
    }
}

/// The next smaller slot size after `slot`, by number of slots in an extent.
const fn next_smaller(slot: usize) -> usize {
    let mut slots = EXTENT_BYTES / slot;
    loop {
        slots += 1;
        let candidate = (EXTENT_BYTES / slots) & !7;
        if candidate + slot / STEP_DIVISOR <= slot && candidate < slot {
            return candidate;
        }
    }
}

const fn largest_slot() -> usize {
    (EXTENT_BYTES / (EXTENT_BYTES / LARGEST_BLOCK_BYTES)) & !7
}

const fn count_classes() -> usize {
    let mut slot = largest_slot();
    let mut classes = 0;
    while slot >= SMALLEST_SLOT_BYTES {
        classes += 1;
        slot = next_smaller(slot);
    }
    classes
}

const fn slot_sizes() -> [u16; CLASSES] {
    let mut sizes = [0; CLASSES];
    let mut slot = largest_slot();
    let mut class = CLASSES;
    while class > 0 {
        class -= 1;
        sizes[class] = slot as u16;
        slot = next_smaller(slot);
    }
    sizes
}

const fn classes_by_units() -> [u8; LARGEST_BLOCK_BYTES.div_ceil(8) + 1] {
    let mut classes = [0; LARGEST_BLOCK_BYTES.div_ceil(8) + 1];
    let mut class = 0;
    let mut units = 0;
    while units < classes.len() {
        while (SLOT_BYTES[class] as usize) < units * 8 {
            class += 1;
        }
        classes[units] = class as u8;
        units += 1;
    }
    classes
}

const _: () = assert!(CLASSES < 128, "a class fits into 7 bits of the extent table");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_fits_its_class_and_no_smaller_one() {
        for block_bytes in 1..=LARGEST_BLOCK_BYTES {
            let class = SizeClass::for_block(block_bytes);
            assert!(class.slot_bytes() >= block_bytes);
            assert_eq!(class.slot_bytes() % 8, 0);
            if class.0 > 0 {
                assert!(SizeClass(class.0 - 1).slot_bytes() < block_bytes);
            }
        }
    }

    #[test]
    fn little_is_wasted() {
        let (mut asked, mut taken) = (0.0, 0.0);
        for block_bytes in 512..=LARGEST_BLOCK_BYTES {
            let class = SizeClass::for_block(block_bytes);
            asked += block_bytes as f64;
            // A slot's share of its extent: slack at the end of the extent is waste too.
            taken += EXTENT_BYTES as f64 / class.slots() as f64;
        }
        let waste = taken / asked - 1.0;
        assert!(waste < 0.02, "waste is {:.2}% over {CLASSES} classes", waste * 100.0);
    }
}
