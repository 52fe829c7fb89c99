//! The catalog: which clients and pools there are, in a memory file.
//!
//! ```text
//! | header, 1 page | clients, 512 bytes each | pools, 64 bytes each, by number | ages of clients, 2 KiB each |
//! ```
//!
//! A record's first word is 0 as long as there is nothing; else it holds a checksum of the rest. It is stored last when a client or
//! pool is made and cleared first when one is removed, so either happens by a single store. A pool counts only with its client.
//! What can be changed of a client is a word of its record with a check of its own; so that happens by a single store, too.
//! The file is sparse, 164 MiB at most, and not charged to the limit. A client's ages are in a place of their own beside its record: see
//! [`AgeTable`].

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    age_table::{AGE_TABLE_WORDS, AgeTable},
    client::ClientOptions,
    client_settings::ClientSettings,
    error::StoreError,
    fault_injection::{self, Point},
    files::{self, Files},
    ids::PoolId,
    layout::LAYOUT,
    memory_file::MemoryFile,
    pool::{Keys, Persistence},
    records::{
        CLIENT_WORDS, ClientRecord, FIXED_CLIENT_WORDS, POOL_WORDS, PoolRecord, SETTINGS_WORD, checksum,
    },
};

/// Clients at one time.
const MAX_CLIENTS: usize = 1 << 16;
const MAX_POOLS: usize = 1 << 16;

const HEADER_WORDS: usize = 512;
const CLIENTS_AT: usize = HEADER_WORDS;
const POOLS_AT: usize = CLIENTS_AT + MAX_CLIENTS * CLIENT_WORDS;
const AGES_AT: usize = POOLS_AT + MAX_POOLS * POOL_WORDS;
const ALL_WORDS: usize = AGES_AT + MAX_CLIENTS * AGE_TABLE_WORDS;

/// What the first word of a record has besides the checksum, so that it is never 0.
const LIVE: u64 = 0x4c49_5645 << 32;

/// A client's place in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientSlot(pub(crate) u16);

#[derive(Debug)]
pub(crate) struct Catalog {
    file: Arc<MemoryFile>,
    slots: Mutex<Slots>,
    /// Numbers clients and pools in the order they come.
    next_serial: AtomicU64,
}

/// Which places for clients are free.
#[derive(Debug, Default)]
struct Slots {
    returned: Vec<u16>,
    untouched_from: usize,
}

/// What a catalog holds, in the order it came.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) clients: Vec<(ClientSlot, ClientRecord)>,
    /// Only those whose client is there.
    pub(crate) pools: Vec<(PoolId, PoolRecord)>,
    /// Pools whose client is not there: it was just being removed.
    pub(crate) orphans: Vec<PoolId>,
    /// Clients whose settings are damaged: they are found with the default ones.
    pub(crate) unsettled: Vec<ClientSlot>,
    /// Records and settings that do not fit their checks.
    pub(crate) damaged_records: u64,
}

impl Catalog {
    pub(crate) const BYTES: usize = ALL_WORDS * 8;

    /// An empty catalog. Its header stands before the keeper learns of it.
    pub(crate) fn create(files: &Arc<Files>) -> io::Result<Self> {
        let file = files.create_filled(files::CATALOG, Self::BYTES, |file| {
            LAYOUT
                .iter()
                .zip(file.as_u64s())
                .for_each(|((_, value), cell)| cell.store(*value, Ordering::Relaxed));
        })?;
        Ok(Self::over(file))
    }

    pub(crate) fn over(file: MemoryFile) -> Self {
        Self { file: Arc::new(file), slots: Mutex::default(), next_serial: AtomicU64::new(1) }
    }

    /// Checks that whoever made the file lays everything out as this version does.
    pub(crate) fn check_layout(&self) -> Result<(), StoreError> {
        for ((what, expected), cell) in LAYOUT.iter().zip(self.file.as_u64s()) {
            let found = cell.load(Ordering::Relaxed);
            if found != *expected {
                return Err(StoreError::Layout { what, found, expected: *expected });
            }
        }
        Ok(())
    }

