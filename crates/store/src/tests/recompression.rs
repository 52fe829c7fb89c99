//! Recompression of cold pages: rules 1, 4 and 7.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::pages::{TestKeeper, flat_pool, get, page, put, store};
use crate::{
    ClientOptions, Dedup, GetError, Keys, ObjectId, PageIndex, Persistence, Pool, Recompression,
    RecompressionOptions, Store, StoreError,
    block::{self, HEADER_BYTES},
    codec::Codec,
    entry::{BlockRef, Entry},
    ids::IndexSlot,
    tests::pages::client_options,
};

const LONG: Duration = Duration::from_secs(60);

/// A store in which every page is cold at once.
fn cold_store(limit_bytes: u64) -> Arc<Store> {
    let store = store(limit_bytes);
    store.set_recompression(RecompressionOptions { age: Duration::ZERO, ..Default::default() }).unwrap();
    store
}

/// Seeds of pages that LZ4 compresses and Zstandard compresses much further.
fn text(i: u64) -> u32 {
    i as u32 * 5 + 2
}

fn block_of(pool: &Pool, index: u64) -> Option<BlockRef> {
    match pool.index().load(IndexSlot(index as u32)).unwrap() {
        Entry::Block(block) => Some(block),
        _ => None,
    }
}

fn codec_of(store: &Store, pool: &Pool, index: u64) -> Option<Codec> {
    let block = block_of(pool, index)?;
    // SAFETY: nobody else uses the store while a test looks.
    let bytes = unsafe { store.engine().arena.block(block) }.unwrap();
    Some(block::read(bytes).unwrap().0.codec)
}

#[test]
fn r1_r7_recompressed_pages_come_back_and_take_less() {
    let store = cold_store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..10_000).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    let before = store.usage();
    let done = store.recompress(LONG);
    let after = store.usage();
    assert!(!done.more && done.recompressed_pages > 1900 && done.kept_pages > 0, "{done:?}");
    assert_eq!(before.used_bytes - after.used_bytes, done.saved_bytes);
    assert!(before.held_bytes - after.held_bytes > done.saved_bytes * 8 / 10, "{before:?} {after:?}");
    let client = &store.clients()[0];
    assert_eq!(
        (client.recompressed_pages, client.recompression_saved_bytes, client.recompression_kept_pages),
        (done.recompressed_pages, done.saved_bytes, done.kept_pages)
    );
    assert_eq!(after.recompressed_pages, done.recompressed_pages);
    (0..10_000).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32), "page {i}"));
    assert_eq!(store.clients()[0].same_filled_pages, 4000);
    assert_eq!(store.recompress(LONG), Recompression::default(), "it was done before");
    // Every page but those of the extent that is still open is as small as it gets.
    let fresh =
        (0..10_000).filter(|&i| i % 5 == 2 && codec_of(&store, &pool, i) == Some(Codec::Page)).count();
    assert!(fresh < 200, "{fresh} pages left");
    (0..10_000).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    let empty = store.usage();
    assert_eq!((empty.used_bytes, empty.held_bytes, empty.stored_pages), (0, 0, 0));
    assert_eq!(store.engine().arena.allocated_bytes().unwrap(), 0);
}

