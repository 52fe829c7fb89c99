//! A stamp: the epoch in which a page was put or last fetched, in seven bits of its index entry.
//!
//! ```text
//!  63         27 26     20 19          0
//! |     …       | stamp   |     …       |
//! ```
//!
//! 1 to 127 is an epoch's number modulo 127, plus 1; 0 is "older than the range", which is what a freshly written entry says until
//! it is stamped. What the numbers mean is in [`crate::ages`]. A cell of shared blocks, which has no age of its own, has a mark of its
//! dedup domain there.

use crate::entry;

/// Epochs that stamps can tell apart.
pub(crate) const EPOCHS: u64 = 127;

const SHIFT: u32 = 20;
const MASK: u64 = 0x7f << SHIFT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u8);

impl Stamp {
    /// Older than the range, or not known.
    pub(crate) const OLD: Stamp = Stamp(0);

    pub(crate) fn of_epoch(epoch: u64) -> Self {
        Self((epoch % EPOCHS) as u8 + 1)
    }

    /// A mark in the place of an age.
    pub(crate) const fn mark(mark: u8) -> Self {
        Self(mark & 0x7f)
    }

    /// The epoch's number modulo [`EPOCHS`]. `None`: older than the range.
    pub(crate) fn epoch(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }

    /// What an entry's bits carry.
    pub(crate) fn of(bits: u64) -> Self {
        Self(((bits & MASK) >> SHIFT) as u8)
    }

    /// An entry's bits with this stamp. Damaged bits stay damaged.
    pub(crate) fn on(self, bits: u64) -> u64 {
        // A CRC without start value is linear: what differs in the stamp differs in the check, whatever else the entry says.
        let difference = Self::of(bits).0 ^ self.0;
        bits ^ u64::from(difference) << SHIFT ^ u64::from(CHECKS[usize::from(difference)])
    }
}

/// The check of each stamp alone.
const CHECKS: [u8; 128] = {
    let mut checks = [0; 128];
    let mut stamp = 0;
    while stamp < 128 {
        checks[stamp] = entry::check((stamp as u64) << SHIFT);
        stamp += 1;
    }
    checks
};

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        entry::{BlockRef, Entry},
        ids::ArenaOffset,
    };

    proptest! {
        #[test]
        fn r4_a_stamped_entry_says_the_same_and_no_bit_of_it_can_flip(
            word: u32, unit in 0..1u64 << 37, length in 3..=514u16, epochs in proptest::collection::vec(0..1000u64, 1..4),
        ) {
            let block = Entry::Block(BlockRef { offset: ArenaOffset(unit * 8), block_bytes: length * 8 });
            for entry in [Entry::SameFilled(word), block] {
                let mut bits = entry.encode();
                prop_assert_eq!(Stamp::of(bits), Stamp::OLD);
                for &epoch in &epochs {
                    bits = Stamp::of_epoch(epoch).on(bits);
                    prop_assert_eq!(Entry::decode(bits), Ok(entry));
                    prop_assert_eq!(Stamp::of(bits).epoch(), Some((epoch % EPOCHS) as usize));
                }
                for bit in 0..64 {
                    prop_assert!(Entry::decode(bits ^ 1 << bit).is_err());
                    prop_assert!(Entry::decode(Stamp::of_epoch(5).on(bits ^ 1 << bit)).is_err());
                }
                prop_assert_eq!(Stamp::OLD.on(bits), entry.encode());
            }
        }
    }
}
