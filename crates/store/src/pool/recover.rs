//! Taking over a pool: its index, and from that its books.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    Keys, Persistence, Pool,
    entries::{charge, counts},
};
use crate::{
    client::Client,
    counters::Counters,
    dedup::SHARED_POOL,
    directory::{Directory, Places},
    engine::Engine,
    entry::{self, Entry, Place, SharedRef},
    error::StoreError,
    fault_injection::{self, Point},
    files,
    ids::{IndexSlot, PoolId},
    index::{ENTRIES_PER_INDEX_PAGE, INDEX_PAGE_BYTES, Index},
    memory_file::MemoryFile,
    records::PoolRecord,
    stamp::Stamp,
    survey::Survey,
};

/// The files of a pool.
#[derive(Debug)]
pub(crate) struct PoolFiles {
    pub(crate) index: MemoryFile,
    /// `None` for flat keys.
    pub(crate) directory: Option<MemoryFile>,
}

/// What taking over an index found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoundPages {
    pub(crate) whole: u64,
    pub(crate) damaged: u64,
    /// What they count for against their client's cap, in bytes.
    charged_bytes: u64,
}

impl Pool {
    /// A pool over the files it had; its books are empty until [`Pool::recover`]. Gives also how many of its directory's records are
    /// damaged.
    pub(crate) fn reopen(
        id: PoolId,
        record: &PoolRecord,
        files: PoolFiles,
        client: &Client,
        engine: Arc<Engine>,
    ) -> Result<(Self, u64), StoreError> {
        let refused = |source| StoreError::Memory { what: "a directory", source };
        let (directory, damaged) = match (record.keys, files.directory) {
            (Keys::Flat { pages }, _) => (Directory::Flat { pages }, 0),
            (Keys::Sparse { max_pages }, Some(file)) => {
                Directory::recover(max_pages, file).map_err(refused)?
            }
            (Keys::Sparse { .. }, None) => {
                return Err(StoreError::FileMissing { name: files::directory_name(id) });
            }
        };
        let (budget, stock) = (engine.budget.clone(), engine.stock.clone());
        let index = Index::over(files.index, record.keys.pages(), id, budget, stock);
        let client = (client.account(), client.domain(record.persistence));
        let pool = Self::over(id, record.persistence, record.keys, client, engine, directory, index);
        Ok((pool, damaged))
    }

    /// Reads the index and derives from it what the pool holds. An entry that can't be right becomes a damaged one, or for an
    /// ephemeral page none; one that no key leads to is cleared.
    pub(crate) fn recover(&self, survey: &mut Survey) -> Result<FoundPages, StoreError> {
        let places = self.directory.places();
        let mut found = FoundPages::default();
        let mut sum = Counters::default();
        let look = |index_page: u64, cells: &[AtomicU64]| {
            let (population, mut books) = self.look_through(index_page, cells, &places, survey, &mut found);
            if population > 0 {
                books.index_bytes += INDEX_PAGE_BYTES;
            }
            *self.lock(IndexSlot((index_page * ENTRIES_PER_INDEX_PAGE) as u32)) += books;
            sum += books;
            population
        };
        self.index.recover(look).map_err(|source| StoreError::Memory { what: "an index", source })?;
        self.account.adopt(found.charged_bytes + sum.index_bytes, sum.stored_pages());
        found.whole = sum.stored_pages();
        Ok(found)
    }

    /// Counts a page that refers to a shared block. False: it cannot be right.
    fn adopt_shared(&self, shared: SharedRef, survey: &mut Survey) -> bool {
        let Some((domain, _)) = &self.domain else { return false };
        let admit = |place| match place {
            Place::Arena(block) => {
                survey.admit(&self.engine.arena, block, (SHARED_POOL, shared.cell), self.persistence)
            }
            Place::Tier(tiered) => self.engine.tiering.table.admit(tiered),
        };
        let adopted = self.engine.shared_blocks.adopt_page(shared, domain, admit);
        match adopted {
            Some(Some(Place::Arena(block))) => domain.count_new_block(block.block_bytes),
            Some(Some(Place::Tier(tiered))) => self.engine.tiering.count_shared(1, tiered),
            Some(None) | None => {}
        }
        adopted.is_some()
    }

