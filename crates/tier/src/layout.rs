//! Where things are: a header, then one place after the other, each of sectors with a tag.

use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES};

use crate::cipher::TAG_BYTES;

/// What is read, written, encrypted and checked at once, in bytes: what direct I/O can do on every disk.
pub(crate) const SECTOR_BYTES: usize = 4096;

/// What a sector holds of an extent, in bytes.
pub(crate) const SECTOR_DATA_BYTES: usize = SECTOR_BYTES - TAG_BYTES;

/// Sectors of a copy. The last one is mostly zeroes: 3% more than the extent, so that each block of it can be read by itself.
pub(crate) const COPY_SECTORS: usize = TIER_EXTENT_BYTES.div_ceil(SECTOR_DATA_BYTES);

/// What a copy takes, in bytes.
pub(crate) const COPY_BYTES: usize = COPY_SECTORS * SECTOR_BYTES;

/// What stands before the first place, in bytes.
pub(crate) const HEADER_BYTES: usize = SECTOR_BYTES;

/// The smallest file or device that makes a tier, in bytes: there is room for one batch.
pub const MIN_TIER_BYTES: u64 = (HEADER_BYTES + MAX_TIER_BATCH * COPY_BYTES) as u64;

/// Where a copy begins.
pub(crate) fn copy_offset(place: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(place) * COPY_BYTES as u64
}

/// How many places there are in a file or device of `bytes`.
pub(crate) fn places_in(bytes: u64) -> u32 {
    let places = bytes.saturating_sub(HEADER_BYTES as u64) / COPY_BYTES as u64;
    u32::try_from(places).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_and_fit() {
        assert_eq!(COPY_SECTORS, 33);
        assert!(copy_offset(0) >= HEADER_BYTES as u64);
        assert_eq!(copy_offset(8) - copy_offset(7), COPY_BYTES as u64);
        assert_eq!(places_in(MIN_TIER_BYTES), MAX_TIER_BATCH as u32);
        assert_eq!(places_in(MIN_TIER_BYTES - 1), MAX_TIER_BATCH as u32 - 1);
        assert_eq!(places_in(0), 0);
        assert_eq!(places_in(u64::MAX), u32::MAX);
        for bytes in [MIN_TIER_BYTES, 1 << 30, (1 << 40) + 12345] {
            let places = places_in(bytes);
            assert!(copy_offset(places) <= bytes && copy_offset(places + 1) > bytes);
        }
    }
}