#[test]
fn r1_r7_shared_blocks_are_recompressed_and_the_books_agree() {
    let store = cold_store(64 << 20);
    let pools = ["a", "b"].map(|name| {
        let dedup = Dedup::Domain("web".to_owned());
        let client = store.create_client(ClientOptions { dedup, ..client_options(name, None) }).unwrap();
        client.create_pool(Persistence::Persistent, Keys::Flat { pages: 10_000 }).unwrap()
    });
    (0..2000).for_each(|i| pools.iter().for_each(|pool| put(pool, 0, i, text(i)).unwrap()));
    let before = store.usage();
    let shared_pages: u64 = store.clients().iter().map(|client| client.dedup_pages).sum();
    assert!(shared_pages > 3800, "{shared_pages}");
    let done = store.recompress(LONG);
    let after = store.usage();
    assert!(done.recompressed_pages > 1800, "{done:?}");
    assert_eq!(before.used_bytes - after.used_bytes, done.saved_bytes);
    assert_eq!(after.recompressed_pages, done.recompressed_pages);
    let check = || {
        for pool in &pools {
            (0..2000).for_each(|i| assert!(*get(pool, 0, i).unwrap().unwrap() == page(text(i)), "page {i}"));
        }
    };
    check();
    assert_eq!(store.recompress(LONG), Recompression::default(), "it was done before");
    // They are still found by their contents, whichever way those are compressed, and go one by one.
    (2000..4000).for_each(|i| put(&pools[0], 0, i, text(i - 2000)).unwrap());
    assert!(store.usage().compressed_bytes - after.compressed_bytes < after.compressed_bytes / 10);
    check();
    pools[0].flush_object(ObjectId(0));
    (0..2000).for_each(|i| assert!(*get(&pools[1], 0, i).unwrap().unwrap() == page(text(i)), "page {i}"));
    pools[1].flush_object(ObjectId(0));
    let empty = store.usage();
    assert_eq!((empty.used_bytes, empty.compressed_bytes, empty.held_bytes), (0, 0, 0));
}

#[test]
fn a_shared_block_is_cold_when_it_was_not_used_since_the_last_look() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100);
    (0..2).for_each(|i| put(&pool, 0, i, text(1)).unwrap());
    let Ok(Entry::Shared(shared)) = pool.index().load(IndexSlot(0)) else { panic!("not shared") };
    let cells = &store.engine().shared_blocks;
    let block = cells.block(shared.cell).unwrap();
    let is_cold = |whatever_its_use| cells.cold_in(shared.cell, block, whatever_its_use).is_some();
    assert!(!is_cold(false), "it was just put");
    assert!(is_cold(false));
    for use_it in
        [|pool: &Pool| get(pool, 0, 1).map(drop).unwrap(), |pool: &Pool| put(pool, 0, 2, text(1)).unwrap()]
    {
        use_it(&pool);
        assert!(!is_cold(false) && is_cold(false));
    }
    get(&pool, 0, 0).unwrap();
    assert!(is_cold(true), "in a store that is nearly full nothing is too young");
    pool.flush_object(ObjectId(0));
    assert!(!is_cold(true), "there is no such block");
}

#[test]
fn r1_shared_blocks_are_found_again_after_they_were_recompressed() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(64 << 20);
    store.set_recompression(RecompressionOptions { age: Duration::ZERO, ..Default::default() }).unwrap();
    let pool = flat_pool(&store, "a", 10_000);
    (0..2000).for_each(|i| put(&pool, 0, i, text(i % 500)).unwrap());
    assert!(store.recompress(LONG).recompressed_pages > 400);
    let before = store.usage();
    store.detach();
    drop((store, pool));
    let (store, recovery) = keeper.open(64 << 20);
    assert_eq!((recovery.found_pages, recovery.damaged_pages), (2000, 0));
    let after = store.usage();
    assert_eq!(after.compressed_bytes, before.compressed_bytes);
    // The table by which pages are found may be a page larger when all come at once.
    assert!(after.used_bytes.abs_diff(before.used_bytes) <= 4096, "{after:?} {before:?}");
    let pool = store.client("a").unwrap().pools().remove(0);
    (0..2000).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(text(i % 500)), "page {i}"));
    pool.flush_object(ObjectId(0));
    assert_eq!(store.usage().held_bytes, 0);
}

