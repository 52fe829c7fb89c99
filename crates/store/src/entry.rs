//! An index entry: all that is known of a page, in 8 bytes.
//!
//! ```text
//!  63                          27 26     20 19               11 10   8 7      0
//! | arena offset / 8             | stamp   | block bytes / 8 - 3 | kind | check  |   block
//! | contents (63 to 55) | cell   | stamp   | block bytes / 8 - 3 | kind | check  |   shared
//! | tier offset / 8              | stamp   | block bytes / 8 - 3 | kind | check  |   tiered
//! | repeated word (63 to 32) | 0 | stamp   | 0                   | kind | check  |   same-filled
//! | 0                                                          | kind | check  |   refused
//! | 0                                                                          |   absent
//! ```
//!
//! `check` is a CRC-8 of the other seven bytes, so that no single flipped bit turns one entry into another. The stamp says
//! how long a page has been there; it is put on and read by [`crate::stamp`], and 0 here. Nothing in a shared block says whose it is,
//! so the entry has nine bits of the checksum that its page is found by. A tier's offsets are those of its places, each as large as an
//! extent, one after the other. Kinds 6 and 7 are free.

use crate::{
    block::{ALIGN_BYTES, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, PayloadCrc},
    extents::EXTENT_BYTES,
    ids::{ArenaOffset, IndexSlot},
    page::PAGE_BYTES,
};

/// What an index entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Nothing is stored.
    Absent,
    /// The last put was refused: what was there before is gone, what should be there never came.
    Refused,
    /// The page repeats this word.
    SameFilled(u32),
    /// The page is in a block of the arena.
    Block(BlockRef),
    /// The page is in a block that others with the same contents refer to as well.
    Shared(SharedRef),
    /// The page is in a block of a tier.
    Tiered(TieredRef),
}

/// Where a block is and what it takes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRef {
    pub(crate) offset: ArenaOffset,
    /// Header, payload and padding: a multiple of 8, from [`MIN_BLOCK_BYTES`] to [`MAX_BLOCK_BYTES`].
    pub(crate) block_bytes: u16,
}

/// Which shared block, and what it takes in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedRef {
    pub(crate) cell: IndexSlot,
    /// As for [`BlockRef`].
    pub(crate) block_bytes: u16,
    pub(crate) contents: ContentsTag,
}

/// Where a block is in a tier, and what it takes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TieredRef {
    pub(crate) place: TierPlace,
    /// Where it starts in the copy of its extent, in bytes: a multiple of 8.
    pub(crate) start: u32,
    /// As for [`BlockRef`].
    pub(crate) block_bytes: u16,
}

/// Where a tier keeps one copy of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TierPlace(pub(crate) u32);

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Arena(BlockRef),
    Tier(TieredRef),
}

impl Place {
    pub(crate) fn block_bytes(self) -> u16 {
        match self {
            Place::Arena(block) => block.block_bytes,
            Place::Tier(tiered) => tiered.block_bytes,
        }
    }
}

/// Some bits of the checksum that a page is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentsTag(u16);

impl ContentsTag {
    pub(crate) fn of(crc: PayloadCrc) -> Self {
        Self((crc.0 >> (u32::BITS - CONTENTS_BITS)) as u16)
    }
}

/// An entry whose check does not fit: its memory was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedEntry;

/// Arena offsets fit into 37 bits of 8-byte units, and so do a tier's.
pub(crate) const MAX_ARENA_BYTES: u64 = if cfg!(feature = "few-addresses") { 1 << 36 } else { 1 << 40 };

/// The most places a tier can have.
pub(crate) const MAX_TIER_PLACES: u32 = (MAX_ARENA_BYTES / EXTENT_BYTES as u64) as u32;

const KIND_REFUSED: u64 = 1;
const KIND_SAME_FILLED: u64 = 2;
const KIND_BLOCK: u64 = 3;
const KIND_SHARED: u64 = 4;
const KIND_TIERED: u64 = 5;

const KIND_SHIFT: u32 = 8;
const LENGTH_SHIFT: u32 = 11;
const LENGTH_MASK: u64 = 0x1ff;
const WORD_SHIFT: u32 = 32;
const OFFSET_SHIFT: u32 = 27;
const CELL_BITS: u32 = 28;
const CONTENTS_SHIFT: u32 = OFFSET_SHIFT + CELL_BITS;
const CONTENTS_BITS: u32 = u64::BITS - CONTENTS_SHIFT;

/// Cells of shared blocks: as many as the arena is pages long, which then all differ and are each stored more than once.
pub(crate) const MAX_CELLS: u64 = MAX_ARENA_BYTES / PAGE_BYTES as u64;
const _: () = assert!(MAX_CELLS <= 1 << CELL_BITS);

