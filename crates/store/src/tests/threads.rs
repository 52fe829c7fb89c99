//! Several threads at once: every get is checked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    pages::{client_options, flat_pool, get, page, put, store},
    test_tier::TestTier,
};
use crate::{Keys, ObjectId, Persistence, Pool, PutError, RecompressionOptions, Store, WriteBackOptions};

const PAGES: u64 = 4000;

/// A page names its own index and version: what a reader finds must have been written to that index.
fn seed(index: u64, version: u32) -> u32 {
    index as u32 * 1000 + version
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Puts, gets and flushes pages of its own half; also reads the other half, where it may find any version of the right page.
fn work(pool: &Pool, half: u64, rounds: u32) {
    let mut versions = vec![None; PAGES as usize];
    let mut state = half + 12345;
    for round in 0..rounds {
        let index = random(&mut state) % (PAGES / 2) * 2 + half;
        match random(&mut state) % 10 {
            0..4 => match put(pool, 0, index, seed(index, round % 1000)) {
                Ok(()) => versions[index as usize] = Some(round % 1000),
                Err(PutError::Full | PutError::OverShare) => versions[index as usize] = None,
                Err(error) => panic!("{error}"),
            },
            4 => {
                pool.flush_range(ObjectId(0), index..index + 1);
                versions[index as usize] = None;
            }
            5..8 => {
                if let Some(version) = versions[index as usize] {
                    assert!(*get(pool, 0, index).unwrap().unwrap() == page(seed(index, version)));
                }
            }
            _ => {
                let index = index ^ 1;
                if let Ok(Some(found)) = get(pool, 0, index) {
                    assert!(
                        (0..1000).any(|version| *found == page(seed(index, version))),
                        "a page of nobody"
                    );
                }
            }
        }
    }
}

fn evictable_noise(store: &Store) -> Arc<Pool> {
    let client = store.create_client(client_options("cache", None)).unwrap();
    client.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 20 }).unwrap()
}

#[test]
fn r1_r6_threads_on_one_pool_never_see_a_wrong_page() {
    let store = store(6 << 20);
    let pool = flat_pool(&store, "a", PAGES);
    let cache = evictable_noise(&store);
    thread::scope(|scope| {
        scope.spawn(|| work(&pool, 0, 15_000));
        scope.spawn(|| work(&pool, 1, 15_000));
        scope.spawn(|| {
            for i in 0..15_000 {
                let key = i % 3000;
                let _may_be_refused = put(&cache, key % 5, key, seed(key, 3));
                let other = (i * 7) % 3000;
                if let Ok(Some(found)) = get(&cache, other % 5, other) {
                    assert!(*found == page(seed(other, 3)));
                }
                if i % 500 == 0 {
                    cache.flush_object(ObjectId(i % 5));
                }
            }
        });
        scope.spawn(|| {
            for _ in 0..200 {
                let usage = store.usage();
                assert!(usage.held_bytes <= usage.limit_bytes);
                store.compact(Duration::from_millis(1));
                thread::yield_now();
            }
        });
    });
    pool.flush_object(ObjectId(0));
    (0..5).for_each(|object| cache.flush_object(ObjectId(object)));
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
}

/// A worker that is still at it.
struct AtWork<'a>(&'a AtomicU32);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn r1_r6_threads_on_a_pool_whose_pages_go_to_a_tier_never_see_a_wrong_page() {
    threads_on_a_tier(TestTier::new(70));
}

#[test]
fn r1_r6_nor_do_they_where_the_tier_keeps_single_blocks() {
    threads_on_a_tier(TestTier::of_blocks(300));
}

#[test]
fn r1_r6_nor_where_it_keeps_whole_copies_behind_them() {
    threads_on_a_tier(TestTier::backed(70));
}

