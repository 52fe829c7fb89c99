//! Memory found ahead: puts need nothing of the OS, and do without when it has nothing (rule 5).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::pages::{TestKeeper, client_options, flat_pool, get, page, put, store};
use crate::{
    ClientOptions, Dedup, GetError, Keys, ObjectId, Persistence, Pool, PutError, StockKeeper, Store,
    extents::EXTENT_BYTES, index::ENTRIES_PER_INDEX_PAGE, stock::LEAST_EXTENTS,
};

/// Seeds whose pages do not compress.
fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

/// A keeper of the store's stock, and what its host can spare.
fn keeper(store: &Arc<Store>) -> (StockKeeper, Arc<AtomicU64>) {
    let available = Arc::new(AtomicU64::new(u64::MAX));
    let of_keeper = available.clone();
    (StockKeeper::start(store.clone(), move || of_keeper.load(Ordering::Relaxed)).unwrap(), available)
}

fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Puts a page, on a host that has memory. Where the keeper gets no CPU for long, a put may be refused all the same.
fn put_in_time(pool: &Pool, index: u64, seed: u32) {
    until(|| put(pool, 0, index, seed).is_ok());
}

/// How often this thread touched memory that was not there or not mapped.
fn faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel fills the structure it is given.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_minflt + usage.ru_majflt
}

#[test]
fn r5_puts_take_memory_that_was_found_before() {
    const PAGES: u64 = 12_000;
    let faults_of = |stocked: bool| {
        let store = store(256 << 20);
        let pool = flat_pool(&store, "a", 1 << 20);
        let _keeper = stocked.then(|| keeper(&store));
        let mut before = 0;
        for i in 0..PAGES {
            put_in_time(&pool, i, noise(i));
            if i == 2000 {
                before = faults(); // by now this thread has all that it needs for itself
            }
        }
        let faults = faults() - before;
        (0..PAGES).step_by(7).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
        faults
    };
    let (without, with) = (faults_of(false), faults_of(true));
    println!("{without} faults without a stock, {with} with one");
    // 10,000 pages of noise fill more than 10,000 pages of memory.
    assert!(without > 1000 && with < 100, "{without} faults without a stock, {with} with one");
}

#[test]
fn r5_r2_without_memory_a_put_is_refused_and_leaves_no_older_page() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 1000);
    let engine = store.engine();
    engine.begin_stock();
    assert!(engine.stock_up(u64::MAX));
    let accepted = (0..1000).take_while(|i| put(&pool, 0, *i, noise(*i)).is_ok()).count() as u64;
    // Three extents of four, as nobody finds more; the last is compaction's.
    assert!((90..=96).contains(&accepted), "{accepted}");
    assert!(engine.stock.is_starved(), "others would wait as well");
    assert_eq!(put(&pool, 0, 990, noise(1)), Err(PutError::Full));
    assert_eq!(put(&pool, 0, 991, 1), Ok(()), "a page that needs no block still fits");
    assert_eq!(put(&pool, 0, 991, noise(1)), Err(PutError::Full));
    assert_eq!(get(&pool, 0, 991), Err(GetError::Refused));
    assert!(!engine.stock_up(0), "there was nothing to be had");
    assert_eq!(put(&pool, 0, 992, noise(1)), Err(PutError::Full));
    assert!(engine.stock_up(u64::MAX));
    assert_eq!(put(&pool, 0, 991, noise(2)), Ok(()));
    (0..accepted).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i)), "page {i}"));
}