impl Entry {
    pub(crate) fn encode(self) -> u64 {
        let body = match self {
            Entry::Absent => return 0,
            Entry::Refused => KIND_REFUSED << KIND_SHIFT,
            Entry::SameFilled(word) => KIND_SAME_FILLED << KIND_SHIFT | u64::from(word) << WORD_SHIFT,
            Entry::Block(block) => {
                debug_assert!(block.offset.0 % 8 == 0 && block.offset.0 < MAX_ARENA_BYTES);
                KIND_BLOCK << KIND_SHIFT
                    | encode_length(block.block_bytes)
                    | (block.offset.0 / 8) << OFFSET_SHIFT
            }
            Entry::Shared(shared) => {
                debug_assert!(u64::from(shared.cell.0) < MAX_CELLS);
                KIND_SHARED << KIND_SHIFT
                    | encode_length(shared.block_bytes)
                    | u64::from(shared.cell.0) << OFFSET_SHIFT
                    | u64::from(shared.contents.0) << CONTENTS_SHIFT
            }
            Entry::Tiered(tiered) => {
                debug_assert!(tiered.place.0 < MAX_TIER_PLACES && tiered.start % 8 == 0);
                let offset = u64::from(tiered.place.0) * EXTENT_BYTES as u64 + u64::from(tiered.start);
                KIND_TIERED << KIND_SHIFT | encode_length(tiered.block_bytes) | (offset / 8) << OFFSET_SHIFT
            }
        };
        body | u64::from(check(body))
    }

    pub(crate) fn decode(bits: u64) -> Result<Entry, DamagedEntry> {
        if bits == 0 {
            return Ok(Entry::Absent);
        }
        if check(bits) != bits as u8 {
            return Err(DamagedEntry);
        }
        match bits >> KIND_SHIFT & 7 {
            KIND_REFUSED => Ok(Entry::Refused),
            KIND_SAME_FILLED => Ok(Entry::SameFilled((bits >> WORD_SHIFT) as u32)),
            KIND_BLOCK => Ok(Entry::Block(BlockRef {
                offset: ArenaOffset((bits >> OFFSET_SHIFT) * 8),
                block_bytes: decode_length(bits)?,
            })),
            KIND_SHARED => Ok(Entry::Shared(SharedRef {
                cell: IndexSlot((bits >> OFFSET_SHIFT) as u32 & ((1 << CELL_BITS) - 1)),
                block_bytes: decode_length(bits)?,
                contents: ContentsTag((bits >> CONTENTS_SHIFT) as u16),
            })),
            KIND_TIERED => {
                let offset = (bits >> OFFSET_SHIFT) * 8;
                Ok(Entry::Tiered(TieredRef {
                    place: TierPlace((offset / EXTENT_BYTES as u64) as u32),
                    start: (offset % EXTENT_BYTES as u64) as u32,
                    block_bytes: decode_length(bits)?,
                }))
            }
            _ => Err(DamagedEntry),
        }
    }
}

fn encode_length(block_bytes: u16) -> u64 {
    debug_assert!(
        (MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&block_bytes) && block_bytes.is_multiple_of(ALIGN_BYTES)
    );
    u64::from((block_bytes - MIN_BLOCK_BYTES) / ALIGN_BYTES) << LENGTH_SHIFT
}

fn decode_length(bits: u64) -> Result<u16, DamagedEntry> {
    let block_bytes = (bits >> LENGTH_SHIFT & LENGTH_MASK) as u16 * ALIGN_BYTES + MIN_BLOCK_BYTES;
    if block_bytes <= MAX_BLOCK_BYTES { Ok(block_bytes) } else { Err(DamagedEntry) }
}

/// What an entry becomes whose contents turned out to be lost: it decodes to [`DamagedEntry`].
pub(crate) fn spoiled(bits: u64) -> u64 {
    bits ^ 1
}

/// CRC-8 (polynomial x^8 + x^2 + x + 1) of all bytes but the lowest.
pub(crate) const fn check(bits: u64) -> u8 {
    let bytes = bits.to_le_bytes();
    let (mut crc, mut i) = (0, 1);
    while i < bytes.len() {
        crc = TABLE[(crc ^ bytes[i]) as usize];
        i += 1;
    }
    crc
}

const TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            Just(Entry::Absent),
            Just(Entry::Refused),
            any::<u32>().prop_map(Entry::SameFilled),
            (0..MAX_ARENA_BYTES / 8, MIN_BLOCK_BYTES / 8..=MAX_BLOCK_BYTES / 8).prop_map(|(unit, length)| {
                Entry::Block(BlockRef { offset: ArenaOffset(unit * 8), block_bytes: length * 8 })
            }),
            (0..MAX_CELLS as u32, MIN_BLOCK_BYTES / 8..=MAX_BLOCK_BYTES / 8, any::<u32>()).prop_map(
                |(cell, length, crc)| {
                    let contents = ContentsTag::of(PayloadCrc(crc));
                    Entry::Shared(SharedRef { cell: IndexSlot(cell), block_bytes: length * 8, contents })
                }
            ),
            (0..MAX_TIER_PLACES, 0..EXTENT_BYTES as u32 / 8, MIN_BLOCK_BYTES / 8..=MAX_BLOCK_BYTES / 8)
                .prop_map(|(place, unit, length)| {
                    Entry::Tiered(TieredRef {
                        place: TierPlace(place),
                        start: unit * 8,
                        block_bytes: length * 8,
                    })
                }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_encoding(entry in any_entry()) {
            prop_assert_eq!(Entry::decode(entry.encode()), Ok(entry));
        }

        #[test]
        fn r4_no_flipped_bit_gives_another_entry(entry in any_entry(), bit in 0..64u32) {
            prop_assert_eq!(Entry::decode(entry.encode() ^ 1 << bit), Err(DamagedEntry));
        }
    }
}