fn threads_on_a_tier(tier: Arc<TestTier>) {
    let store = store(3 << 20);
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", PAGES);
    let cache = evictable_noise(&store);
    let at_work = AtomicU32::new(2);
    let running = || at_work.load(Ordering::Relaxed) > 0;
    let work_through = |half| {
        let _at_work = AtWork(&at_work);
        work(&pool, half, 15_000);
    };
    thread::scope(|scope| {
        scope.spawn(|| work_through(0));
        scope.spawn(|| work_through(1));
        scope.spawn(|| {
            (0..8000).for_each(|i| {
                let _may_be_refused = put(&cache, i % 5, i, seed(i, 3));
            })
        });
        scope.spawn(|| {
            let mut round = 0;
            while running() {
                round += 1;
                // It fails now and then, but not for long.
                tier.refuses_writes.store(round % 40 == 0, Ordering::Relaxed);
                let age = (round % 3 == 0).then_some(Duration::ZERO);
                store.set_write_back_options(WriteBackOptions { age, write_through: round % 7 == 0 });
                store.wait_until_write_back_is_wanted(Duration::from_millis(1));
                store.write_back(Duration::from_millis(20));
                store.clean_tier(Duration::from_millis(5));
            }
            store.end_write_back();
        });
        let cold = RecompressionOptions { age: Duration::ZERO, level: 1, ..Default::default() };
        store.set_recompression(cold).unwrap();
        while running() {
            let usage = store.usage();
            assert!(usage.held_bytes <= usage.limit_bytes);
            store.compact(Duration::from_millis(1));
            store.recompress(Duration::from_millis(1));
            store.tend_ages(Duration::from_millis(1));
            thread::yield_now();
        }
    });
    assert!(store.clients()[0].written_back_pages > 1000 && store.clients()[0].tier_gets > 1000);
    pool.flush_object(ObjectId(0));
    (0..5).for_each(|object| cache.flush_object(ObjectId(object)));
    let (usage, in_tier) = (store.usage(), store.tier_usage().unwrap());
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!((in_tier.used_bytes, in_tier.live_bytes, in_tier.stored_pages), (0, 0, 0));
}

