//! The virtio-blk configuration space (virtio 1.3, section 5.2.4).

use tmem_disk::BLOCK_BYTES;

use crate::request::{MAX_RANGES, SECTOR_BYTES};

/// Bytes of the configuration space up to and including the write-zeroes fields.
const CONFIG_BYTES: usize = 60;
/// The most a guest may read at once: what the vhost-user protocol allows a configuration space to have.
const MAX_CONFIG_BYTES: u32 = 256;
/// Most sectors in one discard or write-zeroes range: 2 GiB, so that a range's length fits 32 bits even in
/// bytes, for drivers that count so.
pub(crate) const MAX_RANGE_SECTORS: u32 = (1 << 31) / SECTOR_BYTES as u32;

/// The configuration space of one disk.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
}

impl ConfigSpace {
    /// `max_segments` is the number of data segments a request may have.
    pub(crate) fn new(size_bytes: u64, queues: u16, max_segments: u32) -> ConfigSpace {
        let block_sectors = (BLOCK_BYTES / SECTOR_BYTES) as u32;
        let mut config = ConfigSpace { bytes: [0; CONFIG_BYTES] };
        config.put(0, &(size_bytes / SECTOR_BYTES).to_le_bytes()); // capacity
        config.put(12, &max_segments.to_le_bytes()); // seg_max
        config.put(20, &(BLOCK_BYTES as u32).to_le_bytes()); // blk_size
        // Topology: a physical block is one logical block (exponent and offset 0), and one block is also the
        // smallest and the best request, counted in logical blocks.
        config.put(26, &1u16.to_le_bytes()); // min_io_size
        config.put(28, &1u32.to_le_bytes()); // opt_io_size
        config.put(34, &queues.to_le_bytes()); // num_queues
        config.put(36, &MAX_RANGE_SECTORS.to_le_bytes()); // max_discard_sectors
        config.put(40, &(MAX_RANGES as u32).to_le_bytes()); // max_discard_seg
        config.put(44, &block_sectors.to_le_bytes()); // discard_sector_alignment
        config.put(48, &MAX_RANGE_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        config.put(52, &(MAX_RANGES as u32).to_le_bytes()); // max_write_zeroes_seg
        config.put(56, &[1]); // write_zeroes_may_unmap
        config
    }

    fn put(&mut self, at: usize, field: &[u8]) {
        self.bytes[at..at + field.len()].copy_from_slice(field);
    }

    /// The `size` bytes at `offset`, zeroes where there is no field. Nothing at all (which tells the peer
    /// no) when it asks beyond what a configuration space can have.
    pub(crate) fn read(&self, offset: u32, size: u32) -> Vec<u8> {
        match offset.checked_add(size) {
            Some(end) if end <= MAX_CONFIG_BYTES => {}
            _ => return Vec::new(),
        }
        let known = self.bytes.get(offset as usize..).unwrap_or(&[]);
        let mut bytes = vec![0; size as usize];
        let len = known.len().min(bytes.len());
        bytes[..len].copy_from_slice(&known[..len]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConfigSpace {
        ConfigSpace::new(1 << 30, 4, 254)
    }

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let bytes = config().read(0, 60);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(bytes[0..8].try_into().unwrap()), (1 << 30) / 512);
        assert_eq!(u32_at(12), 254);
        assert_eq!(u32_at(20), 4096);
        assert_eq!(bytes[24..26], [0, 0]);
        assert_eq!(bytes[26..32], [1, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[34..36], [4, 0]);
        assert_eq!(u32_at(36), 1 << 22);
        assert_eq!(u32_at(40), MAX_RANGES as u32);
        assert_eq!(u32_at(44), 8);
        assert_eq!(u32_at(48), 1 << 22);
        assert_eq!(u32_at(52), MAX_RANGES as u32);
        assert_eq!(bytes[56..60], [1, 0, 0, 0]);
    }

    #[test]
    fn any_offset_and_size_is_answered_or_refused() {
        let config = config();
        assert_eq!(config.read(0, 8), (1u64 << 21).to_le_bytes());
        assert_eq!(config.read(56, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(config.read(60, 4), [0; 4]);
        assert_eq!(config.read(0, 256).len(), 256);
        for (offset, size) in [(0, 257), (256, 1), (1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            assert!(config.read(offset, size).is_empty(), "{size} bytes at {offset}");
        }
    }
}