    /// Reads everything; changes nothing in the file.
    pub(crate) fn read(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for range in self.file.held_ranges() {
            let words = range?;
            let words = words.start / 8..words.end / 8;
            for i in records_in(&words, CLIENTS_AT, CLIENT_WORDS, MAX_CLIENTS) {
                let slot = ClientSlot(i as u16);
                let Some(fixed) = self.load::<FIXED_CLIENT_WORDS>(client_at(slot)) else { continue };
                let settings = ClientSettings::parse(self.settings_of(slot).load(Ordering::Relaxed));
                match fixed.and_then(|fixed| ClientRecord::parse(fixed, settings.unwrap_or_default())) {
                    Some(client) => contents.clients.push((slot, client)),
                    None => {
                        contents.damaged_records += 1;
                        continue;
                    }
                }
                if settings.is_none() {
                    contents.damaged_records += 1;
                    contents.unsettled.push(slot);
                }
            }
            for i in records_in(&words, POOLS_AT, POOL_WORDS, MAX_POOLS) {
                match self.load(POOLS_AT + i * POOL_WORDS).map(|words| words.and_then(PoolRecord::parse)) {
                    None => {}
                    Some(Some(pool)) => contents.pools.push((PoolId(i as u16), pool)),
                    Some(None) => contents.damaged_records += 1,
                }
            }
        }
        let slots: std::collections::HashSet<_> = contents.clients.iter().map(|(slot, _)| *slot).collect();
        contents.pools.retain(|(id, pool)| {
            let owned = slots.contains(&pool.client);
            if !owned {
                contents.orphans.push(*id);
            }
            owned
        });
        contents.clients.sort_by_key(|(_, client)| client.serial);
        contents.pools.sort_by_key(|(_, pool)| pool.serial);
        Ok(contents)
    }

    /// Goes on from what was read: clears the records of pools whose clients are gone, sets damaged settings right, and hands out only
    /// free places.
    pub(crate) fn resume(&self, contents: &Contents) {
        contents.unsettled.iter().for_each(|slot| self.set_client(*slot, &ClientSettings::default()));
        contents.orphans.iter().for_each(|pool| self.remove_pool(*pool));
        let taken: std::collections::HashSet<_> = contents.clients.iter().map(|(slot, _)| slot.0).collect();
        let untouched_from = taken.iter().max().map_or(0, |last| usize::from(*last) + 1);
        let returned = (0..untouched_from).map(|slot| slot as u16).filter(|slot| !taken.contains(slot));
        *self.slots() = Slots { returned: returned.collect(), untouched_from };
        let clients = contents.clients.iter().map(|(_, client)| client.serial);
        let last = clients.chain(contents.pools.iter().map(|(_, pool)| pool.serial)).max().unwrap_or(0);
        self.next_serial.store(last.saturating_add(1), Ordering::Relaxed);
    }

    /// Enters a client. Errors: its name is too long, its cap out of bounds, or there are too many.
    pub(crate) fn add_client(&self, options: &ClientOptions) -> Result<ClientSlot, StoreError> {
        let record = ClientRecord { serial: self.serial(), options: options.clone(), frozen: false };
        record.settings().check()?;
        let words = record.words().ok_or_else(|| StoreError::NameTooLong { name: options.name.clone() })?;
        let slot = self.take_slot().ok_or(StoreError::TooManyClients)?;
        self.age_table(slot).clear(); // whose place it was before is nothing to this client
        self.set_client(slot, &record.settings());
        self.store(client_at(slot), &words);
        Ok(slot)
    }

    /// Changes what can be changed of a client.
    pub(crate) fn set_client(&self, slot: ClientSlot, settings: &ClientSettings) {
        fault_injection::point(Point::Catalog);
        self.settings_of(slot).store(settings.word(), Ordering::Release);
    }

