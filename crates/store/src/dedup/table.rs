//! From a payload's checksum to the pages that may have that payload, in less than five bytes a page.
//!
//! Linear hashing (Litwin 1980): buckets of 16 cells, one cache line each, are added and taken away one at a time, so the table is
//! always about as large as it has to be and nothing ever waits for a rehash. A cell holds a page's number and a tag, the bits of
//! the checksum that come after those that chose the bucket:
//!
//! ```text
//! | 0 … 0 | 1 | tag: at most 31 - b bits | page number: b bits |      0 = free
//! ```
//!
//! A page may be in either of two buckets, each chosen by a hash of its own, and goes to the emptier one: a bucket that is still to be
//! split gets twice as many pages as one that was, and this evens it out. From a full one a page is moved to its other one, as a cuckoo does. When a bucket is split, the tag's lowest bit says which half a cell goes to, and is used up. A tag that gets too short is made anew
//! from the page's block.
//!
//! All of it is a hint: cells are single atomic words, changed without locks, and whoever follows one compares the pages. A cell
//! that gets lost costs a chance to share; one that points nowhere costs a look.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    block::PayloadCrc,
    budget::{Budget, Claim},
    memory_file::MemoryFile,
    prefetch::prefetch,
};

const CELLS: usize = 16;
const PAGE_BYTES: usize = 4096;
const BUCKETS_PER_PAGE: u32 = (PAGE_BYTES / (CELLS * 4)) as u32;

/// A bucket is added from this many pages a pair of buckets on: 4.57 bytes a page. About one page in a hundred finds no place then.
const MOST_PAGES_PER_PAIR: u64 = 28;

/// Pages of a full bucket that are looked at for one that can be moved. Each look costs a read of the page's block.
const MOST_MOVES: usize = 16;

/// A bucket is taken away below this many pages a bucket: those of two have to fit into one.
const FEWEST_PAGES_PER_BUCKET: u64 = 6;

/// Page numbers have at least this many bits, for 4 GiB of pages with tags of 11 bits; 64 GiB have 7.
const MIN_NUMBER_BITS: u32 = 20;

/// A tag as short as this is made anew when its bucket is split, or too many pages would have to be compared.
const SHORT_TAG_BITS: u32 = 3;

/// Page numbers have at most this many bits: 2 TiB of pages, with 2 bits of tag.
pub(super) const MAX_NUMBER_BITS: u32 = 29;

/// As many buckets as all page numbers need.
const MAX_BUCKETS: u32 =
    (1 << MAX_NUMBER_BITS) / FEWEST_PAGES_PER_BUCKET as u32 / BUCKETS_PER_PAGE * BUCKETS_PER_PAGE;

#[derive(Debug)]
pub(super) struct Table {
    cells: MemoryFile,
    /// Buckets in use; 0 or at least one page of them.
    buckets: AtomicU32,
    number_bits: AtomicU32,
    /// Pages with a block, of their own or shared: as many as may have to be found.
    pages: AtomicU64,
    resizing: Mutex<()>,
    budget: Arc<Budget>,
}

/// A bucket, and how many bits of the hash it has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bucket: u32,
    level: u32,
}

impl Table {
    pub(super) fn new(budget: Arc<Budget>) -> io::Result<Self> {
        Ok(Self {
            cells: MemoryFile::create("tmem-dedup", MAX_BUCKETS as usize * CELLS * 4)?,
            buckets: AtomicU32::new(0),
            number_bits: AtomicU32::new(MIN_NUMBER_BITS),
            pages: AtomicU64::new(0),
            resizing: Mutex::default(),
            budget,
        })
    }

    /// Memory that the table takes, in bytes.
    pub(super) fn held_bytes(&self) -> u64 {
        u64::from(self.buckets.load(Ordering::Relaxed).div_ceil(BUCKETS_PER_PAGE)) * PAGE_BYTES as u64
    }