#[test]
fn what_gains_little_is_tried_once_and_compaction_does_not_undo_it() {
    let store = cold_store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    let noise = |i: u64| i as u32 * 5 + 4;
    (0..3000).for_each(|i| put(&pool, 0, i, if i % 2 == 0 { noise(i) } else { text(i) }).unwrap());
    let done = store.recompress(LONG);
    assert!(done.kept_pages > 1400 && done.recompressed_pages > 1400, "{done:?}");
    let raw = store.clients()[0].raw_pages;
    assert_eq!(raw, 1500, "noise stays as it is");
    // Most of it goes; what is left is moved together, and neither tried again nor turned back.
    (0..3000).filter(|i| i % 10 > 1).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    let moved = store.compact(LONG);
    assert!(moved.emptied_extents > 10, "{moved:?}");
    assert_eq!(store.recompress(LONG), Recompression::default());
    let zstd = (0..3000).filter(|&i| codec_of(&store, &pool, i) == Some(Codec::Zstd)).count();
    assert!(zstd >= 280, "{zstd} of 300");
    for i in (0..3000).filter(|i| i % 10 <= 1) {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(if i % 2 == 0 { noise(i) } else { text(i) }));
    }
}

#[test]
fn only_pages_of_that_age_are_recompressed() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..2000).for_each(|i| put(&pool, 0, i, text(i)).unwrap());
    assert_eq!(store.recompress(LONG), Recompression::default(), "they are too young");
    store.set_recompression(RecompressionOptions { enabled: false, age: Duration::ZERO, level: 1 }).unwrap();
    assert_eq!(store.recompress(LONG), Recompression::default(), "it is off");
    let error =
        store.set_recompression(RecompressionOptions { level: 20, ..Default::default() }).unwrap_err();
    assert!(matches!(error, StoreError::RecompressionLevel { level: 20 }));
    assert!(error.to_string().contains("1 to 19"), "{error}");
    store.set_recompression(RecompressionOptions { enabled: true, age: Duration::ZERO, level: 1 }).unwrap();
    assert!(store.recompress(LONG).recompressed_pages > 1800);
}

#[test]
fn a_full_store_recompresses_whatever_its_age_and_takes_more_pages() {
    let store = store(4 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let full_at = (0..).find(|&i| put(&pool, 0, i, text(i)).is_err()).unwrap();
    let mut stored = full_at;
    while store.recompress(LONG).recompressed_pages > 0 {
        let usage = store.usage();
        assert!(usage.held_bytes <= usage.limit_bytes);
        stored += (stored..).take_while(|&i| put(&pool, 0, i, text(i)).is_ok()).count() as u64;
    }
    assert!(stored > full_at * 5 / 4, "{stored} pages instead of {full_at}");
    (0..stored).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(text(i)), "page {i}"));
    // Recompression and compaction get on with each other at the limit.
    for round in 0..20 {
        store.recompress(LONG);
        store.compact(LONG);
        (0..full_at).step_by(7).for_each(|i| {
            let _may_be_refused = put(&pool, 0, i, text(i + round));
        });
        assert!(store.usage().held_bytes <= store.usage().limit_bytes);
    }
    pool.flush_object(ObjectId(0));
    let empty = store.usage();
    assert_eq!((empty.used_bytes, empty.held_bytes, empty.stored_pages), (0, 0, 0));
}

#[test]
fn r4_any_flipped_bit_of_a_recompressed_block_is_an_error() {
    let store = cold_store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    (0..400).for_each(|i| put(&pool, 0, i, text(i)).unwrap());
    store.recompress(LONG);
    let index = (0..400).find(|&i| codec_of(&store, &pool, i) == Some(Codec::Zstd)).unwrap();
    let block = block_of(&pool, index).unwrap();
    // SAFETY: this thread is the only one that uses the store.
    let bytes = unsafe { store.engine().arena.block(block) }.unwrap();
    let payload_bytes = usize::from(block::read(bytes).unwrap().0.payload_bytes);
    for bit in 0..(HEADER_BYTES + payload_bytes) * 8 {
        let flip = || {
            // SAFETY: this thread is the only one that uses the store.
            unsafe { store.engine().arena.block_mut(block) }.unwrap()[bit / 8] ^= 1 << (bit % 8);
        };
        flip();
        assert_eq!(get(&pool, 0, index), Err(GetError::Damaged), "bit {bit}");
        flip();
    }
    assert!(*get(&pool, 0, index).unwrap().unwrap() == page(text(index)));
}

