//! A block: what the arena keeps of one page, behind a header that says whose it is and proves that it is whole.
//!
//! ```text
//! | checksum (4) | page's slot in the index (4) | pool (2) | codec (1) | 0 (1) | payload (1 to 4096) |
//! ```
//!
//! The checksum is a CRC-32C of all that follows it. The owner in the header is what eviction and compaction find the index
//! entry by, and what keeps a damaged index from handing out another page's block.

use crate::{
    codec::Codec,
    ids::{IndexSlot, PoolId},
};

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 12;

/// Who owns a block, and how its payload is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) pool: PoolId,
    pub(crate) slot: IndexSlot,
    pub(crate) codec: Codec,
}

/// A block that is not what the index says: damaged, or another page's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedBlock;

/// Writes header and payload to `block`, which is as long as both together.
pub(crate) fn write(block: &mut [u8], header: BlockHeader, payload: &[u8]) {
    block[4..8].copy_from_slice(&header.slot.0.to_le_bytes());
    block[8..10].copy_from_slice(&header.pool.0.to_le_bytes());
    block[10] = header.codec as u8;
    block[11] = 0;
    block[HEADER_BYTES..].copy_from_slice(payload);
    let checksum = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Checks that `block` is whole and belongs to that page; gives its codec and payload.
pub(crate) fn read(block: &[u8], pool: PoolId, slot: IndexSlot) -> Result<(Codec, &[u8]), DamagedBlock> {
    let (owner, codec) = owner(block)?;
    if owner != (pool, slot) || block[..4] != crc32c::crc32c(&block[4..]).to_le_bytes() {
        return Err(DamagedBlock);
    }
    Ok((codec, &block[HEADER_BYTES..]))
}

/// Who a block says it belongs to; not yet proven.
pub(crate) fn owner(block: &[u8]) -> Result<((PoolId, IndexSlot), Codec), DamagedBlock> {
    let header: &[u8; HEADER_BYTES] = block.first_chunk().ok_or(DamagedBlock)?;
    let slot = IndexSlot(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
    let pool = PoolId(u16::from_le_bytes([header[8], header[9]]));
    let codec = Codec::from_byte(header[10]).ok_or(DamagedBlock)?;
    Ok(((pool, slot), codec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_every_flipped_bit_is_found() {
        let header = BlockHeader { pool: PoolId(3), slot: IndexSlot(77), codec: Codec::Lz4 };
        let payload: Vec<u8> = (0..200u8).collect();
        let mut block = vec![0; HEADER_BYTES + payload.len()];
        write(&mut block, header, &payload);
        assert_eq!(read(&block, header.pool, header.slot), Ok((Codec::Lz4, &payload[..])));
        for bit in 0..block.len() * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&block, header.pool, header.slot), Err(DamagedBlock), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn r6_a_whole_block_of_another_page_is_refused() {
        let header = BlockHeader { pool: PoolId(3), slot: IndexSlot(77), codec: Codec::Raw };
        let mut block = vec![0; HEADER_BYTES + 8];
        write(&mut block, header, &[1; 8]);
        assert_eq!(read(&block, PoolId(4), header.slot), Err(DamagedBlock));
        assert_eq!(read(&block, header.pool, IndexSlot(78)), Err(DamagedBlock));
    }
}
