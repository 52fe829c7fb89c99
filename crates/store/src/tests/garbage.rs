//! Garbage anywhere in the memory files: opening them and going on is never a crash and never shows a wrong page, least of all one
//! of another dedup domain.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;

use super::pages::{TestKeeper, client_options, get, page, put};
use crate::{
    Client, ClientOptions, Dedup, Keys, ObjectId, PageIndex, Persistence, Pool, Store, StoreError,
    StoreOptions,
    block::{MAX_BLOCK_BYTES, PayloadCrc},
    entry::{BlockRef, ContentsTag, Entry, SharedRef},
    ids::{ArenaOffset, IndexSlot},
    memory_file::MemoryFile,
};

const LIMIT: u64 = 3 << 20;
const PAGES: u64 = 400;
/// About as many as are in use.
const CELLS: u32 = 300;

/// A pool of a client of its own, in a dedup domain.
struct Filled {
    name: &'static str,
    domain: u32,
    persistence: Persistence,
    is_flat: bool,
}

/// Clients alone, two in one domain and one in another. Neighbouring pages are equal, and so are those of clients in one domain.
const FILLED: [Filled; 6] = [
    Filled { name: "disk", domain: 0, persistence: Persistence::Persistent, is_flat: true },
    Filled { name: "sparse", domain: 1, persistence: Persistence::Persistent, is_flat: false },
    Filled { name: "cache", domain: 2, persistence: Persistence::Ephemeral, is_flat: false },
    Filled { name: "web-1", domain: 3, persistence: Persistence::Persistent, is_flat: true },
    Filled { name: "web-2", domain: 3, persistence: Persistence::Persistent, is_flat: true },
    Filled { name: "db", domain: 4, persistence: Persistence::Persistent, is_flat: true },
];

fn dedup(domain: u32) -> Dedup {
    match domain {
        3 => Dedup::Domain("web".to_owned()),
        4 => Dedup::Domain("db".to_owned()),
        _ => Dedup::Alone,
    }
}

/// What a page of a domain is filled with: no other domain has such contents.
fn seed(domain: u32, index: u64) -> u32 {
    index as u32 / 2 * 8 + domain
}

#[derive(Clone, Debug)]
enum Garbage {
    Flip(u32),
    Word(u64),
    /// An entry whose check is right.
    Block {
        offset: u64,
        block_bytes: u16,
    },
    /// One that names a cell.
    Shared {
        cell: u32,
        block_bytes: u16,
        crc: u32,
    },
    /// What stands elsewhere in the files.
    Copy(usize, u16),
}

/// Where: in the n-th file, at so many 65536ths of what the OS holds of it.
type Change = (usize, u16, Garbage);

fn change() -> impl Strategy<Value = Change> {
    let near = 0..(LIMIT / 8);
    let garbage = prop_oneof![
        (0..64u32).prop_map(Garbage::Flip),
        any::<u64>().prop_map(Garbage::Word),
        (prop_oneof![4 => near, 1 => 0..(1u64 << 37)], 3..=514u16)
            .prop_map(|(unit, length)| Garbage::Block { offset: unit * 8, block_bytes: length * 8 }),
        (
            0..CELLS,
            prop_oneof![Just(MAX_BLOCK_BYTES), (3..=514u16).prop_map(|length| length * 8)],
            any::<u32>()
        )
            .prop_map(|(cell, block_bytes, crc)| Garbage::Shared { cell, block_bytes, crc }),
        (0..60usize, any::<u16>()).prop_map(|(file, at)| Garbage::Copy(file, at)),
    ];
    (0..60usize, any::<u16>(), garbage)
}

fn open_file(keeper: &TestKeeper, number: usize) -> MemoryFile {
    let mut files = keeper.files();
    let (_, file): (String, OwnedFd) = files.swap_remove(number % files.len());
    let len = rustix::fs::fstat(&file).unwrap().st_size as usize;
    MemoryFile::open(file, len).unwrap()
}

/// So far into what the OS holds of a file.
fn word(file: &MemoryFile, at: u16) -> Option<&AtomicU64> {
    let held: Vec<_> = file.held_ranges().flat_map(|range| range.unwrap()).step_by(8).collect();
    let place = held.get((usize::from(at) * held.len()) >> 16)?;
    Some(&file.as_u64s()[place / 8])
}