/// Everything at once that moves pages, on a slow tier that fails now and then, under limits that jump, with shared pages, frozen and
/// capped clients, and clients that come and go. `TMEM_TIER_ROUNDS` says for how many puts.
fn slow_tier_that_fails(tier: Arc<TestTier>, is_stocked: bool) {
    let rounds =
        std::env::var("TMEM_TIER_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5000);
    let store = store(2 << 20);
    store.attach_tier(tier.clone()).unwrap();
    let asked = AtomicU32::new(0);
    // The host has nothing to give now and then.
    let available_bytes = move || {
        if asked.fetch_add(1, Ordering::Relaxed) % 50 < 10 { 0 } else { u64::MAX }
    };
    let stock = is_stocked.then(|| crate::StockKeeper::start(store.clone(), available_bytes).unwrap());
    let domain = || crate::Dedup::Domain("web".to_owned());
    let shared = ["s", "t"].map(|name| {
        let options = crate::ClientOptions { dedup: domain(), ..client_options(name, None) };
        let client = store.create_client(options).unwrap();
        (client.create_pool(Persistence::Persistent, Keys::Flat { pages: PAGES }).unwrap(), client)
    });
    let pool = flat_pool(&store, "a", PAGES);
    let at_work = AtomicU32::new(4);
    let running = || at_work.load(Ordering::Relaxed) > 0;
    thread::scope(|scope| {
        for half in 0..2 {
            let (pool, at_work) = (&pool, &at_work);
            scope.spawn(move || {
                let _at_work = AtWork(at_work);
                work(pool, half, rounds);
            });
        }
        // Both clients put the same few pages over and over, each under keys of its own.
        for (pool, _) in &shared {
            let at_work = &at_work;
            scope.spawn(move || {
                let _at_work = AtWork(at_work);
                let (mut state, mut seeds) = (77, vec![None; PAGES as usize]);
                for _ in 0..rounds {
                    let index = random(&mut state) % 600;
                    let seed = (random(&mut state) % 150) as u32 * 5 + 4;
                    match random(&mut state) % 8 {
                        0..4 => seeds[index as usize] = put(pool, 0, index, seed).is_ok().then_some(seed),
                        4 => {
                            pool.flush_range(ObjectId(0), index..index + 3);
                            seeds[index as usize..index as usize + 3].fill(None);
                        }
                        _ => {
                            if let Some(seed) = seeds[index as usize] {
                                assert!(*get(pool, 0, index).unwrap().unwrap() == page(seed));
                            }
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut round = 0;
            while running() {
                round += 1;
                tier.delay_us.store(if round % 5 == 0 { 5000 } else { 200 }, Ordering::Relaxed);
                tier.refuses_writes.store(round % 11 == 0, Ordering::Relaxed);
                tier.is_full.store(round % 13 == 0, Ordering::Relaxed);
                let age = (round % 3 == 0).then_some(Duration::ZERO);
                store.set_write_back_options(WriteBackOptions { age, write_through: round % 4 == 0 });
                store.wait_until_write_back_is_wanted(Duration::from_millis(1));
                store.write_back(Duration::from_millis(20));
                store.clean_tier(Duration::from_millis(5));
            }
            store.end_write_back();
        });
        scope.spawn(|| {
            // As the daemon's `GET /metrics`.
            while running() {
                let in_tier = store.tier_usage().unwrap();
                assert!(in_tier.live_bytes < 1 << 30 && in_tier.stored_pages < 1 << 20, "{in_tier:?}");
                let used_bytes = store.usage().used_bytes;
                assert!(used_bytes < 1 << 30, "{used_bytes}");
                thread::yield_now();
            }
        });
        let cold = RecompressionOptions { age: Duration::ZERO, level: 1, ..Default::default() };
        store.set_recompression(cold).unwrap();
        let (mut state, mut round) = (7, 0);
        while running() {
            round += 1;
            store.set_limit_bytes((1 << 20) + random(&mut state) % (4 << 20)).unwrap();
            let cap_bytes = (round % 3 == 0).then_some(300 << 10);
            shared[1].1.change(|now| (now.cap_bytes, now.frozen) = (cap_bytes, round % 4 == 0)).unwrap();
            let client = store.create_client(client_options("guest", None)).unwrap();
            let own = client.create_pool(Persistence::Persistent, Keys::Sparse { max_pages: 600 }).unwrap();
            for i in 0..60 {
                if put(&own, i % 3, i, seed(i, 5)).is_ok() {
                    assert!(*get(&own, i % 3, i).unwrap().unwrap() == page(seed(i, 5)));
                }
            }
            store.compact(Duration::from_millis(1));
            store.recompress(Duration::from_millis(1));
            store.make_huge_page();
            store.tend_ages(Duration::from_millis(1));
            store.tend_dedup(Duration::from_millis(1));
            store.remove_client(&client).unwrap();
        }
    });
    tier.refuses_writes.store(false, Ordering::Relaxed);
    tier.is_full.store(false, Ordering::Relaxed);
    assert!(store.clients().iter().all(|client| client.checksum_errors == 0 && client.tier_errors == 0));
    pool.flush_object(ObjectId(0));
    shared.iter().for_each(|(pool, _)| pool.flush_object(ObjectId(0)));
    drop(stock);
    let (usage, in_tier) = (store.usage(), store.tier_usage().unwrap());
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!((in_tier.used_bytes, in_tier.live_bytes, in_tier.stored_pages), (0, 0, 0));
    store.clean_tier(Duration::from_secs(1));
    assert_eq!(tier.copies(), 0);
}

#[test]
fn r1_r7_a_slow_tier_that_fails_loses_nothing_whatever_else_happens() {
    slow_tier_that_fails(TestTier::new(90), false);
}

#[test]
fn r1_r5_r7_nor_does_it_where_memory_is_found_ahead() {
    slow_tier_that_fails(TestTier::new(90), true);
}

#[test]
fn r1_r7_nor_where_the_tier_keeps_single_blocks() {
    slow_tier_that_fails(TestTier::of_blocks(400), true);
}

#[test]
fn r1_r3_limits_jump_and_clients_come_and_go() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", PAGES);
    let cache = evictable_noise(&store);
    thread::scope(|scope| {
        let busy = scope.spawn(|| work(&pool, 0, 10_000));
        let other = scope.spawn(|| work(&pool, 1, 10_000));
        scope.spawn(|| {
            (0..8000).for_each(|i| {
                let _may_be_refused = put(&cache, i % 5, i, seed(i, 3));
            })
        });
        let running = || !busy.is_finished() || !other.is_finished();
        let mut state = 7;
        while running() {
            store.set_limit_bytes((4 << 20) + random(&mut state) % (6 << 20)).unwrap();
            let client = store.create_client(client_options("guest", None)).unwrap();
            let own = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 600 }).unwrap();
            for i in 0..100 {
                if put(&own, 0, i, seed(i, 5)).is_ok() {
                    assert!(*get(&own, 0, i).unwrap().unwrap() == page(seed(i, 5)));
                }
            }
            store.compact(Duration::from_millis(1));
            store.remove_client(&client).unwrap();
            assert_eq!(put(&own, 0, 1, 2), Err(PutError::Destroyed));
        }
    });
    pool.flush_object(ObjectId(0));
    (0..5).for_each(|object| cache.flush_object(ObjectId(object)));
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
}
