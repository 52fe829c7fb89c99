//! A block: what the arena keeps of one page, behind a header that says whose it is and proves that it is whole.
//!
//! ```text
//! | checksum (4) | page's slot in the index (4) | pool (2) | length - 1 (12 bits), codec (4 bits) | payload (1 to 4096) | pad |
//! ```
//!
//! The checksum is the CRC-32C of the payload, exclusive or that of the header after it; so the payload's own can be had from the
//! header alone. The owner in the header is what eviction and compaction find the index
//! entry by, and what keeps a damaged index from handing out another page's block. Blocks follow each other in an extent, each
//! padded to a multiple of 8 bytes; codec 0 ends the list.

use crate::{
    codec::Codec,
    fault_injection::{self, Point},
    ids::{IndexSlot, PoolId},
    page::PAGE_BYTES,
};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 12;

/// Blocks start at multiples of this, in bytes.
pub(crate) const ALIGN_BYTES: u16 = 8;

/// The shortest block, in bytes: an index entry counts from here, which makes the longest one fit.
pub(crate) const MIN_BLOCK_BYTES: u16 = 24;

/// The longest block, in bytes: a page as it is.
pub(crate) const MAX_BLOCK_BYTES: u16 = block_bytes(PAGE_BYTES as u16);

/// A pool that never is: whose blocks nobody refers to.
pub(crate) const NOBODY: PoolId = PoolId(u16::MAX);

/// Who owns a block, and how its payload is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) pool: PoolId,
    pub(crate) slot: IndexSlot,
    pub(crate) codec: Codec,
    /// 1 to 4096.
    pub(crate) payload_bytes: u16,
}

/// The CRC-32C of a payload: part of a block's checksum, and what equal pages are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadCrc(pub(crate) u32);

impl PayloadCrc {
    pub(crate) fn of(payload: &[u8]) -> Self {
        Self(crc32c::crc32c(payload))
    }
}

/// A block that is not what it should be: damaged, or another page's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedBlock;

/// What a block with such a payload takes in the arena, in bytes.
pub(crate) const fn block_bytes(payload_bytes: u16) -> u16 {
    let bytes = (HEADER_BYTES as u16 + payload_bytes).next_multiple_of(ALIGN_BYTES);
    if bytes < MIN_BLOCK_BYTES { MIN_BLOCK_BYTES } else { bytes }
}

impl BlockHeader {
    /// Writes header and payload, whose checksum is known, to the start of `block`, which has room for both.
    pub(crate) fn write(self, block: &mut [u8], payload: &[u8], crc: PayloadCrc) {
        debug_assert_eq!(payload.len(), usize::from(self.payload_bytes));
        let end = HEADER_BYTES + payload.len();
        fault_injection::point(Point::Block);
        block[4..8].copy_from_slice(&self.slot.0.to_le_bytes());
        block[8..10].copy_from_slice(&self.pool.0.to_le_bytes());
        block[10..12].copy_from_slice(&((self.payload_bytes - 1) << 4 | self.codec as u16).to_le_bytes());
        let (first, second) =
            payload.split_at(if fault_injection::IS_ENABLED { payload.len() / 2 } else { 0 });
        block[HEADER_BYTES..][..first.len()].copy_from_slice(first);
        fault_injection::point(Point::Block);
        block[HEADER_BYTES + first.len()..end].copy_from_slice(second);
        fault_injection::point(Point::Block);
        let checksum = crc.0 ^ crc32c::crc32c(&block[4..HEADER_BYTES]);
        block[..4].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the header at the start of `bytes`; not yet proven. `None`: no block starts here.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let length_and_codec = u16::from_le_bytes([header[10], header[11]]);
        Some(Self {
            slot: IndexSlot(u32::from_le_bytes([header[4], header[5], header[6], header[7]])),
            pool: PoolId(u16::from_le_bytes([header[8], header[9]])),
            codec: Codec::from_number(length_and_codec & 0xf)?,
            payload_bytes: (length_and_codec >> 4) + 1,
        })
    }
}