#[test]
fn r4_recompression_keeps_clear_of_damage() {
    let store = cold_store(64 << 20);
    let pool = flat_pool(&store, "a", 10_000);
    (0..4000).for_each(|i| put(&pool, 0, i, text(i)).unwrap());
    let damaged = block_of(&pool, 1000).unwrap();
    // SAFETY: this thread is the only one that uses the store.
    unsafe { store.engine().arena.block_mut(damaged) }.unwrap()[20] ^= 4;
    pool.index().flip_bit(IndexSlot(2000), 30);
    assert!(store.recompress(LONG).recompressed_pages > 3000);
    for i in 0..4000 {
        match get(&pool, 0, i) {
            Ok(found) => assert!(*found.unwrap() == page(text(i))),
            Err(error) => assert!(error == GetError::Damaged && (i == 1000 || i == 2000)),
        }
    }
}

#[test]
fn r3_ephemeral_pages_are_left_alone() {
    let store = cold_store(8 << 20);
    let client = store.create_client(client_options("cache", None)).unwrap();
    let keys = crate::Keys::Sparse { max_pages: 1 << 20 };
    let cache = client.create_pool(crate::Persistence::Ephemeral, keys).unwrap();
    (0..1000).for_each(|i| put(&cache, 1, i, text(i)).unwrap());
    assert_eq!(store.recompress(LONG), Recompression::default());
}

/// Puts, gets and flushes at random, of pages that name their index and version, and checks every get.
fn work(pool: &Pool, half: u64, done: &AtomicBool) {
    let mut versions = vec![None; 2000];
    let mut state = half * 77 + 1;
    let mut round = 0;
    while round < 20_000 || !done.load(Ordering::Relaxed) {
        round += 1;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) % 2000;
        let index = at * 2 + half;
        let seed = |version: u32| index as u32 * 500 + version * 5 + 2 + (index % 3) as u32;
        match state >> 60 {
            0..4 => {
                put(pool, 0, index, seed(round % 100)).unwrap();
                versions[at as usize] = Some(round % 100);
            }
            4 => {
                pool.flush_page(ObjectId(0), PageIndex(index));
                versions[at as usize] = None;
            }
            _ => match versions[at as usize] {
                Some(version) => assert!(*get(pool, 0, index).unwrap().unwrap() == page(seed(version))),
                None => assert_eq!(get(pool, 0, index), Ok(None)),
            },
        }
    }
}

#[test]
fn r1_r7_pages_come_back_while_threads_use_them_and_they_are_recompressed() {
    let store = cold_store(64 << 20);
    let pool = flat_pool(&store, "a", 4000);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers = [0, 1].map(|half| {
            let (pool, done) = (&pool, &done);
            scope.spawn(move || work(pool, half, done))
        });
        let mut recompressed = 0;
        while workers.iter().any(|worker| !worker.is_finished()) {
            done.store(recompressed > 5000, Ordering::Relaxed);
            recompressed += store.recompress(Duration::from_millis(2)).recompressed_pages;
            store.compact(Duration::from_millis(1));
            store.tend_ages(Duration::from_millis(1));
        }
    });
    pool.flush_object(ObjectId(0));
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!(store.engine().arena.allocated_bytes().unwrap(), 0);
}

#[test]
fn clients_come_and_go_while_their_pages_are_recompressed() {
    let store = cold_store(16 << 20);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            for round in 0..40 {
                let client = store.create_client(client_options("guest", None)).unwrap();
                let keys = crate::Keys::Flat { pages: 1000 };
                let pool = client.create_pool(crate::Persistence::Persistent, keys).unwrap();
                (0..600).for_each(|i| put(&pool, 0, i, text(i + round)).unwrap());
                (0..600).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(text(i + round))));
                store.remove_client(&client).unwrap();
            }
        });
        while !worker.is_finished() {
            store.recompress(Duration::from_millis(1));
        }
    });
    assert_eq!(store.usage().held_bytes, 0);
}
