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

/// What the cells of a bucket held, each at its own moment.
#[inline]
pub(super) fn look(bucket: &Bucket) -> [u32; CELLS] {
    std::array::from_fn(|i| bucket[i].load(Ordering::Relaxed))
}

/// A tag as short as this is made anew when its bucket is split, or too many pages would have to be compared.
pub(super) const SHORT_TAG_BITS: u32 = 3;

/// Numbers of the cells whose tag fits what is left of a hash.
#[inline]
pub(super) fn matches(cells: [u32; CELLS], rest: u32, number_bits: u32) -> impl Iterator<Item = u32> {
    // The bits that all tags have are compared for all cells at once, without branches: few cells are left then.
    let shared_bits = (1 << SHORT_TAG_BITS.min(31 - number_bits)) - 1;
    let same_end = |bits: u32| bits != 0 && (bits >> number_bits ^ rest) & shared_bits == 0;
    let mut left = 0;
    for (i, bits) in cells.iter().enumerate() {
        left |= u32::from(same_end(*bits)) << i;
    }
    std::iter::from_fn(move || {
        while left != 0 {
            let bits = cells[left.trailing_zeros() as usize];
            left &= left - 1;
            if has_tag(bits >> number_bits, rest) {
                return Some(number_of(bits, number_bits));
            }
        }
        None
    })
}

/// Which cells of a bucket are free, a bit for each.
#[inline]
pub(super) fn free_cells(bucket: &Bucket) -> u32 {
    let mut free = 0;
    for (i, bits) in look(bucket).iter().enumerate() {
        free |= u32::from(*bits == 0) << i;
    }
    free
}

/// Writes a cell to a free place of a bucket, or over another; gives what was there. Two at once may choose the same place, and one of
/// them is lost.
pub(super) fn put_into(bucket: &Bucket, bits: u32) -> Option<u32> {
    if let Some(free) = bucket.get(free_cells(bucket).trailing_zeros() as usize) {
        free.store(bits, Ordering::Relaxed);
        return None;
    }
    // The page number's lowest bits are as good as any to choose a victim by.
    let victim = &bucket[bits as usize % CELLS];
    let displaced = victim.load(Ordering::Relaxed);
    victim.store(bits, Ordering::Relaxed);
    Some(displaced)
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
