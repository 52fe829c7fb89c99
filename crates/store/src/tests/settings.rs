//! What can be changed of a client while it is there: frozen, cap, weight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::pages::{TestKeeper, client_options, flat_pool, get, page, put, store};
use crate::{
    ClientSettings, GetError, Keys, ObjectId, PageIndex, Persistence, PutError, RecompressionOptions,
    StoreError, Weight,
    fault_injection::{Outcome, crash_at},
};

const LIMIT: u64 = 8 << 20;
const KEYS: Keys = Keys::Flat { pages: 10_000 };
const SPARSE: Keys = Keys::Sparse { max_pages: 10_000 };

/// Seeds whose pages do not compress.
fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

fn weight(weight: u32) -> Weight {
    Weight::new(weight).unwrap()
}

#[test]
fn r1_r2_a_frozen_client_gives_and_forgets_pages_and_takes_none() {
    let store = store(LIMIT);
    let client = store.create_client(client_options("a", None)).unwrap();
    for (persistence, keys, lost) in [
        (Persistence::Persistent, KEYS, Err(GetError::Refused)),
        (Persistence::Persistent, SPARSE, Err(GetError::Refused)),
        (Persistence::Ephemeral, SPARSE, Ok(None)),
    ] {
        let pool = client.create_pool(persistence, keys).unwrap();
        (0..5).for_each(|i| put(&pool, 0, i, i as u32 + 1).unwrap());
        let before = client.usage();
        client.set_frozen(true).unwrap();
        assert!(client.is_frozen());
        for seed in 0..5 {
            assert_eq!(put(&pool, 0, 1, seed), Err(PutError::Frozen), "whatever the page");
        }
        assert_eq!(put(&pool, 0, 100, 3), Err(PutError::Frozen));
        assert_eq!(get(&pool, 0, 1), lost, "nothing older");
        assert_eq!(get(&pool, 0, 100), Ok(None), "it was never there");
        assert!(*get(&pool, 0, 2).unwrap().unwrap() == page(3));
        pool.flush_page(ObjectId(0), PageIndex(3));
        assert_eq!(get(&pool, 0, 3), Ok(None));
        let after = client.usage();
        assert_eq!((after.puts, after.refused_puts), (before.puts, before.refused_puts + 6));
        client.set_frozen(false).unwrap();
        put(&pool, 0, 1, 7).unwrap();
        assert!(*get(&pool, 0, 1).unwrap().unwrap() == page(7));
    }
    assert_eq!(put(&client.pools()[0], 0, 10_000, 3), Err(PutError::NoSuchPage));
}

#[test]
fn pools_made_while_a_client_is_frozen_are_frozen_and_others_clients_are_not() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    let other = flat_pool(&store, "b", 100);
    let client = store.create_client(client_options("a", None)).unwrap();
    client.set_frozen(true).unwrap();
    let pool = client.create_pool(Persistence::Persistent, KEYS).unwrap();
    assert_eq!(put(&pool, 0, 1, 2), Err(PutError::Frozen));
    put(&other, 0, 1, 2).unwrap();
    store.detach();
    assert!(client.set_frozen(false).is_err(), "whoever opens the store decides now");
    drop((store, client, pool, other));
    let (store, _) = keeper.open(LIMIT);
    let client = store.client("a").unwrap();
    assert!(client.is_frozen() && !store.client("b").unwrap().is_frozen());
    let pool = client.pools().remove(0);
    assert_eq!(put(&pool, 0, 1, 2), Err(PutError::Frozen));
    client.set_frozen(false).unwrap();
    put(&pool, 0, 1, 2).unwrap();
}

#[test]
fn background_work_moves_the_pages_of_a_frozen_client() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..20_000).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    (0..20_000).filter(|i| i % 10 != 2).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    store.client("a").unwrap().set_frozen(true).unwrap();
    assert!(store.compact(Duration::from_secs(60)).moved_pages > 0);
    store.set_recompression(RecompressionOptions { age: Duration::ZERO, ..Default::default() }).unwrap();
    assert!(store.recompress(Duration::from_secs(60)).recompressed_pages > 0);
    for i in (0..20_000).filter(|i| i % 10 == 2) {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32));
    }
}

