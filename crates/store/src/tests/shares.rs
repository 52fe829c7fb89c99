//! Shares of the limit: who gives way when the pool is nearly full.

use std::{sync::Arc, thread, time::Duration};

use proptest::prelude::*;

use super::pages::{client_options, get, page, put, store};
use crate::{
    Client, ClientOptions, Keys, ObjectId, Persistence, Pool, PutError, Store, Weight, budget::HEADROOM_PART,
    extents::EXTENT_BYTES,
};

const LIMIT: u64 = 32 << 20;
const KEYS: Keys = Keys::Flat { pages: 1 << 20 };

/// What the pool cannot be filled with to the last byte: ends of extents, index pages, and what was taken just before it was nearly full.
const SLACK: u64 = 3 * EXTENT_BYTES as u64;

/// What a page of noise takes of an extent.
const PAGE_IN_EXTENT: u64 = EXTENT_BYTES as u64 / 31;

/// Seeds whose pages do not compress.
fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

fn weighted(store: &Store, name: &str, weight: u32) -> (Arc<Client>, Arc<Pool>) {
    let options = ClientOptions { weight: Weight::new(weight).unwrap(), ..client_options(name, None) };
    let client = store.create_client(options).unwrap();
    let pool = client.create_pool(Persistence::Persistent, KEYS).unwrap();
    (client, pool)
}

/// Puts noise until that is refused many times in a row; gives how many pages were accepted, and the last refusal.
fn fill(pool: &Pool, from: u64) -> (u64, PutError) {
    let (mut accepted, mut refused) = (0, 0);
    for i in from.. {
        match put(pool, 0, i, noise(i)) {
            Ok(()) => (accepted, refused) = (accepted + 1, 0),
            Err(error) if refused == 100 => return (accepted, error),
            Err(_) => refused += 1,
        }
    }
    unreachable!("the indexes go on")
}

#[test]
fn a_client_alone_has_the_whole_limit() {
    let (alone, refusal) = fill(&weighted(&store(LIMIT), "a", 1).1, 0);
    assert_eq!(refusal, PutError::Full);
    assert!(alone * PAGE_IN_EXTENT > LIMIT - SLACK, "{alone} pages");
    // Others that were there and are gone take nothing along.
    let shared = store(LIMIT);
    let (other, pool) = weighted(&shared, "b", 10_000);
    let (client, own) = weighted(&shared, "a", 1);
    assert!(fill(&own, 0).0 < alone * 95 / 100 && client.is_over_share());
    shared.remove_client(&other).unwrap();
    drop(pool);
    assert!(!client.is_over_share() && client.share_bytes() == LIMIT);
    assert_eq!(fill(&own, 1 << 18).1, PutError::Full);
    assert!(client.usage().stored_pages > alone - 32);
}

#[test]
fn overwrites_that_do_not_grow_are_always_taken() {
    let store = store(LIMIT);
    let (client, pool) = weighted(&store, "noisy", 1);
    let (_quiet, _) = weighted(&store, "quiet", 9999);
    let (_, refusal) = fill(&pool, 0);
    assert!(refusal == PutError::OverShare && client.is_over_share());
    for i in 0..5000 {
        put(&pool, 0, i, noise(i + 1)).unwrap();
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i + 1)));
    }
    // Pages that take no memory are taken, too, and so is what was forgotten before.
    put(&pool, 0, 5000, 1).unwrap();
    pool.flush_range(ObjectId(0), 0..1000);
    assert!(fill(&pool, 0).0 > 900);
}

#[test]
fn ephemeral_pages_and_dead_bytes_give_way_before_anybody_is_refused() {
    let store = store(LIMIT);
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 20 }).unwrap();
    (0..20_000).for_each(|i| put(&cache, 0, i, noise(i)).unwrap());
    let (client, pool) = weighted(&store, "a", 1);
    let (accepted, refusal) = fill(&pool, 0);
    assert_eq!(refusal, PutError::OverShare);
    assert!(accepted * PAGE_IN_EXTENT > LIMIT - LIMIT / HEADROOM_PART - SLACK, "{accepted} pages");
    assert!(client.is_over_share());
    // Every third page is forgotten: only compaction makes room of that.
    (0..accepted).filter(|i| i % 3 == 0).for_each(|i| pool.flush_range(ObjectId(0), i..i + 1));
    let (again, _) = fill(&pool, 1 << 18);
    assert!(again > accepted / 3 - 100, "{again} of {accepted}");
}

#[test]
fn a_share_follows_limit_and_weights() {
    let store = store(LIMIT);
    let (a, _) = weighted(&store, "a", 100);
    assert_eq!(a.usage().share_bytes, LIMIT);
    let (b, _) = weighted(&store, "b", 300);
    assert_eq!((a.share_bytes(), b.share_bytes()), (LIMIT / 4, LIMIT / 4 * 3));
    store.set_limit_bytes(LIMIT * 2).unwrap();
    a.change(|settings| settings.weight = Weight::new(300).unwrap()).unwrap();
    assert_eq!((a.usage().share_bytes, b.usage().share_bytes), (LIMIT, LIMIT));
    store.remove_client(&a).unwrap();
    assert_eq!(b.share_bytes(), LIMIT * 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// A noisy client fills the pool as fast as it can, on two threads, before the others come and while they do. Whatever the weights,
    /// each of them gets its share, as far as the headroom reaches; and nobody over its share grows in the headroom.
    #[test]
    fn r6_a_noisy_client_leaves_the_headroom_to_others(
        weights in proptest::collection::vec(prop_oneof![1..100u32, Weight::RANGE], 2..4),
    ) {
        let store = store(LIMIT);
        let (noisy, noisy_pool) = weighted(&store, "noisy", weights[0]);
        let quiet: Vec<_> = weights[1..].iter().enumerate()
            .map(|(i, weight)| weighted(&store, &format!("quiet-{i}"), *weight))
            .collect();
        fill(&noisy_pool, 0);
        let reach = |share: u64| share.min((LIMIT / HEADROOM_PART - SLACK) / quiet.len() as u64);
        let before = noisy.usage().used_bytes;
        let is_over = noisy.is_over_share();
        thread::scope(|scope| {
            for thread in 1..3 {
                let pool = &noisy_pool;
                scope.spawn(move || (0..3).for_each(|_| { fill(pool, thread << 18); }));
            }
            for (client, pool) in &quiet {
                // A page takes 40 bytes more than its contents, all of them an index page or two; and a 32nd is ends of extents.
                let pages = (reach(client.share_bytes()) * 30 / 32).saturating_sub(8192) / (4096 + 40);
                for i in 0..pages {
                    assert_eq!(put(pool, 0, i, noise(i)), Ok(()), "page {i} of {pages}");
                    if i % 50 == 0 {
                        thread::sleep(Duration::from_micros(100)); // lets the others run
                    }
                }
            }
        });
        if is_over {
            let grown = noisy.usage().used_bytes.saturating_sub(before);
            prop_assert!(grown <= SLACK, "{grown} bytes in the headroom");
        }
        for (client, pool) in &quiet {
            for i in 0..client.usage().stored_pages {
                prop_assert!(*get(pool, 0, i).unwrap().unwrap() == page(noise(i)));
            }
        }
    }
}
