//! Garbage anywhere in the memory files: opening them and going on is never a crash and never shows a wrong page.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proptest::prelude::*;

use super::pages::{TestKeeper, client_options, get, page, put};
use crate::{
    Keys, ObjectId, Persistence, Pool, Store, StoreError, StoreOptions,
    entry::{BlockRef, Entry},
    ids::ArenaOffset,
    memory_file::MemoryFile,
};

const LIMIT: u64 = 3 << 20;
const PAGES: u64 = 400;

#[derive(Clone, Debug)]
enum Garbage {
    Flip(u32),
    Word(u64),
    /// An entry whose check is right.
    Block {
        offset: u64,
        block_bytes: u16,
    },
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
    ];
    (0..8usize, any::<u16>(), garbage)
}

fn spoil(file: &MemoryFile, at: u16, garbage: &Garbage) {
    let held: Vec<_> = file.held_ranges().flat_map(|range| range.unwrap()).step_by(8).collect();
    let Some(place) = held.get((usize::from(at) * held.len()) >> 16) else { return };
    let cell = &file.as_u64s()[place / 8];
    let word = match *garbage {
        Garbage::Flip(bit) => cell.load(Ordering::Relaxed) ^ 1 << bit,
        Garbage::Word(word) => word,
        Garbage::Block { offset, block_bytes } => {
            Entry::Block(BlockRef { offset: ArenaOffset(offset), block_bytes }).encode()
        }
    };
    // What looks whole and says another word is beyond what 8 bits of check can find.
    if !matches!(Entry::decode(word), Ok(Entry::SameFilled(_))) {
        cell.store(word, Ordering::Relaxed);
    }
}

fn filled() -> Arc<TestKeeper> {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    for (name, persistence, keys) in [
        ("disk", Persistence::Persistent, Keys::Flat { pages: PAGES }),
        ("sparse", Persistence::Persistent, Keys::Sparse { max_pages: 1 << 20 }),
        ("cache", Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 20 }),
    ] {
        let client = store.create_client(client_options(name, None)).unwrap();
        let pool = client.create_pool(persistence, keys).unwrap();
        (0..PAGES / 2).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    }
    store.detach();
    keeper
}

/// What is found is right; the rest is an error, or absent.
fn check(pool: &Pool, seed: impl Fn(u64) -> u32) {
    for i in 0..PAGES {
        if let Ok(Some(found)) = get(pool, 0, i) {
            assert!(*found == page(seed(i)), "page {i}");
        }
    }
}

fn go_on(store: &Store) {
    for name in ["disk", "sparse", "cache"] {
        for pool in store.client(name).iter().flat_map(|client| client.pools()) {
            check(&pool, |i| i as u32);
        }
    }
    let Ok(client) = store.create_client(client_options("new", None)) else { return };
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: PAGES }).unwrap();
    for round in 0..3 {
        (0..PAGES).for_each(|i| {
            let _may_be_refused = put(&pool, 0, i, (i * 5 + 4) as u32);
        });
        store.compact(Duration::from_secs(5));
        for name in ["disk", "sparse", "cache"] {
            for pool in store.client(name).iter().flat_map(|client| client.pools()) {
                check(&pool, |i| i as u32);
                (0..PAGES).filter(|i| i % 3 == round).for_each(|i| {
                    pool.flush_page(ObjectId(0), crate::PageIndex(i));
                });
            }
        }
        check(&pool, |i| (i * 5 + 4) as u32);
    }
    // Nobody's page was taken away for another's.
    (0..PAGES).for_each(|i| {
        if put(&pool, 0, i, (i * 5 + 3) as u32).is_ok() {
            assert!(*get(&pool, 0, i).unwrap().unwrap() == page((i * 5 + 3) as u32));
        }
    });
    check(&pool, |i| (i * 5 + 3) as u32);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn r4_garbage_in_the_files_is_an_error_or_nothing(changes in proptest::collection::vec(change(), 1..60)) {
        let keeper = filled();
        let names = keeper.names();
        for (number, at, garbage) in &changes {
            let (_, file): (String, OwnedFd) = keeper.files().swap_remove(number % names.len());
            let len = rustix::fs::fstat(&file).unwrap().st_size as usize;
            spoil(&MemoryFile::open(file, len).unwrap(), *at, garbage);
        }
        match Store::open(keeper.files(), StoreOptions { limit_bytes: LIMIT }, Some(keeper.clone())) {
            Ok((store, _)) => go_on(&store),
            Err(StoreError::Layout { .. }) => prop_assert_eq!(keeper.names(), names),
            Err(error) => panic!("{error}"),
        }
    }
}