    /// Pages counted.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Numbers of pages that may have such a payload.
    pub(super) fn candidates(&self, crc: PayloadCrc) -> impl Iterator<Item = u32> {
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        let places = self.places(crc).into_iter().flatten();
        let cells = places.map(|(place, hash)| {
            let cells = self.bucket(place.bucket).each_ref().map(|cell| cell.load(Ordering::Relaxed));
            (cells, hash >> place.level)
        });
        cells.flat_map(move |(cells, rest)| {
            cells
                .into_iter()
                .filter(move |cell| *cell != 0 && has_tag(cell >> number_bits, rest))
                .map(move |cell| cell & ((1 << number_bits) - 1))
        })
    }

    /// Counts pages that came or went. The table follows as they are inserted and removed.
    pub(super) fn count(&self, old_pages: u64, new_pages: u64) {
        if new_pages > old_pages {
            self.pages.fetch_add(new_pages - old_pages, Ordering::Relaxed);
        } else if old_pages > new_pages {
            self.pages.fetch_sub(old_pages - new_pages, Ordering::Relaxed);
        }
    }

    /// Lets a page be found. `crc_of` gives the checksum of a page that was inserted, if it is still there.
    pub(super) fn insert(&self, crc: PayloadCrc, number: u32, crc_of: impl Fn(u32) -> Option<PayloadCrc>) {
        if self.is_too_small() {
            self.add_bucket(&crc_of);
        }
        let free = |place: &(Place, u32)| free_cells(self.bucket(place.0.bucket));
        let Some(place) = self.places(crc).into_iter().flatten().max_by_key(free) else { return };
        if free(&place) == 0 {
            self.make_free(place.0.bucket, crc_of);
        }
        self.put(place, number);
    }

    /// Moves a page of a full bucket to its other one, if one of a few has room there.
    fn make_free(&self, bucket: u32, crc_of: impl Fn(u32) -> Option<PayloadCrc>) {
        let mask = (1 << self.number_bits.load(Ordering::Relaxed)) - 1;
        for cell in self.bucket(bucket).iter().take(MOST_MOVES) {
            let number = cell.load(Ordering::Relaxed) & mask;
            let Some(crc) = crc_of(number) else {
                cell.store(0, Ordering::Relaxed); // the page is gone
                return;
            };
            let mut others = self.places(crc).into_iter().flatten().filter(|other| other.0.bucket != bucket);
            if let Some(other) = others.next()
                && free_cells(self.bucket(other.0.bucket)) > 0
            {
                self.put(other, number);
                cell.store(0, Ordering::Relaxed);
                return;
            }
        }
    }

    fn put(&self, (place, hash): (Place, u32), number: u32) {
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        let tag = tag(hash >> place.level, 31 - number_bits);
        put_into(self.bucket(place.bucket), tag << number_bits | number);
    }