/// Checks that a whole block starts at the start of `bytes`; gives its header and payload. `bytes` may go on after it.
pub(crate) fn read(bytes: &[u8]) -> Result<(BlockHeader, &[u8]), DamagedBlock> {
    let header = BlockHeader::parse(bytes).ok_or(DamagedBlock)?;
    let end = HEADER_BYTES + usize::from(header.payload_bytes);
    let payload = bytes.get(HEADER_BYTES..end).ok_or(DamagedBlock)?;
    if payload_crc(bytes) != Some(PayloadCrc::of(payload)) {
        return Err(DamagedBlock);
    }
    Ok((header, payload))
}

/// The payload's checksum as the header at the start of `bytes` has it. `None`: no header fits.
pub(crate) fn payload_crc(bytes: &[u8]) -> Option<PayloadCrc> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    Some(PayloadCrc(checksum ^ crc32c::crc32c(&header[4..])))
}

/// The checksum of the payload that the page had when it was fresh, as the block that starts `bytes` has it: what equal pages are
/// found by. `None`: no block starts here.
pub(crate) fn fresh_crc(bytes: &[u8]) -> Option<PayloadCrc> {
    match BlockHeader::parse(bytes)?.codec {
        Codec::Raw | Codec::Page => payload_crc(bytes),
        Codec::Zstd => {
            bytes.get(HEADER_BYTES..)?.first_chunk().map(|bytes| PayloadCrc(u32::from_le_bytes(*bytes)))
        }
    }
}

/// Makes what stands at the start of `bytes`, whatever it is, a block of that size that belongs to nobody.
pub(crate) fn write_filler(bytes: &mut [u8], filler_bytes: u16) {
    debug_assert!((MIN_BLOCK_BYTES..=MAX_BLOCK_BYTES).contains(&filler_bytes));
    let payload_bytes = (filler_bytes - HEADER_BYTES as u16).min(PAGE_BYTES as u16);
    let end = HEADER_BYTES + usize::from(payload_bytes);
    fault_injection::point(Point::Block);
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[8..10].copy_from_slice(&NOBODY.0.to_le_bytes());
    bytes[10..12].copy_from_slice(&((payload_bytes - 1) << 4 | Codec::Raw as u16).to_le_bytes());
    fault_injection::point(Point::Block);
    let crc = PayloadCrc::of(&bytes[HEADER_BYTES..end]);
    let checksum = crc.0 ^ crc32c::crc32c(&bytes[4..HEADER_BYTES]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Ends the list of blocks of an extent at the start of `bytes`, if there is room to say so.
pub(crate) fn write_end(bytes: &mut [u8]) {
    if let Some(header) = bytes.first_chunk_mut::<HEADER_BYTES>() {
        fault_injection::point(Point::Block);
        *header = [0; HEADER_BYTES];
    }
}

/// Whether the list of blocks ends at the start of `bytes`.
pub(crate) fn is_end(bytes: &[u8]) -> bool {
    bytes.first_chunk::<HEADER_BYTES>().is_none_or(|header| *header == [0; HEADER_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(payload_bytes: u16) -> (BlockHeader, Vec<u8>, Vec<u8>) {
        let header = BlockHeader { pool: PoolId(3), slot: IndexSlot(77), codec: Codec::Page, payload_bytes };
        let payload: Vec<u8> = (0..payload_bytes).map(|i| (i * 7) as u8).collect();
        let mut block = vec![0; block_bytes(payload_bytes) as usize];
        header.write(&mut block, &payload, PayloadCrc::of(&payload));
        (header, payload, block)
    }

    #[test]
    fn a_block_says_what_was_written() {
        for payload_bytes in [1, 3, 4, 5, 200, 4095, 4096] {
            let (header, payload, block) = example(payload_bytes);
            assert_eq!(read(&block), Ok((header, &payload[..])));
            assert!(!is_end(&block));
            assert_eq!(payload_crc(&block), Some(PayloadCrc::of(&payload)));
        }
    }

    #[test]
    fn r4_every_flipped_bit_is_found() {
        let (_, payload, mut block) = example(200);
        for bit in 0..(HEADER_BYTES + payload.len()) * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&block), Err(DamagedBlock), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_list_ends_where_nothing_fits_or_the_end_is_written() {
        assert!(is_end(&[]) && is_end(&[1; HEADER_BYTES - 1]));
        let mut bytes = [7; 64];
        assert!(!is_end(&bytes));
        write_end(&mut bytes);
        assert!(is_end(&bytes));
        assert_eq!(read(&bytes), Err(DamagedBlock));
    }
}
