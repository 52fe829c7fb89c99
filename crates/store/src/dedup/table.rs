//! From a payload's checksum to the pages that may have that payload, in less than five bytes a page.
//!
//! Linear hashing (Litwin 1980): [buckets](super::bucket) of 16 cells, one cache line each, are added and taken away one at a time,
//! so the table is always about as large as it has to be and nothing ever waits for a rehash. A page may be in either of two buckets,
//! each [chosen](super::place) by a hash of its own, and goes to the emptier one: a bucket that is still to be split gets twice as
//! many pages as one that was, and this evens it out. If both are full, the page takes the place of another one, which can
//! be inserted again when there is time to move others for it. When a bucket is split,
//! the tag's lowest bit says which half a cell goes to, and is used up. A tag that gets too short is made anew from
//! the page's block.
//!
//! All of it is a hint: cells are single atomic words, changed without locks, and whoever follows one compares the pages. A cell
//! that gets lost costs a chance to share; one that points nowhere costs a look. What holds among threads:
//!
//! - A lookup gives numbers that were inserted, under whatever checksum; while numbers get wider, and of cells that were written then,
//!   any below 2^29. A number may be that of a page that is gone, of another one, or of none.
//! - A page that was inserted is found until it is removed, if there was room in its bucket, and neither another insert into the bucket
//!   nor a change of the table's size or of the width of numbers came in between.
//! - One thread at a time changes size or width. When all that count pages, insert and remove are through, the table is not larger than
//!   the pages need, and the budget has what it holds.

use std::{
    io,
    sync::{Arc, PoisonError, TryLockError},
};

use super::{
    bucket::{
        Bucket, SHORT_TAG_BITS, free_cells, look, matches, number_of, put_into, tag, tag_bits, take_out,
    },
    cells::{BUCKETS_PER_PAGE, CELLS, Cells, PAGE_BYTES},
    place::{Place, hashes, place},
};
use crate::{
    block::PayloadCrc,
    budget::{Budget, Claim},
    prefetch::prefetch,
    stock::{Request, Stock},
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering},
};

/// A bucket is added from this many pages a pair of buckets on, 28: 4.57 bytes a page. About one page in ten then finds both its buckets
/// full and takes another one's place. To move that one to its other bucket, as a cuckoo does, leaves one in a hundred without a place, but
/// reads the blocks of those that might move: a put took 12% longer than without dedup so, and takes 5% longer if it leaves that for later.
const MOST_PAGES_PER_PAIR: u64 = (CELLS * 2 * 7 / 8) as u64;

/// A bucket is taken away below this many pages a bucket, 6: those of two have to fit into one.
const FEWEST_PAGES_PER_BUCKET: u64 = (CELLS * 3).div_ceil(8) as u64;

/// Page numbers have at least this many bits, for 4 GiB of pages with tags of 11 bits; 64 GiB have 7.
const MIN_NUMBER_BITS: u32 = 20;

/// Page numbers have at most this many bits: 2 TiB of pages, with 2 bits of tag.
pub(super) const MAX_NUMBER_BITS: u32 = 29;

/// As many buckets as all page numbers need.
const MAX_BUCKETS: u32 =
    (1 << MAX_NUMBER_BITS) / FEWEST_PAGES_PER_BUCKET as u32 / BUCKETS_PER_PAGE * BUCKETS_PER_PAGE;

/// What to do about a page for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfFull {
    /// It takes the place of another one.
    Displace,
    /// It is left out: others are found with the same contents.
    LeaveOut,
}

#[derive(Debug)]
pub(super) struct Table {
    cells: Cells,
    /// Buckets in use; 0 or at least one page of them.
    buckets: AtomicU32,
    number_bits: AtomicU32,
    /// Pages with a block, of their own or shared: as many as may have to be found.
    pages: AtomicU64,
    resizing: Mutex<()>,
    /// Pages of buckets that are held, those in use and some that were found ahead. Changed by whoever resizes the table.
    held_pages: AtomicU32,
    budget: Arc<Budget>,
    stock: Arc<Stock>,
}