#[test]
fn r5_overwrites_go_on_while_the_host_has_nothing_to_give() {
    let store = store(256 << 20);
    let pool = flat_pool(&store, "a", 1 << 16);
    let (keeper, available) = keeper(&store);
    (0..4000).for_each(|i| put_in_time(&pool, i, noise(i)));
    available.store(0, Ordering::Relaxed);
    // What the pool has may be used up by pages that are new.
    let more = (4000..8000).take_while(|i| put(&pool, 0, *i, noise(*i)).is_ok()).count() as u64;
    let held = store.held_bytes();
    // Background work goes on as well, and takes what has no memory for a full store.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                store.compact(Duration::from_millis(1));
                store.recompress(Duration::from_millis(1));
                thread::sleep(Duration::from_millis(5));
            }
        });
        let put_all = |round| (0..4000 + more).find(|i| put(&pool, 0, *i, noise(*i + round)).is_err());
        let refused: Vec<_> = (1..4).map(put_all).collect();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(refused, [None; 3]);
    });
    assert!(store.held_bytes() <= held, "{} bytes are held, {held} were", store.held_bytes());
    (0..4000 + more).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i + 3))));
    available.store(u64::MAX, Ordering::Relaxed);
    until(|| put(&pool, 0, 9000, noise(1)).is_ok());
    (9000..12_000).for_each(|i| put_in_time(&pool, i, noise(i)));
    drop(keeper);
}

#[test]
fn r5_index_pages_are_found_while_the_host_has_nothing_to_give() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 1 << 24);
    let (_keeper, available) = keeper(&store);
    (0..600).for_each(|i| put_in_time(&pool, i, noise(i)));
    until(|| store.engine().arena.stocked() >= LEAST_EXTENTS as usize);
    available.store(0, Ordering::Relaxed);
    // The neighbours are there; for what is far away an extent goes back to the OS.
    assert_eq!(put(&pool, 0, 2 * ENTRIES_PER_INDEX_PAGE, 0), Ok(()));
    until(|| put(&pool, 0, 1 << 23, 0).is_ok());
    until(|| put(&pool, 0, 1 << 22, 1).is_ok());
    assert!(*get(&pool, 0, 1 << 22).unwrap().unwrap() == page(1));
}

#[test]
fn r7_a_stock_is_small_when_idle_and_gone_when_nobody_needs_it() {
    let store = store(256 << 20);
    let (stock, _) = keeper(&store);
    let client = store.create_client(client_options("a", None)).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 100_000 }).unwrap();
    (0..20_000).for_each(|i| put_in_time(&pool, i, noise(i)));
    pool.flush_object(ObjectId(0));
    assert_eq!(store.usage().used_bytes, 0);
    // Index pages besides: 32 of the pool's and of shared blocks' each at most.
    let idle_bytes = u64::from(LEAST_EXTENTS) * EXTENT_BYTES as u64 + 64 * 4096;
    until(|| store.held_bytes() <= idle_bytes);
    let allocated = || store.engine().arena.allocated_bytes().unwrap();
    assert!(allocated() <= idle_bytes, "{} bytes are held, {}", store.held_bytes(), allocated());
    assert!(allocated() > 0);
    // Without a pool there is nothing to be put.
    client.destroy_pool(&pool);
    drop(pool);
    until(|| store.held_bytes() == 0 && allocated() == 0);
    drop(stock);

    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 100_000 }).unwrap();
    let (stock, _) = keeper(&store);
    (0..2000).for_each(|i| put_in_time(&pool, i, noise(i % 700)));
    pool.flush_object(ObjectId(0));
    drop(stock);
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, allocated()), (0, 0, 0));
    assert_eq!(pool.index().allocated_bytes().unwrap(), 0);
    assert_eq!(store.engine().shared_blocks.allocated_bytes().unwrap(), 0);
    assert_eq!(put(&pool, 0, 5, noise(5)), Ok(()), "puts find memory themselves again");
}

#[test]
fn r7_what_is_held_stays_within_the_limit_and_follows_it() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 1 << 20);
    let (_stock, _) = keeper(&store);
    let accepted = (0..).take_while(|i| put(&pool, 0, *i, noise(*i)).is_ok()).count() as u64;
    assert!(accepted * 4096 > 61 << 20, "only {accepted} pages fit");
    assert!(store.held_bytes() <= 64 << 20);
    (0..accepted).for_each(|i| assert_eq!(put(&pool, 0, i, noise(i + 1)), Ok(()), "a full pool, page {i}"));
    (0..accepted).filter(|i| i % 8 != 0).for_each(|i| pool.flush_range(ObjectId(0), i..i + 1));
    store.set_limit_bytes(10 << 20).unwrap();
    until(|| {
        store.compact(Duration::from_secs(1));
        store.held_bytes() <= 10 << 20
    });
    (0..accepted)
        .filter(|i| i % 8 == 0)
        .for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i + 1))));
}

