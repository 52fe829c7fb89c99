//! A bucket of the table and its cells. A cell holds a page's number and a tag, the bits of a hash of the page's checksum that come
//! after those that chose the bucket:
//!
//! ```text
//! | 0 … 0 | 1 | tag: at most 31 - b bits | page number: b bits |      0 = free
//! ```

use super::cells::CELLS;
use crate::sync::{AtomicU32, Ordering};

/// One cache line.
pub(super) type Bucket = [AtomicU32; CELLS];

pub(super) fn free_cells(bucket: &Bucket) -> usize {
    bucket.iter().filter(|cell| cell.load(Ordering::Relaxed) == 0).count()
}

/// Writes a cell to a free place of a bucket, or over another. Two at once may choose the same place, and one of them is lost.
pub(super) fn put_into(bucket: &Bucket, bits: u32) {
    let free = bucket.iter().find(|cell| cell.load(Ordering::Relaxed) == 0);
    // The page number's lowest bits are as good as any to choose a victim by.
    free.unwrap_or(&bucket[bits as usize % CELLS]).store(bits, Ordering::Relaxed);
}

/// Frees the cells of a page, and none that another page is put into meanwhile.
pub(super) fn take_out(bucket: &Bucket, number: u32, number_bits: u32) {
    for cell in bucket {
        let bits = cell.load(Ordering::Relaxed);
        if bits != 0 && number_of(bits, number_bits) == number {
            let _raced = cell.compare_exchange(bits, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A cell's page number.
pub(super) fn number_of(bits: u32, number_bits: u32) -> u32 {
    bits & ((1 << number_bits) - 1)
}

/// How many bits a tag has: those below its highest one.
pub(super) fn tag_bits(tag: u32) -> u32 {
    tag.checked_ilog2().unwrap_or(0) // 0: a cell that is just being widened
}

/// The tag of so many of a hash's lowest bits.
pub(super) fn tag(hash: u32, tag_bits: u32) -> u32 {
    hash & ((1 << tag_bits) - 1) | 1 << tag_bits
}

/// Whether a hash, of which so much is left, has that tag.
pub(super) fn has_tag(tag: u32, rest: u32) -> bool {
    let mask = (1 << tag_bits(tag)) - 1;
    (tag ^ rest) & mask == 0
}