    /// Lets pages be found by their contents again that were here before this process, from that page of the index on; until `until`, but one
    /// page of the index at least. Gives where to go on, `None` when all are done. Each step over an index page has the CPU load what the next
    /// one reads: a page at a time this takes three times as long.
    pub(crate) fn recall(&self, from_index_page: u64, until: Instant) -> Option<u64> {
        let (domain, numbers) = self.domain.as_ref()?;
        if from_index_page == 0 {
            domain.make_room();
        }
        let mut found = Vec::with_capacity(ENTRIES_PER_INDEX_PAGE as usize);
        for index_page in from_index_page..self.index.index_pages() {
            let first = index_page * ENTRIES_PER_INDEX_PAGE;
            if self.index.is_page_empty(IndexSlot(first as u32)) {
                continue;
            }
            let slots = (first..first + ENTRIES_PER_INDEX_PAGE).map(|slot| IndexSlot(slot as u32));
            let locked = self.lock(IndexSlot(first as u32));
            for slot in slots.clone() {
                if let Ok(Entry::Block(block)) = self.index.load(slot) {
                    self.engine.arena.prefetch_header(block);
                }
            }
            for slot in slots {
                let crc = self.index.load(slot).ok().and_then(|entry| self.crc_locked(entry));
                found.extend(crc.zip(numbers.number(slot)));
            }
            drop(locked);
            found.iter().for_each(|(crc, _)| domain.prefetch(*crc));
            found.drain(..).for_each(|(crc, number)| domain.recall(crc, number));
            if Instant::now() >= until {
                return Some(index_page + 1);
            }
        }
        None
    }

    /// Looks through one page of the index: how many entries it holds, and what they stand for.
    fn look_through(
        &self,
        index_page: u64,
        cells: &[AtomicU64],
        places: &Places,
        survey: &mut Survey,
        found: &mut FoundPages,
    ) -> (u32, Counters) {
        let (mut population, mut books) = (0, Counters::default());
        for (slot, cell) in (index_page * ENTRIES_PER_INDEX_PAGE..).zip(cells) {
            let bits = cell.load(Ordering::Acquire);
            if bits == 0 {
                continue;
            }
            let slot = IndexSlot(slot as u32);
            let change = |bits| {
                fault_injection::point(Point::Recovery);
                cell.store(bits, Ordering::Release);
            };
            if !places.contains(slot) {
                found.damaged += 1;
                change(0);
                continue;
            }
            let entry = Entry::decode(bits);
            let is_wrong = match entry {
                Ok(Entry::Block(block)) => {
                    !survey.admit(&self.engine.arena, block, (self.id, slot), self.persistence)
                }
                Ok(Entry::Shared(shared)) => !self.adopt_shared(shared, survey),
                Ok(Entry::Tiered(tiered)) => {
                    self.persistence == Persistence::Ephemeral || !self.engine.tiering.table.admit(tiered)
                }
                Ok(_) => false,
                Err(_) => true,
            };
            if !is_wrong {
                let stamp = Stamp::of(bits);
                let adopted = self.account.ages.adopt(stamp);
                if adopted != stamp {
                    change(adopted.on(bits));
                }
                books.replace(&Counters::default(), &counts(entry));
                found.charged_bytes += charge(entry);
                if let Some((domain, numbers)) = &self.domain {
                    domain.count(*numbers, &Counters::default(), &counts(entry));
                }
            } else {
                found.damaged += 1;
                if self.persistence == Persistence::Ephemeral {
                    change(0);
                    continue;
                } else if entry.is_ok() {
                    change(entry::spoiled(bits));
                }
            }
            population += 1;
        }
        (population, books)
    }
}
