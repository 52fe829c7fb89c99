//! The rules of docs/design.md, each shown by itself.

use std::time::Duration;

use super::pages::{client_options, flat_pool, get, page, put, store};
use crate::{
    ClientOptions, Compaction, Dedup, GetError, Keys, ObjectId, PAGE_BYTES, PageIndex, Persistence, PutError,
    StoreError, extents::EXTENT_BYTES,
};

/// Seeds whose pages do not compress.
fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

#[test]
fn r1_every_accepted_page_comes_back_though_the_pool_is_full() {
    let store = store(4 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let accepted: Vec<u64> = (0..4000).filter(|&i| put(&pool, 0, i, i as u32).is_ok()).collect();
    assert!((900..4000).contains(&accepted.len()), "{} accepted", accepted.len());
    for &i in &accepted {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32), "page {i}");
    }
}

#[test]
fn r2_a_refused_put_leaves_no_older_page() {
    let store = store(1 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    assert_eq!(put(&pool, 0, 7, 1), Ok(()));
    let refused = (1000..).find(|&i| put(&pool, 0, i, noise(i)).is_err()).unwrap();
    assert_eq!(get(&pool, 0, refused), Ok(None), "it was never there");
    // Page 7 needs no block: forgetting it makes no room for a page of noise.
    assert_eq!(put(&pool, 0, 7, noise(1)), Err(PutError::Full));
    assert_eq!(get(&pool, 0, 7), Err(GetError::Refused));
    assert_eq!(store.clients()[0].refused_puts, 2);
    assert_eq!(put(&pool, 0, 7, 0), Ok(()), "a page that needs no block still fits");
    assert!(*get(&pool, 0, 7).unwrap().unwrap() == page(0));
}

#[test]
fn r2_pages_that_do_not_compress_well_enough_are_refused_and_leave_nothing_older() {
    let store = store(8 << 20);
    let client = store.create_client(client_options("a", None)).unwrap();
    for (persistence, lost) in
        [(Persistence::Persistent, Err(GetError::Refused)), (Persistence::Ephemeral, Ok(None))]
    {
        let pool = client.create_pool(persistence, Keys::Sparse { max_pages: 1000 }).unwrap();
        let before = client.usage();
        store.set_max_payload_bytes(PAGE_BYTES as u32);
        (0..5).for_each(|seed| put(&pool, 0, u64::from(seed), seed).unwrap());
        // Noise takes a page, half noise more than half of one.
        for (most, refused) in [(PAGE_BYTES - 1, &[4][..]), (PAGE_BYTES / 2, &[3, 4])] {
            store.set_max_payload_bytes(most as u32);
            for i in 0..5 {
                let refused = refused.contains(&i);
                assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32), "what is stored stays");
                let error = refused.then_some(PutError::Incompressible);
                assert_eq!(put(&pool, 0, i, i as u32 + 5).err(), error, "{most} bytes, page {i}");
                assert_eq!(put(&pool, 7, i, i as u32).err(), error, "{most} bytes, page {i}");
                let got = get(&pool, 0, i);
                assert!(if refused { got == lost } else { *got.unwrap().unwrap() == page(i as u32 + 5) });
                assert_eq!(get(&pool, 7, i).is_ok_and(|found| found.is_some()), !refused);
                store.set_max_payload_bytes(PAGE_BYTES as u32);
                put(&pool, 0, i, i as u32).unwrap();
                store.set_max_payload_bytes(most as u32);
            }
            pool.flush_object(ObjectId(7));
        }
        let after = client.usage();
        assert_eq!(after.incompressible_puts - before.incompressible_puts, 6);
        assert_eq!(after.refused_puts - before.refused_puts, 6);
    }
}

#[test]
fn r2_a_full_pool_takes_a_page_in_place_of_its_older_self() {
    let store = store(1 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let full_at = (0..).find(|&i| put(&pool, 0, i, noise(i)).is_err()).unwrap();
    for i in 0..full_at {
        assert_eq!(put(&pool, 0, i, noise(i + 1)), Ok(()));
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i + 1)));
    }
}

#[test]
fn r3_ephemeral_pages_give_way_and_are_never_stale() {
    let store = store(2 << 20);
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 20 }).unwrap();
    (0..2000).for_each(|i| put(&cache, i % 7, i, noise(i)).unwrap()); // far more than fits
    let pool = flat_pool(&store, "a", 1 << 20);
    let persistent = (0..).take_while(|&i| put(&pool, 0, i, noise(i)).is_ok()).count();
    assert!(persistent > 400, "only {persistent} pages got in beside the cache");
    for i in 0..2000 {
        assert!(get(&cache, i % 7, i).unwrap().is_none_or(|found| *found == page(noise(i))));
    }
    for i in 0..persistent as u64 {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i)));
    }
    assert!(store.clients()[0].evicted_pages > 1000);
}

#[test]
fn r6_a_client_neither_sees_nor_evicts_anothers_pages() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 1000);
    (0..100).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    let other = store.create_client(client_options("b", Some(1 << 20))).unwrap();
    let other_pool = other.create_pool(Persistence::Persistent, Keys::Flat { pages: 1000 }).unwrap();
    assert_eq!(get(&other_pool, 0, 5), Ok(None));
    other_pool.flush_object(ObjectId(0));
    assert!((0..1000).any(|i| put(&other_pool, 0, i, noise(i)) == Err(PutError::OverCap)));
    assert!(other.usage().used_bytes <= 1 << 20);
    other.destroy_pool(&pool); // not its own
    store.remove_client(&other).unwrap();
    (0..100).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
}