/// When freezing returns, every put that was accepted is in, and no other will be.
#[test]
fn no_put_slips_in_behind_a_freeze() {
    let store = store(LIMIT);
    let pool = flat_pool(&store, "a", 10_000);
    let client = store.client("a").unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..2 {
            let (pool, end) = (&pool, &end);
            scope.spawn(move || {
                for i in (0..2000).cycle() {
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                    match put(pool, 0, thread * 2000 + i, 1) {
                        Ok(()) => {}
                        Err(error) => assert_eq!(error, PutError::Frozen),
                    }
                }
            });
        }
        for _ in 0..200 {
            client.set_frozen(true).unwrap();
            let puts = client.usage().puts;
            thread::yield_now();
            assert_eq!(client.usage().puts, puts);
            client.set_frozen(false).unwrap();
        }
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn r6_a_lower_cap_keeps_what_is_there_and_refuses_more() {
    let store = store(LIMIT);
    let pool = flat_pool(&store, "a", 10_000);
    let client = store.client("a").unwrap();
    (0..400).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    client.change(|settings| settings.cap_bytes = Some(1 << 20)).unwrap();
    assert_eq!(client.usage().cap_bytes, Some(1 << 20));
    assert_eq!(put(&pool, 0, 400, noise(400)), Err(PutError::OverCap));
    assert_eq!(put(&pool, 0, 3, noise(1000)), Ok(()), "it takes no more than before");
    for i in (0..400).filter(|i| *i != 3) {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i)), "page {i}");
    }
    pool.flush_range(ObjectId(0), 200..400);
    assert_eq!(put(&pool, 0, 400, noise(400)), Ok(()));
    let full_at = (500..).find(|&i| put(&pool, 0, i, noise(i)) == Err(PutError::OverCap)).unwrap();
    assert!(client.usage().used_bytes <= 1 << 20 && full_at > 540);
    client.change(|settings| settings.cap_bytes = None).unwrap();
    assert_eq!(put(&pool, 0, full_at, noise(full_at)), Ok(()));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let store = store(LIMIT);
    let options = client_options("a", Some((1 << 40) + 1));
    assert!(matches!(store.create_client(options), Err(StoreError::Cap { .. })));
    let client = store.create_client(client_options("a", Some(1 << 40))).unwrap();
    let before = client.settings();
    let wrong = ClientSettings { cap_bytes: Some(u64::MAX), weight: weight(7), frozen: true };
    assert!(matches!(client.change(|settings| *settings = wrong), Err(StoreError::Cap { .. })));
    assert_eq!(client.settings(), before);
    for wrong in [0, 10_001, u32::MAX] {
        let error = Weight::new(wrong).unwrap_err().to_string();
        assert!(error.contains(&wrong.to_string()) && error.contains("1 to 10000"), "{error}");
    }
    assert_eq!(("200".parse::<Weight>().unwrap(), Weight::default()), (weight(200), weight(100)));
    assert!("much".parse::<Weight>().unwrap_err().to_string().contains("much"));
    store.remove_client(&client).unwrap();
    assert!(matches!(client.set_frozen(true), Err(StoreError::NoSuchClient { .. })));
}

/// The process dies at any store of a change: what is found is what was before, or all that was to be.
#[test]
fn no_change_of_settings_can_be_cut_in_two() {
    let old = ClientSettings { cap_bytes: Some(5 << 20), weight: weight(7), frozen: false };
    let new = ClientSettings { cap_bytes: None, weight: weight(10_000), frozen: true };
    for (before, after) in [(old, new), (new, old)] {
        for n in 0.. {
            let keeper = Arc::<TestKeeper>::default();
            let store = keeper.store(LIMIT);
            let neighbour = store.create_client(client_options("b", Some(1 << 20))).unwrap();
            let pool = flat_pool(&store, "a", 100);
            put(&pool, 0, 1, 2).unwrap();
            let client = store.client("a").unwrap();
            client.change(|settings| *settings = before).unwrap();
            let outcome = crash_at(n, move || {
                client.change(|settings| *settings = after).unwrap();
                store.detach();
                drop((store, client, neighbour, pool));
            });
            let (store, recovery) = keeper.open(LIMIT);
            assert_eq!((recovery.damaged_records, recovery.found_pages), (0, 1), "at {n}");
            let client = store.client("a").unwrap();
            let found = client.settings();
            let pool = client.pools().remove(0);
            assert!(*get(&pool, 0, 1).unwrap().unwrap() == page(2));
            assert_eq!(put(&pool, 0, 1, 3).is_err(), found.frozen, "pools are as their client");
            assert_eq!(store.client("b").unwrap().settings().cap_bytes, Some(1 << 20));
            match outcome {
                Outcome::Crashed => assert_eq!(found, before, "at {n}"),
                Outcome::Finished((), stores) => {
                    assert_eq!((found, stores, n), (after, 1, 1));
                    break;
                }
            }
        }
    }
}

/// A client comes with its settings or not at all.
#[test]
fn no_client_is_found_without_its_settings() {
    let options = || crate::ClientOptions { weight: weight(3), ..client_options("a", Some(5 << 20)) };
    for n in 0.. {
        let keeper = Arc::<TestKeeper>::default();
        let store = keeper.store(LIMIT);
        // Another was in its place before.
        let former = store.create_client(client_options("former", Some(7 << 20))).unwrap();
        former.set_frozen(true).unwrap();
        store.remove_client(&former).unwrap();
        let outcome = crash_at(n, move || {
            let client = store.create_client(options()).unwrap();
            store.detach();
            drop((store, client, former));
        });
        let (store, recovery) = keeper.open(LIMIT);
        assert_eq!(recovery.damaged_records, 0);
        let found = store.client("a").map(|client| client.settings());
        let whole = ClientSettings { cap_bytes: Some(5 << 20), weight: weight(3), frozen: false };
        match outcome {
            Outcome::Crashed => assert!(found.is_none_or(|found| found == whole), "at {n}: {found:?}"),
            Outcome::Finished((), stores) => {
                assert_eq!((found, stores), (Some(whole), n));
                break;
            }
        }
    }
}