    /// Makes an empty table as large as the counted pages need, or as there is room for.
    pub(super) fn make_room(&self) {
        while self.is_too_small() {
            let before = self.buckets.load(Ordering::Relaxed);
            self.add_bucket(&|_| None);
            if self.buckets.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn is_too_small(&self) -> bool {
        self.pages() * 2 > u64::from(self.buckets.load(Ordering::Relaxed)) * MOST_PAGES_PER_PAIR
    }

    /// Has the CPU load the buckets where a page with such a payload may be.
    pub(super) fn prefetch(&self, crc: PayloadCrc) {
        for (place, _) in self.places(crc).into_iter().flatten() {
            prefetch(self.bucket(place.bucket).as_ptr());
        }
    }

    /// Lets a page not be found any more.
    pub(super) fn remove(&self, crc: PayloadCrc, number: u32) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        if self.pages() < u64::from(buckets) * FEWEST_PAGES_PER_BUCKET && buckets > 0 {
            self.take_bucket();
        }
        let mask = (1 << self.number_bits.load(Ordering::Relaxed)) - 1;
        for (place, _) in self.places(crc).into_iter().flatten() {
            for cell in self.bucket(place.bucket) {
                let bits = cell.load(Ordering::Relaxed);
                if bits != 0 && bits & mask == number {
                    let _raced = cell.compare_exchange(bits, 0, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
    }

    /// Makes room for page numbers below `end` at the expense of the tags. False: there is none.
    pub(super) fn widen(&self, end: u64) -> bool {
        if end > 1 << MAX_NUMBER_BITS {
            return false;
        }
        let _one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let old_bits = self.number_bits.load(Ordering::Relaxed);
        let new_bits = (u64::BITS - end.saturating_sub(1).leading_zeros()).max(old_bits);
        if new_bits == old_bits {
            return true;
        }
        let most_tag_bits = 31 - new_bits;
        self.number_bits.store(new_bits, Ordering::Relaxed);
        for bucket in 0..self.buckets.load(Ordering::Relaxed) {
            for cell in self.bucket(bucket) {
                let bits = cell.load(Ordering::Relaxed);
                if bits == 0 {
                    continue;
                }
                let (tag, number) = (bits >> old_bits, bits & ((1 << old_bits) - 1));
                let tag = self::tag(tag, tag_bits(tag).min(most_tag_bits));
                cell.store(tag << new_bits | number, Ordering::Relaxed);
            }
        }
        true
    }

    /// The two places where a page with such a payload may be, each with the hash that leads there.
    fn places(&self, crc: PayloadCrc) -> [Option<(Place, u32)>; 2] {
        let buckets = self.buckets.load(Ordering::Acquire);
        hashes(crc).map(|hash| Some((place(hash, buckets)?, hash)))
    }

    fn bucket(&self, bucket: u32) -> &[AtomicU32; CELLS] {
        let (buckets, _) = self.cells.as_u32s().as_chunks::<CELLS>();
        &buckets[bucket as usize]
    }

    fn add_bucket(&self, crc_of: &impl Fn(u32) -> Option<PayloadCrc>) {
        // Somebody else is at it: the table is a little too small until the next page comes.
        let Some(_one_at_a_time) = self.try_resize() else { return };
        let buckets = self.buckets.load(Ordering::Relaxed);
        if buckets == MAX_BUCKETS {
            return;
        }
        let in_page = buckets % BUCKETS_PER_PAGE;
        if in_page == 0 && !self.budget.try_reserve(PAGE_BYTES as u64, Claim::Growth) {
            return;
        }
        if buckets == 0 {
            self.buckets.store(BUCKETS_PER_PAGE, Ordering::Release);
            return;
        }
        let Some(parent) = place(buckets, buckets) else { return };
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        for cell in self.bucket(parent.bucket) {
            let bits = cell.load(Ordering::Relaxed);
            if bits == 0 {
                continue;
            }
            let (tag, number) = (bits >> number_bits, bits & ((1 << number_bits) - 1));
            if tag_bits(tag) > SHORT_TAG_BITS {
                let (moves, rest) = (tag & 1 == 1, tag >> 1 << number_bits | number);
                if moves {
                    put_into(self.bucket(buckets), rest);
                }
                cell.store(if moves { 0 } else { rest }, Ordering::Relaxed);
                continue;
            }
            cell.store(0, Ordering::Relaxed);
            let hashes = crc_of(number).map_or([None; 2], |crc| hashes(crc).map(Some)); // None: the page is gone
            let here = hashes.into_iter().flatten().find(|hash| place(*hash, buckets) == Some(parent));
            if let Some(hash) = here
                && let Some(place) = place(hash, buckets + 1)
            {
                self.put((place, hash), number);
            }
        }
        self.buckets.store(buckets + 1, Ordering::Release);
    }

    fn take_bucket(&self) {
        let Some(_one_at_a_time) = self.try_resize() else { return };
        let buckets = self.buckets.load(Ordering::Relaxed);
        if buckets <= BUCKETS_PER_PAGE {
            if buckets > 0 && self.pages() == 0 {
                self.buckets.store(0, Ordering::Release);
                self.give_back_page(0);
            }
            return;
        }
        let last = buckets - 1;
        self.buckets.store(last, Ordering::Release);
        let Some(parent) = place(last, last) else { return };
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        let bit = last >> parent.level & 1;
        let longer = |bits: u32, bit: u32| {
            let (tag, number) = (bits >> number_bits, bits & ((1 << number_bits) - 1));
            let tag_bits = (tag_bits(tag) + 1).min(31 - number_bits);
            self::tag(tag << 1 | bit, tag_bits) << number_bits | number
        };
        for cell in self.bucket(parent.bucket) {
            let bits = cell.load(Ordering::Relaxed);
            if bits != 0 {
                cell.store(longer(bits, bit ^ 1), Ordering::Relaxed);
            }
        }
        for cell in self.bucket(last) {
            let bits = cell.swap(0, Ordering::Relaxed);
            if bits != 0 {
                put_into(self.bucket(parent.bucket), longer(bits, bit));
            }
        }
        if last.is_multiple_of(BUCKETS_PER_PAGE) {
            self.give_back_page(last / BUCKETS_PER_PAGE);
        }
    }

    fn give_back_page(&self, page: u32) {
        // It only fails for lack of kernel memory, and old cells do no harm.
        let _ = self.cells.give_back(page as usize * PAGE_BYTES, PAGE_BYTES);
        self.budget.release(PAGE_BYTES as u64);
    }

    fn try_resize(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        match self.resizing.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.cells.allocated_bytes().unwrap()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.budget.release(self.held_bytes());
    }
}

/// The checksum is as good as a hash; the other one is a bijection of it.
fn hashes(crc: PayloadCrc) -> [u32; 2] {
    let mixed = crc.0.wrapping_mul(0x9e37_79b1);
    [crc.0, mixed ^ mixed >> 15]
}

/// Which bucket a hash belongs to, when there are so many. `None`: there are none.
fn place(hash: u32, buckets: u32) -> Option<Place> {
    if buckets == 0 {
        return None;
    }
    let rounded = buckets.next_power_of_two();
    let level = rounded.trailing_zeros();
    let bucket = hash & (rounded - 1);
    let half = rounded / 2;
    // A bucket in the upper half that is not there yet is still part of its counterpart in the lower half.
    if bucket >= buckets {
        Some(Place { bucket: bucket & (half - 1), level: level - 1 })
    } else if bucket >= half || bucket + half < buckets {
        Some(Place { bucket, level })
    } else {
        Some(Place { bucket, level: level - 1 })
    }
}

/// How many bits a tag has: those below its highest one.
fn tag_bits(tag: u32) -> u32 {
    tag.checked_ilog2().unwrap_or(0) // 0: a cell that is just being widened
}

/// The tag of so many of a hash's lowest bits.
fn tag(hash: u32, tag_bits: u32) -> u32 {
    hash & ((1 << tag_bits) - 1) | 1 << tag_bits
}

fn has_tag(tag: u32, rest: u32) -> bool {
    let mask = (1 << tag_bits(tag)) - 1;
    (tag ^ rest) & mask == 0
}

fn free_cells(bucket: &[AtomicU32; CELLS]) -> usize {
    bucket.iter().filter(|cell| cell.load(Ordering::Relaxed) == 0).count()
}

/// Writes a cell to a free place of a bucket, or over another.
fn put_into(bucket: &[AtomicU32; CELLS], bits: u32) {
    let free = bucket.iter().find(|cell| cell.load(Ordering::Relaxed) == 0);
    // The page number's lowest bits are as good as any to choose a victim by.
    free.unwrap_or(&bucket[bits as usize % CELLS]).store(bits, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crc(number: u32) -> PayloadCrc {
        PayloadCrc(crc32c::crc32c(&number.to_le_bytes()))
    }

    fn table() -> (Table, Arc<Budget>) {
        let budget = Arc::new(Budget::new(1 << 30, 0));
        (Table::new(budget.clone()).unwrap(), budget)
    }

    fn enter(table: &Table, number: u32) {
        table.count(0, 1);
        table.insert(crc(number), number, |number| Some(crc(number)));
    }

    fn leave(table: &Table, number: u32) {
        table.count(1, 0);
        table.remove(crc(number), number);
    }

    fn found(table: &Table, numbers: impl Iterator<Item = u32>) -> usize {
        numbers.filter(|number| table.candidates(crc(*number)).any(|found| found == *number)).count()
    }

    #[test]
    fn nearly_all_pages_are_found_in_less_than_five_bytes_each() {
        let (table, budget) = table();
        let count = 300_000;
        (0..count).for_each(|number| enter(&table, number));
        let found = found(&table, 0..count);
        assert!(found > count as usize * 98 / 100, "{found}");
        assert!(table.held_bytes() < u64::from(count) * 5, "{} bytes", table.held_bytes());
        assert_eq!(table.held_bytes(), budget.held_bytes());
        assert_eq!(table.held_bytes(), table.allocated_bytes());
        // A page that is not there costs few looks at others.
        let looks: usize = (count..2 * count).map(|number| table.candidates(crc(number)).count()).sum();
        assert!(looks < count as usize / 4, "{looks} looks");
    }

    #[test]
    fn the_table_shrinks_and_goes_with_its_pages() {
        let (table, budget) = table();
        (0..100_000).for_each(|number| enter(&table, number));
        let full_bytes = table.held_bytes();
        (10_000..100_000).for_each(|number| leave(&table, number));
        assert!(table.held_bytes() < full_bytes / 4, "{} of {full_bytes}", table.held_bytes());
        assert_eq!(table.held_bytes(), table.allocated_bytes());
        let found = found(&table, 0..10_000);
        assert!(found > 9_500, "{found}");
        (0..10_000).for_each(|number| leave(&table, number));
        assert_eq!((table.held_bytes(), budget.held_bytes(), table.allocated_bytes()), (0, 0, 0));
    }

    #[test]
    fn wider_numbers_keep_what_is_entered() {
        let (table, _) = table();
        (0..5_000).for_each(|number| enter(&table, number));
        let before = found(&table, 0..5_000);
        assert!(table.widen(1 << 28));
        assert_eq!(found(&table, 0..5_000), before);
        let high = (1 << 28) - 1;
        enter(&table, high);
        assert_eq!(found(&table, [high].into_iter()), 1);
        assert!(!table.widen((1 << 30) + 1));
    }

    #[test]
    fn without_room_the_table_stays_as_small_as_it_is() {
        let budget = Arc::new(Budget::new(PAGE_BYTES as u64, 0));
        let table = Table::new(budget.clone()).unwrap();
        (0..10_000).for_each(|number| enter(&table, number));
        assert_eq!(table.held_bytes(), PAGE_BYTES as u64);
        assert!(found(&table, 0..10_000) > 900);
    }

    proptest! {
        #[test]
        fn a_bucket_splits_into_itself_and_the_new_one(crc in any::<u32>(), buckets in 1..100_000u32) {
            let (before, after) = (place(crc, buckets).unwrap(), place(crc, buckets + 1).unwrap());
            prop_assert!(before.bucket < buckets);
            if before.bucket != after.bucket {
                prop_assert_eq!(after.bucket, buckets);
                prop_assert_eq!(place(buckets, buckets).unwrap(), before);
                prop_assert_eq!(crc >> before.level & 1, 1);
            }
            prop_assert_eq!(after.level - before.level, u32::from(place(buckets, buckets) == Some(before)));
        }
    }
}