fn spoil(keeper: &TestKeeper, (file, at, garbage): &Change) {
    let file = open_file(keeper, *file);
    let Some(cell) = word(&file, *at) else { return };
    let bits = match *garbage {
        Garbage::Flip(bit) => cell.load(Ordering::Relaxed) ^ 1 << bit,
        Garbage::Word(bits) => bits,
        Garbage::Block { offset, block_bytes } => {
            Entry::Block(BlockRef { offset: ArenaOffset(offset), block_bytes }).encode()
        }
        Garbage::Shared { cell, block_bytes, crc } => {
            let contents = ContentsTag::of(PayloadCrc(crc));
            Entry::Shared(SharedRef { cell: IndexSlot(cell), block_bytes, contents }).encode()
        }
        Garbage::Copy(from, at) => {
            word(&open_file(keeper, from), at).map_or(0, |word| word.load(Ordering::Relaxed))
        }
    };
    // What looks whole and says another word is beyond what 8 bits of check can find.
    if !matches!(Entry::decode(bits), Ok(Entry::SameFilled(_))) {
        cell.store(bits, Ordering::Relaxed);
    }
}

fn filled() -> Arc<TestKeeper> {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    for Filled { name, domain, persistence, is_flat } in FILLED {
        let keys = if is_flat { Keys::Flat { pages: PAGES } } else { Keys::Sparse { max_pages: 1 << 20 } };
        let pool = new_client(&store, name, domain).create_pool(persistence, keys).unwrap();
        (0..PAGES / 2).for_each(|i| put(&pool, 0, i, seed(domain, i)).unwrap());
    }
    store.detach();
    keeper
}

fn new_client(store: &Store, name: &str, domain: u32) -> Arc<Client> {
    store.create_client(ClientOptions { dedup: dedup(domain), ..client_options(name, None) }).unwrap()
}

/// What is found is right; the rest is an error, or absent.
fn check(pool: &Pool, seed: impl Fn(u64) -> u32) {
    for i in 0..PAGES {
        if let Ok(Some(found)) = get(pool, 0, i) {
            assert!(*found == page(seed(i)), "page {i}");
        }
    }
}

fn for_each_pool(store: &Store, work: impl Fn(&Filled, &Pool)) {
    for filled in &FILLED {
        let pools = store.client(filled.name).iter().flat_map(|client| client.pools()).collect::<Vec<_>>();
        pools.iter().for_each(|pool| work(filled, pool));
    }
}

/// Nothing of another domain is found, ever. An entry that looks whole and names another cell of its own domain, which takes a
/// misdirected write, shows that cell's page.
fn check_all(store: &Store) {
    for_each_pool(store, |filled, pool| {
        for i in 0..PAGES {
            if let Ok(Some(found)) = get(pool, 0, i) {
                let is = |index| *found == page(seed(filled.domain, index));
                assert!(is(i) || (0..PAGES).any(is), "{} has a foreign page {i}", filled.name);
            }
        }
    });
}

fn go_on(store: &Store) {
    check_all(store);
    // Two that come now, into a domain of its own and into one that was there. They store other pages, and the latter also such as
    // are there.
    let keys = Keys::Flat { pages: PAGES };
    let alone = new_client(store, "new", 0).create_pool(Persistence::Persistent, keys).unwrap();
    let web = new_client(store, "web-3", 3).create_pool(Persistence::Persistent, keys).unwrap();
    let new_seed = |i| 10_000 + (i * 5 + 4) as u32;
    for round in 0..3 {
        (0..PAGES).for_each(|i| {
            let _may_be_refused = put(&alone, 0, i, new_seed(i));
            let _may_be_refused = put(&web, 0, i, seed(3, i));
        });
        store.compact(Duration::from_secs(5));
        check_all(store);
        for_each_pool(store, |_, pool| {
            (0..PAGES).filter(|i| i % 3 == round).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
        });
        check(&alone, new_seed);
        check(&web, |i| seed(3, i));
    }
    // Nobody's page was taken away for another's.
    let last_seed = |i| 20_000 + (i * 5 + 3) as u32;
    (0..PAGES).for_each(|i| {
        for (pool, seed) in [(&alone, last_seed(i)), (&web, seed(3, i))] {
            if put(pool, 0, i, seed).is_ok() {
                assert!(*get(pool, 0, i).unwrap().unwrap() == page(seed));
            }
        }
    });
    check(&alone, last_seed);
    check(&web, |i| seed(3, i));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn r4_garbage_in_the_files_is_an_error_or_nothing(changes in proptest::collection::vec(change(), 1..60)) {
        let keeper = filled();
        let names = keeper.names();
        changes.iter().for_each(|change| spoil(&keeper, change));
        match Store::open(keeper.files(), StoreOptions { limit_bytes: LIMIT }, Some(keeper.clone())) {
            Ok((store, _)) => go_on(&store),
            Err(StoreError::Layout { .. }) => prop_assert_eq!(keeper.names(), names),
            Err(error) => panic!("{error}"),
        }
    }
}
