//! A dedup domain: the pools whose pages may share blocks.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::table::{IfFull, MAX_NUMBER_BITS, Table};
use crate::{
    block::PayloadCrc, budget::Budget, catalog::ClientSlot, counters::Counters, ids::IndexSlot, pool::Pool,
    stamp::Stamp, stock::Stock,
};

/// A domain, unique for the life of the process. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DomainId(pub(crate) u32);

/// Whose domain it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DomainScope<'a> {
    /// A client's alone.
    Client(ClientSlot),
    /// That of all clients which name it.
    Named(&'a str),
}

#[derive(Debug)]
pub(crate) struct Domain {
    id: DomainId,
    mark: Stamp,
    /// `None`: the domain of one client alone.
    name: Option<String>,
    table: Table,
    /// By page number, lowest first.
    seats: RwLock<Vec<Seat>>,
    shared_blocks: AtomicU64,
    shared_block_bytes: AtomicU64,
    shared_pages: AtomicU64,
    compared_pages: AtomicU64,
    /// Pages whose places others took in the table.
    displaced: Mutex<Vec<u32>>,
}

/// No more displaced pages are kept in mind than one in so many, and a few: half a byte a page.
const DISPLACED_PART: u64 = 8;
const FEWEST_DISPLACED: u64 = 256;

/// The page numbers of a pool within its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberRange {
    start: u32,
    len: u32,
}

#[derive(Debug)]
struct Seat {
    numbers: NumberRange,
    pool: Weak<Pool>,
}

/// What a domain's clients hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DomainUsage {
    pub(crate) shared_blocks: u64,
    pub(crate) shared_block_bytes: u64,
    /// Pages that refer to them.
    pub(crate) shared_pages: u64,
    pub(crate) table_bytes: u64,
    /// Pages in the table.
    pub(crate) table_pages: u64,
}

impl NumberRange {
    /// Of a pool whose pages are not found by their contents.
    pub(crate) const NONE: Self = Self { start: 0, len: 0 };

    /// The number of the page in a slot of the pool.
    pub(crate) fn number(self, slot: IndexSlot) -> Option<u32> {
        (slot.0 < self.len).then(|| self.start + slot.0)
    }

    fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.len)
    }
}

impl DomainScope<'_> {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            DomainScope::Named(name) => Some(name),
            DomainScope::Client(_) => None,
        }
    }

    /// One of 64 for clients alone, and one of 64 for names.
    fn mark(&self) -> Stamp {
        match self {
            DomainScope::Client(client) => Stamp::mark(client.0 as u8 & 0x3f),
            DomainScope::Named(name) => Stamp::mark(0x40 | crc32c::crc32c(name.as_bytes()) as u8 & 0x3f),
        }
    }
}

impl Domain {
    pub(crate) fn new(
        id: DomainId,
        scope: DomainScope<'_>,
        budget: Arc<Budget>,
        stock: Arc<Stock>,
    ) -> io::Result<Self> {
        Ok(Self {
            id,
            mark: scope.mark(),
            name: scope.name().map(str::to_owned),
            table: Table::new(budget, stock)?,
            seats: RwLock::default(),
            shared_blocks: AtomicU64::new(0),
            shared_block_bytes: AtomicU64::new(0),
            shared_pages: AtomicU64::new(0),
            compared_pages: AtomicU64::new(0),
            displaced: Mutex::default(),
        })
    }

    pub(crate) fn id(&self) -> DomainId {
        self.id
    }

    /// What its cells are marked with, in this process and the next.
    pub(crate) fn mark(&self) -> Stamp {
        self.mark
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Gives a pool of so many pages its numbers. `None`: there are not as many left, and its pages are shared with nobody.
    pub(crate) fn reserve_numbers(&self, slots: u64) -> Option<NumberRange> {
        let len = u32::try_from(slots).ok().filter(|len| *len <= 1 << MAX_NUMBER_BITS)?;
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        let starts = std::iter::once(0).chain(seats.iter().map(|seat| seat.numbers.end()));
        let ends = seats.iter().map(|seat| u64::from(seat.numbers.start)).chain([1 << MAX_NUMBER_BITS]);
        let gaps = starts.zip(ends).enumerate();
        let (at, start) = gaps
            .filter(|(_, (start, end))| end.saturating_sub(*start) >= u64::from(len))
            .map(|(at, (start, _))| (at, start))
            .next()?;
        let numbers = NumberRange { start: u32::try_from(start).ok()?, len };
        seats.insert(at, Seat { numbers, pool: Weak::new() });
        // Not under this lock: whoever resizes the table looks for pages, which takes it.
        drop(seats);
        if !self.table.widen(numbers.end()) {
            self.remove_pool(numbers);
            return None;
        }
        Some(numbers)
    }

    /// Says which pool the numbers are for.
    pub(crate) fn set_pool(&self, numbers: NumberRange, pool: Weak<Pool>) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(seat) = seats.iter_mut().find(|seat| seat.numbers == numbers) {
            seat.pool = pool;
        }
    }