#[test]
fn r7_after_everything_is_flushed_the_memory_is_back() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..20_000).for_each(|i| put(&pool, 0, i * 5, i as u32).unwrap());
    let full = store.usage();
    assert!(full.held_bytes > 10 << 20 && full.held_bytes <= full.limit_bytes);
    assert!(
        store.engine().arena.allocated_bytes().unwrap() + pool.index().allocated_bytes().unwrap()
            <= full.held_bytes
    );
    (0..20_000).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i * 5)));
    let empty = store.usage();
    assert_eq!((empty.used_bytes, empty.held_bytes, empty.stored_pages), (0, 0, 0));
    assert_eq!(store.engine().arena.allocated_bytes().unwrap(), 0);
    assert_eq!(pool.index().allocated_bytes().unwrap(), 0);
    assert_eq!(store.clients()[0].flushes, 20_000);
    assert_eq!(store.clients()[0].peak_stored_pages, 20_000);
}

#[test]
fn r7_memory_of_forgotten_pages_comes_back_by_compaction() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..20_000).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    (0..20_000).filter(|i| i % 10 != 3).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    let before = store.usage();
    let done = store.compact(Duration::from_secs(60));
    let after = store.usage();
    assert!(done.emptied_extents > 0 && done.moved_pages > 0 && done.moved_pages <= 2000, "{done:?}");
    assert!(before.held_bytes > before.used_bytes * 3, "nothing to gain: {before:?}");
    assert!(after.held_bytes < after.used_bytes * 13 / 10, "{after:?}");
    assert_eq!(after.used_bytes, before.used_bytes);
    (0..20_000)
        .filter(|i| i % 10 == 3)
        .for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32)));
    assert_eq!(store.compact(Duration::from_secs(60)), Compaction::default(), "compaction does not end");
}

#[test]
fn r1_a_full_pool_makes_use_of_what_was_forgotten_anywhere() {
    let store = store(4 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    let full_at = (0..).find(|&i| put(&pool, 0, i, noise(i)).is_err()).unwrap();
    // One page of every extent goes; as many others come.
    let gone: Vec<u64> = (0..full_at).filter(|i| i % 31 == 7).collect();
    gone.iter().for_each(|&i| pool.flush_page(ObjectId(0), PageIndex(i)));
    let came = (0..gone.len() as u64 - 1).filter(|&i| put(&pool, 0, 50_000 + i, noise(i)).is_ok()).count();
    assert!(came + 3 >= gone.len(), "{came} of {} fit", gone.len());
    for i in (0..full_at).filter(|i| i % 31 != 7) {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i)));
    }
}

#[test]
fn r1_r7_huge_pages_change_neither_contents_nor_books() {
    let store = store(256 << 20);
    let options = ClientOptions { dedup: Dedup::Off, ..client_options("a", None) };
    let client = store.create_client(options).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 100_000 }).unwrap();
    (0..9_000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    let huge_pages = (0..).take_while(|_| store.make_huge_page()).count();
    println!("{huge_pages} huge pages granted");
    let allocated =
        || store.engine().arena.allocated_bytes().unwrap() + pool.index().allocated_bytes().unwrap();
    // The open extents' memory is found as they fill.
    let is_right = || (0..=2 * EXTENT_BYTES as u64).contains(&(store.usage().held_bytes - allocated()));
    assert!(is_right());
    (0..9_000).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
    // Holes split them again.
    (0..9_000).filter(|i| i / 100 % 2 == 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    store.compact(Duration::from_secs(60));
    assert!(is_right());
    (0..9_000)
        .filter(|i| i / 100 % 2 == 1)
        .for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
    pool.flush_object(ObjectId(0));
    assert_eq!(allocated(), 0);
}

#[test]
fn r7_metadata_is_within_24_bytes_a_page() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..10_000).for_each(|i| put(&pool, 0, i, i as u32 / 5 * 5 + 2).unwrap());
    let usage = store.usage();
    assert!(usage.metadata_bytes <= usage.stored_pages * 24, "{usage:?}");
}

#[test]
fn names_and_limits_are_checked() {
    let store = store(8 << 20);
    let _pool = flat_pool(&store, "a", 10);
    assert!(matches!(
        store.create_client(client_options("a", None)),
        Err(StoreError::NameTaken { name }) if name == "a"
    ));
    assert!(matches!(store.set_limit_bytes(1000), Err(StoreError::Limit { limit_bytes: 1000 })));
    let client = store.create_client(client_options("b", None)).unwrap();
    for pages in [0, 1 << 32] {
        let made = client.create_pool(Persistence::Persistent, Keys::Flat { pages });
        assert!(matches!(made, Err(StoreError::PoolSize { .. })));
    }
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 5 }).unwrap();
    store.remove_client(&client).unwrap();
    assert!(matches!(store.remove_client(&client), Err(StoreError::NoSuchClient { name }) if name == "b"));
    let made = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 5 });
    assert!(matches!(made, Err(StoreError::NoSuchClient { .. })));
    assert_eq!(put(&pool, 0, 0, 2), Err(PutError::Destroyed));
    assert_eq!(get(&pool, 0, 0), Err(GetError::Destroyed));
}