impl Table {
    pub(super) fn new(budget: Arc<Budget>, stock: Arc<Stock>) -> io::Result<Self> {
        Ok(Self {
            cells: Cells::create(MAX_BUCKETS)?,
            buckets: AtomicU32::new(0),
            number_bits: AtomicU32::new(MIN_NUMBER_BITS),
            pages: AtomicU64::new(0),
            resizing: Mutex::default(),
            held_pages: AtomicU32::new(0),
            budget,
            stock,
        })
    }

    /// Memory that the table takes, in bytes.
    pub(super) fn held_bytes(&self) -> u64 {
        u64::from(self.held_pages.load(Ordering::Relaxed)) * PAGE_BYTES as u64
    }

    /// Pages counted.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Numbers of pages that may have such a payload.
    pub(super) fn candidates(&self, crc: PayloadCrc) -> impl Iterator<Item = u32> {
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        let places = self.places(crc).into_iter().flatten();
        places.flat_map(move |(place, hash)| {
            matches(look(self.bucket(place.bucket)), hash >> place.level, number_bits)
        })
    }

    /// Counts pages that came or went. The table shrinks with those that go, and grows as those that came are inserted.
    pub(super) fn count(&self, old_pages: u64, new_pages: u64) {
        if new_pages > old_pages {
            self.pages.fetch_add(new_pages - old_pages, Ordering::Relaxed);
        } else if old_pages > new_pages {
            let gone = old_pages - new_pages;
            // See latest_pages for the order.
            self.shrink(self.pages.fetch_sub(gone, Ordering::AcqRel) - gone);
        }
    }

    /// Lets a page be found. `crc_of` gives the checksum of a page that was inserted, if it is still there. If both buckets of the page
    /// are full, another one is found no more, whose number is given; or the page is not found, if that is better.
    pub(super) fn insert(
        &self,
        crc: PayloadCrc,
        number: u32,
        if_full: IfFull,
        crc_of: impl Fn(u32) -> Option<PayloadCrc>,
    ) -> Option<u32> {
        self.grow(&crc_of);
        let places = self.places(crc).into_iter().flatten();
        let free = places.map(|place| (free_cells(self.bucket(place.0.bucket)), place));
        let (free, emptier) = free.max_by_key(|(free, _)| free.count_ones())?;
        if free == 0 && if_full == IfFull::LeaveOut { None } else { self.put(emptier, number) }
    }

    /// As [`Table::insert`], and moves other pages rather than displacing one. That reads several blocks.
    pub(super) fn insert_moving(
        &self,
        crc: PayloadCrc,
        number: u32,
        crc_of: impl Fn(u32) -> Option<PayloadCrc>,
    ) {
        self.grow(&crc_of);
        let places = || self.places(crc).into_iter().flatten().map(|(place, _)| place.bucket);
        if places().all(|bucket| free_cells(self.bucket(bucket)) == 0) {
            let _made = places().any(|bucket| self.make_free(bucket, &crc_of));
        }
        let _displaced = self.insert(crc, number, IfFull::Displace, crc_of);
    }

    fn grow(&self, crc_of: &impl Fn(u32) -> Option<PayloadCrc>) {
        if self.is_too_small() {
            self.add_bucket(crc_of);
        }
    }

    /// Moves a page of a full bucket to its other one; says whether one had room there.
    fn make_free(&self, bucket: u32, crc_of: impl Fn(u32) -> Option<PayloadCrc>) -> bool {
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        self.bucket(bucket).iter().any(|cell| {
            let bits = cell.load(Ordering::Relaxed);
            if bits == 0 {
                return true; // its page was just taken out
            }
            let number = number_of(bits, number_bits);
            let Some(crc) = crc_of(number) else {
                cell.store(0, Ordering::Relaxed); // the page is gone
                return true;
            };
            let mut others = self.places(crc).into_iter().flatten().filter(|other| other.0.bucket != bucket);
            let moves = others.next().filter(|other| free_cells(self.bucket(other.0.bucket)) > 0);
            if let Some(other) = moves {
                let _displaced = self.put(other, number);
                cell.store(0, Ordering::Relaxed);
            }
            moves.is_some()
        })
    }

