//! A put is refused only when there is no room, whatever else goes on.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::pages::{client_options, flat_pool, get, page, put, store};
use crate::{Keys, ObjectId, PageIndex, Persistence, PutError};

/// Seeds whose pages do not compress.
fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

#[test]
fn r2_overwrites_of_a_store_that_is_three_quarters_live_are_never_refused() {
    let store = store(16 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let pages = (12 << 20) / 4124;
    (0..pages).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4u64 {
            let (pool, refused) = (&pool, &refused);
            scope.spawn(move || {
                for round in 0..6000 {
                    let i = (round * 7919 + thread * 13) % (pages / 4) * 4 + thread;
                    if i < pages && put(pool, 0, i, noise(i + 4 * round)).is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 0);
}

#[test]
fn r2_dead_bytes_make_room_for_index_pages() {
    let store = store(4 << 20);
    let pool = flat_pool(&store, "a", 1 << 24);
    let full_at = (0..).find(|&i| put(&pool, 0, i, noise(i)).is_err()).unwrap();
    (0..full_at).filter(|i| i % 2 == 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    for i in 0..150 {
        assert_eq!(put(&pool, 0, 10_000 + i * 512, noise(i)), Ok(()), "block and index page {i}");
        assert_eq!(put(&pool, 0, 200_000 + i * 512, 0), Ok(()), "index page {i}");
    }
}

#[test]
fn r3_dead_bytes_make_room_for_ephemeral_pages() {
    let store = store(4 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let full_at = (0..).find(|&i| put(&pool, 0, i, noise(i)).is_err()).unwrap();
    (0..full_at).filter(|i| i % 2 == 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 16 }).unwrap();
    (0..100).for_each(|i| assert_eq!(put(&cache, 1, i, noise(i)), Ok(())));
}

#[test]
fn r3_zero_pages_of_a_cache_give_way_too() {
    let store = store(2 << 20);
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 24 }).unwrap();
    // Each on an index page of its own, or nearly.
    (0..2000).for_each(|object| {
        (0..32).for_each(|leaf| {
            let _may_be_refused = put(&cache, object, leaf * 16, 0);
        })
    });
    let pool = flat_pool(&store, "a", 1 << 20);
    assert!((0..400).all(|i| put(&pool, 0, i, noise(i)).is_ok()));
}

#[test]
fn r7_a_lower_limit_is_reached_by_compaction_and_eviction() {
    let store = store(32 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 16 }).unwrap();
    (0..4000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    (0..2000).for_each(|i| put(&cache, 1, i, noise(i)).unwrap());
    (0..4000).filter(|i| i % 4 != 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    store.set_limit_bytes(8 << 20).unwrap();
    store.compact(Duration::from_secs(30));
    let usage = store.usage();
    assert!(usage.held_bytes <= usage.limit_bytes, "{usage:?}");
    (0..4000)
        .filter(|i| i % 4 == 0)
        .for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
    assert_eq!(put(&pool, 0, 5000, noise(5)), Ok(()));
}

#[test]
fn a_cache_whose_pages_were_evicted_takes_new_ones() {
    let store = store(2 << 20);
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 16_000 }).unwrap();
    for object in 0..40 {
        let taken = (0..100).filter(|i| put(&cache, object, i * 16, noise(*i)).is_ok()).count();
        assert_eq!(taken, 100, "object {object}");
    }
    assert_eq!(put(&cache, u64::MAX, u64::MAX, 3), Ok(()));
    assert_ne!(put(&cache, 7, 7, 3), Err(PutError::NoSuchPage));
}