    /// Takes back the numbers of a pool that holds nothing any more.
    pub(crate) fn remove_pool(&self, numbers: NumberRange) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.numbers != numbers);
    }

    /// The page of a number. `None`: its pool is gone.
    pub(crate) fn page(&self, number: u32) -> Option<(Arc<Pool>, IndexSlot)> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let at = seats.partition_point(|seat| seat.numbers.end() <= u64::from(number));
        let seat = seats.get(at)?;
        let slot = number.checked_sub(seat.numbers.start)?;
        Some((seat.pool.upgrade()?, IndexSlot(slot)))
    }

    /// Numbers of pages that may have such a payload.
    pub(crate) fn candidates(&self, crc: PayloadCrc) -> impl Iterator<Item = u32> {
        self.table.candidates(crc)
    }

    /// Lets a page be found by its payload. No lock is held.
    pub(crate) fn remember(&self, crc: PayloadCrc, number: u32, if_full: IfFull) {
        if let Some(displaced) = self.table.insert(crc, number, if_full, |number| self.crc_of(number)) {
            let mut all = self.displaced.lock().unwrap_or_else(PoisonError::into_inner);
            if (all.len() as u64) < self.table.pages() / DISPLACED_PART + FEWEST_DISPLACED {
                all.push(displaced);
            }
        }
    }

    /// Lets a page be found that may be already: it may have been put since.
    pub(crate) fn recall(&self, crc: PayloadCrc, number: u32) {
        if self.table.candidates(crc).all(|found| found != number) {
            self.remember(crc, number, IfFull::Displace);
        }
    }

    /// Lets pages be found again that others took the place of, until `until`. True: there are more.
    pub(crate) fn restore_displaced(&self, until: Instant) -> bool {
        let take = || self.displaced.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(number) = take() {
            if let Some(crc) = self.crc_of(number)
                && self.table.candidates(crc).all(|found| found != number)
            {
                self.table.insert_moving(crc, number, |number| self.crc_of(number));
            }
            if Instant::now() >= until {
                return true;
            }
        }
        let mut all = self.displaced.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            *all = Vec::new(); // its memory, too
        }
        false
    }

    /// The checksum by which the page of a number is found, if it is there.
    fn crc_of(&self, number: u32) -> Option<PayloadCrc> {
        let (pool, slot) = self.page(number)?;
        pool.payload_crc(slot)
    }

    /// Has the CPU load what finding such a payload reads.
    pub(crate) fn prefetch(&self, crc: PayloadCrc) {
        self.table.prefetch(crc);
    }

    /// Makes the table as large as all pages need that are counted.
    pub(crate) fn make_room(&self) {
        self.table.make_room();
    }

    /// Has the OS find the memory of what the table needs next. False: it had less than `left_bytes` and what is wanted.
    pub(crate) fn find_table_page(&self, left_bytes: &mut u64) -> bool {
        self.table.find_page(left_bytes)
    }

    /// Lets a page not be found any more that does not have that payload.
    pub(crate) fn forget(&self, crc: PayloadCrc, number: u32) {
        self.table.remove(crc, number);
    }

    pub(crate) fn count_comparison(&self) {
        self.compared_pages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_new_block(&self, block_bytes: u16) {
        self.shared_blocks.fetch_add(1, Ordering::Relaxed);
        self.shared_block_bytes.fetch_add(block_bytes.into(), Ordering::Relaxed);
    }

    pub(crate) fn count_lost_block(&self, block_bytes: u16) {
        self.shared_blocks.fetch_sub(1, Ordering::Relaxed);
        self.shared_block_bytes.fetch_sub(block_bytes.into(), Ordering::Relaxed);
    }

    /// Counts what became of a block whose contents were compressed harder; its clients' books are those of the first pool.
    pub(crate) fn count_recompression(&self, saved_bytes: u64, note: impl FnOnce(&mut Counters)) {
        self.shared_block_bytes.fetch_sub(saved_bytes, Ordering::Relaxed);
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let first = seats.iter().find_map(|seat| seat.pool.upgrade());
        drop(seats);
        if let Some(pool) = first {
            pool.note(note);
        }
    }

    /// How much the client of its first pool has of its share, in thousandths.
    pub(crate) fn share_permille(&self) -> u64 {
        let first = {
            let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
            seats.iter().find_map(|seat| seat.pool.upgrade())
        };
        first.map_or(0, |pool| pool.share_permille())
    }

    /// Counts a page that came, went or was replaced, of a pool with such numbers.
    pub(crate) fn count(&self, numbers: NumberRange, before: &Counters, after: &Counters) {
        let findable = |counters: &Counters| counters.block_pages + counters.shared_pages;
        if numbers != NumberRange::NONE {
            self.table.count(findable(before), findable(after));
        }
        if after.shared_pages > before.shared_pages {
            self.shared_pages.fetch_add(1, Ordering::Relaxed);
        } else if before.shared_pages > after.shared_pages {
            self.shared_pages.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn usage(&self) -> DomainUsage {
        DomainUsage {
            shared_blocks: self.shared_blocks.load(Ordering::Relaxed),
            shared_block_bytes: self.shared_block_bytes.load(Ordering::Relaxed),
            shared_pages: self.shared_pages.load(Ordering::Relaxed),
            table_bytes: self.table.held_bytes(),
            table_pages: self.table.pages(),
        }
    }

    /// Pages that were compared with another, equal or not.
    #[cfg(test)]
    pub(crate) fn compared_pages(&self) -> u64 {
        self.compared_pages.load(Ordering::Relaxed)
    }
}
