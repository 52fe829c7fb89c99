//! The leaves of a sparse pool's directory, in a memory file: which neighbouring pages of which object each leaf is for.
//!
//! A leaf's record is `| object | number among the object's leaves | checksum |`; the last word is 0 as long as the leaf is free. It
//! is stored last when a leaf is taken, and cleared once nothing is stored in a leaf's pages any more and before they are given to
//! another key. 24 bytes for 16 pages, not charged to the limit.

use std::{io, sync::atomic::Ordering};

use crate::{
    fault_injection::{self, Point},
    ids::ObjectId,
    memory_file::MemoryFile,
    records::checksum,
};

/// Words of 8 bytes in a record.
pub(crate) const LEAF_RECORD_WORDS: usize = 3;

const PAGE_WORDS: usize = 512;
const RECORDS_PER_PAGE: usize = PAGE_WORDS / LEAF_RECORD_WORDS;

/// What the checksum is marked with, so that it is never 0.
const TAKEN: u64 = 1 << 32;

#[derive(Debug)]
pub(crate) struct LeafRecords(MemoryFile);

impl LeafRecords {
    /// How long the file is for so many leaves, in bytes.
    pub(crate) fn file_bytes(leaves: u32) -> usize {
        (leaves as usize).div_ceil(RECORDS_PER_PAGE).max(1) * PAGE_WORDS * 8
    }

    pub(crate) fn over(file: MemoryFile) -> Self {
        Self(file)
    }

    /// Gives a free leaf to some pages of an object.
    pub(crate) fn take(&self, leaf: u32, object: ObjectId, number: u64) {
        let at = place(leaf);
        let cells = &self.0.as_u64s()[at..at + LEAF_RECORD_WORDS];
        fault_injection::point(Point::Leaf);
        cells[0].store(object.0, Ordering::Relaxed);
        fault_injection::point(Point::Leaf);
        cells[1].store(number, Ordering::Relaxed);
        fault_injection::point(Point::Leaf);
        cells[2].store(TAKEN | u64::from(checksum(at, &[object.0, number])), Ordering::Release);
    }

    /// Frees a leaf, in which nothing is stored any more.
    pub(crate) fn free(&self, leaf: u32) {
        fault_injection::point(Point::Leaf);
        self.0.as_u64s()[place(leaf) + 2].store(0, Ordering::Release);
    }

    /// Frees all leaves and gives their memory back.
    pub(crate) fn free_all(&self) {
        // It only fails for lack of kernel memory, and all leaves were freed one by one before.
        for range in self.0.held_ranges().flatten() {
            let _ = self.0.give_back(range.start, range.len());
        }
    }

    /// Calls `each` with every leaf that is taken. Damaged records are cleared; gives how many there were.
    pub(crate) fn for_each(&self, leaves: u32, mut each: impl FnMut(u32, ObjectId, u64)) -> io::Result<u64> {
        let mut damaged = 0;
        for range in self.0.held_ranges() {
            let range = range?;
            let pages = range.start / (PAGE_WORDS * 8)..range.end.div_ceil(PAGE_WORDS * 8);
            for leaf in pages.start * RECORDS_PER_PAGE..(pages.end * RECORDS_PER_PAGE).min(leaves as usize) {
                let at = place(leaf as u32);
                let words: [u64; LEAF_RECORD_WORDS] =
                    std::array::from_fn(|i| self.0.as_u64s()[at + i].load(Ordering::Acquire));
                if words[2] == 0 {
                    continue;
                }
                if words[2] == TAKEN | u64::from(checksum(at, &words[..2])) {
                    each(leaf as u32, ObjectId(words[0]), words[1]);
                } else {
                    damaged += 1;
                    self.free(leaf as u32);
                }
            }
        }
        Ok(damaged)
    }

    #[cfg(test)]
    pub(crate) fn flip_bit(&self, leaf: u32, bit: usize) {
        self.0.as_u64s()[place(leaf) + bit / 64].fetch_xor(1 << (bit % 64), Ordering::Relaxed);
    }
}

fn place(leaf: u32) -> usize {
    let leaf = leaf as usize;
    leaf / RECORDS_PER_PAGE * PAGE_WORDS + leaf % RECORDS_PER_PAGE * LEAF_RECORD_WORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(records: &LeafRecords) -> (Vec<(u32, u64, u64)>, u64) {
        let mut found = Vec::new();
        let damaged = records.for_each(1000, |leaf, object, number| found.push((leaf, object.0, number)));
        (found, damaged.unwrap())
    }

    #[test]
    fn leaves_are_found_again() {
        let records = LeafRecords::over(MemoryFile::create("test", LeafRecords::file_bytes(1000)).unwrap());
        let leaves: Vec<_> =
            [0, 169, 170, 171, 999].map(|leaf| (leaf, 1 << 63, u64::from(leaf) << 30)).into();
        leaves.iter().for_each(|(leaf, object, number)| records.take(*leaf, ObjectId(*object), *number));
        assert_eq!(all(&records), (leaves.clone(), 0));
        records.free(170);
        assert_eq!(all(&records).0.len(), 4);
        for bit in 0..192 {
            records.flip_bit(171, bit);
            let (found, damaged) = all(&records);
            assert_eq!((found.len(), damaged), (3, 1), "bit {bit}");
            records.take(171, ObjectId(5), 6);
        }
        records.free_all();
        assert_eq!(all(&records), (vec![], 0));
    }
}