    fn settings_of(&self, slot: ClientSlot) -> &AtomicU64 {
        &self.file.as_u64s()[client_at(slot) + SETTINGS_WORD]
    }

    /// Where the ages of a client are.
    pub(crate) fn age_table(&self, slot: ClientSlot) -> AgeTable {
        AgeTable::over(self.file.clone(), AGES_AT + usize::from(slot.0) * AGE_TABLE_WORDS)
    }

    /// Forgets a client, and with it all its pools. Its place stays taken until [`Catalog::free_client`].
    pub(crate) fn remove_client(&self, slot: ClientSlot) {
        self.clear(client_at(slot));
    }

    /// Frees the place of a client that was removed and whose pools all were.
    pub(crate) fn free_client(&self, slot: ClientSlot) {
        self.slots().returned.push(slot.0);
    }

    /// Enters a pool, whose files are there.
    pub(crate) fn add_pool(&self, id: PoolId, client: ClientSlot, persistence: Persistence, keys: Keys) {
        let record = PoolRecord { serial: self.serial(), client, persistence, keys };
        self.store(POOLS_AT + usize::from(id.0) * POOL_WORDS, &record.words());
    }

    /// Forgets a pool, with all its pages.
    pub(crate) fn remove_pool(&self, id: PoolId) {
        self.clear(POOLS_AT + usize::from(id.0) * POOL_WORDS);
    }