    /// Gives the number of the page whose place this takes.
    fn put(&self, (place, hash): (Place, u32), number: u32) -> Option<u32> {
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        let tag = tag(hash >> place.level, 31 - number_bits);
        let displaced = put_into(self.bucket(place.bucket), tag << number_bits | number)?;
        Some(number_of(displaced, number_bits))
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

    fn is_too_large(&self, pages: u64) -> bool {
        let buckets = self.buckets.load(Ordering::Acquire);
        if buckets <= BUCKETS_PER_PAGE {
            buckets > 0 && pages == 0
        } else {
            pages < u64::from(buckets) * FEWEST_PAGES_PER_BUCKET
        }
    }

    /// Has the CPU load the buckets where a page with such a payload may be.
    pub(super) fn prefetch(&self, crc: PayloadCrc) {
        for (place, _) in self.places(crc).into_iter().flatten() {
            prefetch(self.bucket(place.bucket).as_ptr());
        }
    }

    /// Lets a page not be found any more.
    pub(super) fn remove(&self, crc: PayloadCrc, number: u32) {
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        for (place, _) in self.places(crc).into_iter().flatten() {
            take_out(self.bucket(place.bucket), number, number_bits);
        }
    }

    /// Makes room for page numbers below `end` at the expense of the tags. False: there is none.
    pub(super) fn widen(&self, end: u64) -> bool {
        if end > 1 << MAX_NUMBER_BITS {
            return false;
        }
        let one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        self.widen_to(end);
        drop(one_at_a_time);
        self.shrink(self.latest_pages());
        true
    }

    fn widen_to(&self, end: u64) {
        let old_bits = self.number_bits.load(Ordering::Relaxed);
        let new_bits = (u64::BITS - end.saturating_sub(1).leading_zeros()).max(old_bits);
        if new_bits == old_bits {
            return;
        }
        let most_tag_bits = 31 - new_bits;
        self.number_bits.store(new_bits, Ordering::Relaxed);
        for bucket in 0..self.buckets.load(Ordering::Relaxed) {
            for cell in self.bucket(bucket) {
                let bits = cell.load(Ordering::Relaxed);
                if bits == 0 {
                    continue;
                }
                let (tag, number) = (bits >> old_bits, number_of(bits, old_bits));
                let tag = self::tag(tag, tag_bits(tag).min(most_tag_bits));
                cell.store(tag << new_bits | number, Ordering::Relaxed);
            }
        }
    }

    /// The two places where a page with such a payload may be, each with the hash that leads there.
    fn places(&self, crc: PayloadCrc) -> [Option<(Place, u32)>; 2] {
        let buckets = self.buckets.load(Ordering::Acquire);
        hashes(crc).map(|hash| Some((place(hash, buckets)?, hash)))
    }

    fn bucket(&self, bucket: u32) -> &Bucket {
        self.cells.bucket(bucket)
    }

    fn add_bucket(&self, crc_of: &impl Fn(u32) -> Option<PayloadCrc>) {
        // Somebody else is at it: the table is a little too small until the next page comes.
        let Some(one_at_a_time) = self.try_resize() else { return };
        self.split_next(crc_of);
        drop(one_at_a_time);
        self.shrink(self.latest_pages());
    }

    /// Takes buckets away for as long as there are too many for so many pages.
    fn shrink(&self, mut pages: u64) {
        while self.is_too_large(pages) {
            // Somebody else is at it, and looks again when they are through.
            let Some(one_at_a_time) = self.try_resize() else { return };
            if self.is_too_large(self.latest_pages()) {
                self.merge_last();
            }
            drop(one_at_a_time);
            pages = self.latest_pages();
        }
    }

    /// How many pages there are, for whoever has resized the table and given the lock back. What was counted before shows in it, and
    /// whoever counts later sees the table as it is now and the lock free: both write to the count, so one comes after the other.
    fn latest_pages(&self) -> u64 {
        self.pages.fetch_add(0, Ordering::AcqRel)
    }

    /// Adds a bucket. Called by whoever resizes the table.
    fn split_next(&self, crc_of: &impl Fn(u32) -> Option<PayloadCrc>) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        if buckets == MAX_BUCKETS {
            return;
        }
        let in_page = buckets % BUCKETS_PER_PAGE;
        if in_page == 0 && !self.hold_page(buckets / BUCKETS_PER_PAGE) {
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
            let (tag, number) = (bits >> number_bits, number_of(bits, number_bits));
            if tag_bits(tag) > SHORT_TAG_BITS {
                let (moves, rest) = (tag & 1 == 1, tag >> 1 << number_bits | number);
                if moves {
                    let _displaced = put_into(self.bucket(buckets), rest);
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
                let _displaced = self.put((place, hash), number);
            }
        }
        self.buckets.store(buckets + 1, Ordering::Release);
    }

    /// Sees to it that a page of buckets is held. Where a stock is kept it was found ahead, or is asked for. False: it is not. Called by
    /// whoever resizes the table.
    fn hold_page(&self, page: u32) -> bool {
        let held_pages = self.held_pages.load(Ordering::Relaxed);
        if held_pages <= page + 1 {
            self.stock.request(Request::Tables);
        }
        if held_pages > page {
            return true;
        }
        if self.stock.is_kept() || !self.budget.try_reserve(PAGE_BYTES as u64, Claim::Growth) {
            return false;
        }
        self.held_pages.store(page + 1, Ordering::Relaxed);
        true
    }

    /// Has the OS find the memory of the next page of buckets. What is found is taken off `left_bytes`, beyond which the OS is not asked.
    /// False: it had less than is wanted.
    pub(super) fn find_page(&self, left_bytes: &mut u64) -> bool {
        let one_at_a_time = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let held_pages = self.held_pages.load(Ordering::Relaxed);
        let used_pages = self.buckets.load(Ordering::Relaxed).div_ceil(BUCKETS_PER_PAGE);
        let is_wanted =
            self.pages() > 0 && held_pages <= used_pages && held_pages < MAX_BUCKETS / BUCKETS_PER_PAGE;
        let mut is_there = true;
        if is_wanted && self.budget.try_reserve(PAGE_BYTES as u64, Claim::Growth) {
            is_there = *left_bytes >= PAGE_BYTES as u64 && self.cells.populate(held_pages).is_ok();
            if is_there {
                *left_bytes -= PAGE_BYTES as u64;
                self.held_pages.store(held_pages + 1, Ordering::Relaxed);
            } else {
                self.budget.release(PAGE_BYTES as u64);
            }
        }
        drop(one_at_a_time);
        self.shrink(self.latest_pages());
        is_there
    }

    /// Takes a bucket away, or all of the last page of them. Called by whoever resizes the table.
    fn merge_last(&self) {
        let buckets = self.buckets.load(Ordering::Relaxed);
        if buckets <= BUCKETS_PER_PAGE {
            self.buckets.store(0, Ordering::Release);
            self.give_back_pages_from(0);
            return;
        }
        let last = buckets - 1;
        self.buckets.store(last, Ordering::Release);
        let Some(parent) = place(last, last) else { return };
        let number_bits = self.number_bits.load(Ordering::Relaxed);
        let bit = last >> parent.level & 1;
        let longer = |bits: u32, bit: u32| {
            let (tag, number) = (bits >> number_bits, number_of(bits, number_bits));
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
                let _displaced = put_into(self.bucket(parent.bucket), longer(bits, bit));
            }
        }
        if last.is_multiple_of(BUCKETS_PER_PAGE) {
            self.give_back_pages_from(last / BUCKETS_PER_PAGE);
        }
    }

    fn give_back_pages_from(&self, first: u32) {
        let held_pages = self.held_pages.load(Ordering::Relaxed);
        self.held_pages.store(first, Ordering::Relaxed);
        for page in first..held_pages {
            self.cells.give_back(page);
            self.budget.release(PAGE_BYTES as u64);
        }
    }

    fn try_resize(&self) -> Option<MutexGuard<'_, ()>> {
        match self.resizing.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.cells.allocated_bytes()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.budget.release(self.held_bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