#[test]
fn r1_a_store_that_dies_with_a_stock_is_found_without_it() {
    let files = Arc::new(TestKeeper::default());
    let first = files.store(64 << 20);
    let pool = flat_pool(&first, "a", 1 << 20);
    let (stock, _) = keeper(&first);
    (0..3000).for_each(|i| put_in_time(&pool, i, noise(i)));
    until(|| first.engine().arena.stocked() >= LEAST_EXTENTS as usize);
    first.detach();
    let used = first.usage().used_bytes;
    drop((stock, pool, first));
    let (store, recovery) = files.open(64 << 20);
    assert_eq!(recovery.found_pages, 3000);
    assert_eq!(store.engine().arena.free_extents_with_memory(), 0);
    assert!(store.held_bytes() < used + (2 << 20), "{} bytes are held for {used}", store.held_bytes());
    // Extents that were taken over are used again like others.
    let (_stock, available) = keeper(&store);
    let pool = store.client("a").unwrap().pools().remove(0);
    (0..3000).for_each(|i| put_in_time(&pool, i, noise(i + 1)));
    available.store(0, Ordering::Relaxed);
    (0..3000).for_each(|i| assert_eq!(put(&pool, 0, i, noise(i + 2)), Ok(()), "page {i}"));
    (0..3000).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i + 2))));
}

#[test]
fn r1_r7_threads_go_on_while_memory_comes_and_goes() {
    let store = store(24 << 20);
    let options = ClientOptions { dedup: Dedup::Domain("all".into()), ..client_options("a", None) };
    let client = store.create_client(options).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 1 << 22 }).unwrap();
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 16 }).unwrap();
    let (stock, available) = keeper(&store);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let (pool, cache) = (&pool, &cache);
                scope.spawn(move || {
                    let mut known = std::collections::HashMap::new();
                    for i in 0..12_000u64 {
                        // Neighbours, and now and then a page far away.
                        let index = if i % 50 == 0 { i * 331 % (1 << 21) } else { i % 3000 } * 2 + writer;
                        let seed = (i % 1000) as u32 * 7;
                        match put(pool, 0, index, seed) {
                            Ok(()) => known.insert(index, Some(seed)),
                            Err(error) => {
                                assert_eq!(error, PutError::Full);
                                known.insert(index, None)
                            }
                        };
                        if i % 3 == 0 {
                            let _may_be_refused = put(cache, writer, i % 500, noise(i));
                        }
                        if i % 7 == 0 {
                            pool.flush_range(ObjectId(0), index..index + 1);
                            known.remove(&index);
                        }
                    }
                    for (index, seed) in known {
                        let got = get(pool, 0, index);
                        match seed {
                            Some(seed) => assert!(*got.unwrap().unwrap() == page(seed), "page {index}"),
                            None => assert!(matches!(got, Ok(None) | Err(GetError::Refused))),
                        }
                    }
                })
            })
            .collect();
        let mut round = 0u64;
        while writers.iter().any(|writer| !writer.is_finished()) {
            round += 1;
            available.store(
                if round.is_multiple_of(3) { u64::MAX } else { round % 3 * 100_000 },
                Ordering::Relaxed,
            );
            store.compact(Duration::from_millis(1));
            assert!(store.held_bytes() <= 24 << 20);
            thread::sleep(Duration::from_millis(3));
        }
    });
    pool.flush_object(ObjectId(0));
    (0..2).for_each(|object| cache.flush_object(ObjectId(object)));
    drop(stock);
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!(store.engine().arena.allocated_bytes().unwrap(), 0);
}
