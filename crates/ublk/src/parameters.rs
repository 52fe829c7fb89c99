//! How a disk is described to the driver.

use tmem_disk::BLOCK_BYTES;

/// The driver counts in these, whatever a device's blocks are, in bytes.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// `UBLK_PARAM_TYPE_BASIC` and `UBLK_PARAM_TYPE_DISCARD`.
const TYPES: u32 = 1 | 2;

/// The most of a disk that one discard or write of zeroes may be for, in bytes: flushing 1 GiB of a swap disk takes some ten
/// milliseconds, and whoever waits for a read behind it waits as long.
const MAX_DISCARD_BYTES: u64 = 1 << 30;

/// `struct ublk_params`: its length, which parts follow, the basic part (32 bytes) and the one on discarding (20 bytes).
pub(crate) fn parameters(size_bytes: u64, max_request_bytes: u32) -> [u8; 64] {
    let shift = BLOCK_BYTES.ilog2() as u8;
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).unwrap_or(u32::MAX);
    let mut bytes = [0; 64];
    bytes[0..4].copy_from_slice(&64u32.to_ne_bytes());
    bytes[4..8].copy_from_slice(&TYPES.to_ne_bytes());
    // No attributes: there is no cache that a flush would empty. Logical and physical block, best and smallest request: a page.
    bytes[12..16].copy_from_slice(&[shift; 4]);
    bytes[16..20].copy_from_slice(&sectors(max_request_bytes.into()).to_ne_bytes());
    bytes[24..32].copy_from_slice(&(size_bytes / SECTOR_BYTES).to_ne_bytes());
    let discard_sectors = sectors(MAX_DISCARD_BYTES);
    bytes[44..48].copy_from_slice(&(BLOCK_BYTES as u32).to_ne_bytes());
    bytes[48..52].copy_from_slice(&discard_sectors.to_ne_bytes());
    bytes[52..56].copy_from_slice(&discard_sectors.to_ne_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_ne_bytes());
    bytes
}

/// How large a device is that has these, in bytes.
pub(crate) fn size_in(parameters: &[u8; 64]) -> u64 {
    let mut sectors = [0; 8];
    sectors.copy_from_slice(&parameters[24..32]);
    u64::from_ne_bytes(sectors).saturating_mul(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_described_field_by_field() {
        let bytes = parameters(15 << 40, 32 << 10);
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((u32_at(0), u32_at(4), u32_at(8)), (64, 3, 0));
        assert_eq!(&bytes[12..16], &[12, 12, 12, 12]);
        assert_eq!((u32_at(16), u32_at(20)), (64, 0));
        assert_eq!(u64::from_ne_bytes(bytes[24..32].try_into().unwrap()), (15 << 40) / 512);
        assert_eq!((u32_at(40), u32_at(44)), (0, 4096));
        assert_eq!(size_in(&bytes), 15 << 40);
        assert_eq!((u32_at(48), u32_at(52), u32_at(56)), (1 << 21, 1 << 21, 1));
    }
}