    fn serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    fn take_slot(&self) -> Option<ClientSlot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.returned.pop() {
            return Some(ClientSlot(slot));
        }
        if slots.untouched_from == MAX_CLIENTS {
            return None;
        }
        slots.untouched_from += 1;
        Some(ClientSlot((slots.untouched_from - 1) as u16))
    }

    /// The words of a record after its first. `None`: nothing is there. `Some(None)`: it is damaged.
    fn load<const WORDS: usize>(&self, at: usize) -> Option<Option<[u64; WORDS]>> {
        let cells = &self.file.as_u64s()[at..];
        let first = cells[0].load(Ordering::Acquire);
        if first == 0 {
            return None;
        }
        let words = std::array::from_fn(|i| cells[i + 1].load(Ordering::Relaxed));
        Some((first == LIVE | u64::from(checksum(at, &words))).then_some(words))
    }

    fn store<const WORDS: usize>(&self, at: usize, words: &[u64; WORDS]) {
        let cells = &self.file.as_u64s()[at..];
        for (words, cells) in words.chunks(32).zip(cells[1..].chunks(32)) {
            fault_injection::point(Point::Catalog);
            words.iter().zip(cells).for_each(|(word, cell)| cell.store(*word, Ordering::Relaxed));
        }
        fault_injection::point(Point::Catalog);
        cells[0].store(LIVE | u64::from(checksum(at, words)), Ordering::Release);
    }

    fn clear(&self, at: usize) {
        fault_injection::point(Point::Catalog);
        self.file.as_u64s()[at].store(0, Ordering::Release);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a client's record begins, in words.
fn client_at(slot: ClientSlot) -> usize {
    CLIENTS_AT + usize::from(slot.0) * CLIENT_WORDS
}

/// The records that begin in a range of words.
fn records_in(
    words: &std::ops::Range<usize>,
    first: usize,
    record: usize,
    count: usize,
) -> std::ops::Range<usize> {
    let number = |word: usize| word.saturating_sub(first).div_ceil(record).min(count);
    number(words.start)..number(words.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientKind, Weight};

    fn options(name: &str) -> ClientOptions {
        ClientOptions {
            name: name.to_owned(),
            kind: ClientKind::Disk,
            cap_bytes: Some(5),
            weight: Weight::new(7).unwrap(),
            dedup: crate::Dedup::Domain("web".to_owned()),
        }
    }

    fn catalog() -> Catalog {
        Catalog::create(&Files::new(None)).unwrap()
    }

    #[test]
    fn what_is_entered_is_read_in_the_order_it_came() {
        let catalog = catalog();
        let slots: Vec<_> =
            (0..20).map(|i| catalog.add_client(&options(&format!("c{i}"))).unwrap()).collect();
        catalog.remove_client(slots[3]);
        catalog.free_client(slots[3]);
        let late = catalog.add_client(&options("late")).unwrap();
        assert_eq!(late, slots[3]);
        catalog.add_pool(PoolId(40_000), late, Persistence::Ephemeral, Keys::Sparse { max_pages: 9 });
        catalog.add_pool(PoolId(7), slots[0], Persistence::Persistent, Keys::Flat { pages: 8 });
        let contents = catalog.read().unwrap();
        assert_eq!((contents.clients.len(), contents.damaged_records), (20, 0));
        assert_eq!(contents.clients[19].1.options.name, "late");
        let settings = ClientSettings { cap_bytes: Some(5), weight: Weight::new(7).unwrap(), frozen: false };
        assert_eq!(contents.clients[0].1.settings(), settings);
        let ids: Vec<_> = contents.pools.iter().map(|(id, pool)| (id.0, pool.client)).collect();
        assert_eq!(ids, [(40_000, late), (7, slots[0])]);
        assert_eq!(contents.pools[1].1.keys, Keys::Flat { pages: 8 });
    }

    #[test]
    fn a_removed_client_takes_its_pools_along() {
        let catalog = catalog();
        let slot = catalog.add_client(&options("a")).unwrap();
        catalog.add_pool(PoolId(3), slot, Persistence::Persistent, Keys::Flat { pages: 8 });
        catalog.remove_client(slot);
        let contents = catalog.read().unwrap();
        assert_eq!((contents.pools.len(), &contents.orphans[..]), (0, &[PoolId(3)][..]));
        catalog.resume(&contents);
        assert_eq!(catalog.read().unwrap().orphans, []);
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let catalog = catalog();
        let slot = catalog.add_client(&options("a")).unwrap();
        catalog.add_pool(PoolId(3), slot, Persistence::Persistent, Keys::Flat { pages: 8 });
        for (at, words) in [(CLIENTS_AT, CLIENT_WORDS), (POOLS_AT + 3 * POOL_WORDS, POOL_WORDS)] {
            for bit in 0..words * 64 {
                let cell = &catalog.file.as_u64s()[at + bit / 64];
                cell.fetch_xor(1 << (bit % 64), Ordering::Relaxed);
                assert_eq!(catalog.read().unwrap().damaged_records, 1, "bit {bit} of the record at {at}");
                cell.fetch_xor(1 << (bit % 64), Ordering::Relaxed);
            }
        }
        assert_eq!(catalog.read().unwrap().damaged_records, 0);
    }

    #[test]
    fn damaged_settings_cost_nothing_but_themselves() {
        let catalog = catalog();
        let slot = catalog.add_client(&options("a")).unwrap();
        catalog.settings_of(slot).fetch_xor(1 << 8, Ordering::Relaxed);
        let contents = catalog.read().unwrap();
        assert_eq!((contents.damaged_records, &contents.unsettled[..]), (1, &[slot][..]));
        assert_eq!(contents.clients[0].1.settings(), ClientSettings::default());
        assert_eq!(contents.clients[0].1.options.dedup, crate::Dedup::Domain("web".to_owned()));
        catalog.resume(&contents);
        assert_eq!(catalog.read().unwrap().damaged_records, 0);
    }

    #[test]
    fn another_layout_is_refused() {
        let catalog = catalog();
        assert!(catalog.check_layout().is_ok());
        for word in 0..LAYOUT.len() {
            catalog.file.as_u64s()[word].fetch_add(1, Ordering::Relaxed);
            assert!(matches!(catalog.check_layout(), Err(StoreError::Layout { .. })), "word {word}");
            catalog.file.as_u64s()[word].fetch_sub(1, Ordering::Relaxed);
        }
    }
}
