//! A tier that keeps single blocks: it has those that are needed, and no others.

use std::{sync::Arc, time::Duration};

use super::{
    pages::{flat_pool, put, store},
    test_tier::TestTier,
    tiers::{LONG, assert_all_there, noise},
};
use crate::{Pool, Store, WriteBackOptions};

const PAGES: u64 = 3000;

fn store_over_blocks(limit_bytes: u64) -> (Arc<Store>, Arc<TestTier>) {
    let (store, tier) = (store(limit_bytes), TestTier::of_blocks(2000));
    store.attach_tier(tier.clone()).unwrap();
    (store, tier)
}

/// Puts so many pages, and writes back what does not fit.
fn fill(store: &Store, pool: &Pool, pages: u64) {
    for i in 0..pages {
        put(pool, 0, i, noise(i)).unwrap();
        if i % 20 == 0 {
            store.write_back(LONG);
        }
    }
}

/// The tier has what the books say, to the byte.
fn assert_exact(store: &Store, tier: &TestTier) {
    store.write_back(LONG); // tells it what died
    let usage = store.tier_usage().unwrap();
    assert_eq!((tier.kept_bytes() as u64, usage.untold_bytes), (usage.live_bytes, 0));
}

#[test]
fn it_has_what_is_needed_to_the_byte() {
    let (store, tier) = store_over_blocks(4 << 20);
    let pool = flat_pool(&store, "a", 20_000);
    fill(&store, &pool, PAGES);
    assert!(store.tier_usage().unwrap().live_bytes > 6 << 20);
    assert_exact(&store, &tier);

    // Pages are overwritten, flushed, and brought back.
    for i in 0..400 {
        put(&pool, 0, i * 3, noise(i * 3)).unwrap();
        if i % 20 == 0 {
            store.write_back(LONG);
        }
    }
    assert_exact(&store, &tier);
    pool.flush_range(crate::ObjectId(0), 2000..2200);
    assert_exact(&store, &tier);
    assert_all_there(&pool, 0..2000, noise);
    assert_exact(&store, &tier);
    assert_all_there(&pool, 2200..PAGES, noise);

    pool.flush_object(crate::ObjectId(0));
    store.write_back(LONG);
    assert_eq!((tier.kept_bytes(), tier.copies()), (0, 0));
}

/// Pages that stay in memory are not lent, whatever extent they are in.
#[test]
fn it_has_nothing_of_what_stays_in_memory() {
    let (store, tier) = store_over_blocks(4 << 20);
    let pool = flat_pool(&store, "a", 20_000);
    // Every tenth is fetched over and over, while others come.
    for i in 0..PAGES {
        put(&pool, 0, i, noise(i)).unwrap();
        if i >= 100 {
            assert_all_there(&pool, i % 100 * 10..i % 100 * 10 + u64::from(i >= 1000), noise);
        }
        if i % 30 == 0 {
            std::thread::sleep(Duration::from_millis(1)); // ages are in milliseconds
            store.write_back(LONG);
        }
    }
    assert_exact(&store, &tier);
    assert_all_there(&pool, 0..PAGES, noise);
    assert_exact(&store, &tier);
}

/// With every page in the tier as well, pages can go without being written. What dies in memory meanwhile goes with the copy.
#[test]
fn every_page_may_be_in_it_as_well() {
    let (store, tier) = store_over_blocks(16 << 20);
    let pool = flat_pool(&store, "a", 20_000);
    store.set_write_back_options(WriteBackOptions { write_through: true, ..WriteBackOptions::default() });
    (0..PAGES).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    store.write_back(LONG);
    let written = store.tier_usage().unwrap().written_extents;
    assert!(written > 50);
    (0..500).for_each(|i| put(&pool, 0, i * 5, noise(i * 5 + 1)).unwrap());
    store.set_limit_bytes(3 << 20).unwrap();
    while store.write_back(LONG).written_back_pages > 0 {}
    assert!(store.tier_usage().unwrap().live_bytes > 4 << 20);
    for i in 0..PAGES {
        let seed = if i % 5 == 0 && i < 2500 { noise(i + 1) } else { noise(i) };
        assert_all_there(&pool, i..i + 1, |_| seed);
    }
    pool.flush_object(crate::ObjectId(0));
    store.write_back(LONG);
    assert_eq!((tier.kept_bytes(), tier.copies()), (0, 0));
}

/// One that has whole copies behind the single blocks is cleaned for these, and has no other blocks than those that are needed.
#[test]
fn it_is_cleaned_where_whole_copies_are_behind_it() {
    let (store, tier) = (store(2 << 20), TestTier::backed(90));
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 20_000);
    fill(&store, &pool, 2400);
    assert_exact(&store, &tier);
    let before = tier.copies();
    (0..2400).filter(|i| i % 3 != 0).for_each(|i| pool.flush_page(crate::ObjectId(0), crate::PageIndex(i)));
    let cleaning = store.clean_tier(LONG);
    assert!(cleaning.moved_pages > 100 && tier.copies() < before * 3 / 4, "{cleaning:?}, {before} before");
    assert_exact(&store, &tier);
    (0..2400).filter(|i| i % 3 == 0).for_each(|i| assert_all_there(&pool, i..i + 1, noise));
}

/// How much is needed of all copies that the tier has, as whoever makes others of them is told.
fn needed_bytes(store: &Store, tier: &TestTier) -> u64 {
    let copies = tier.whole_copies().into_iter();
    copies
        .flat_map(|(copy, bytes)| store.needed_of_tier_copy(copy, &bytes))
        .map(|run| u64::from(run.bytes))
        .sum()
}

#[test]
fn what_is_needed_of_a_copy_is_known_to_the_byte_when_no_more_can_be() {
    let (store, tier) = (store(2 << 20), TestTier::backed(400));
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 20_000);
    fill(&store, &pool, 2400);
    let live = |store: &Store| store.tier_usage().unwrap().live_bytes;
    assert_eq!(needed_bytes(&store, &tier), live(&store));
    pool.flush_range(crate::ObjectId(0), 0..500);
    assert_eq!(needed_bytes(&store, &tier), live(&store));
    let (copy, bytes) = tier.whole_copies().swap_remove(0);
    let later = crate::TierCopy { writing: copy.writing + 1, ..copy };
    assert_eq!(store.needed_of_tier_copy(later, &bytes), [], "that is another one");
    let mut damaged = bytes;
    damaged[40] ^= 1;
    assert_eq!(store.needed_of_tier_copy(copy, &damaged), []);
}

/// What is in memory still may go to the copy that its extent has, without being written again.
#[test]
fn of_a_copy_whose_extent_is_in_memory_all_is_needed() {
    let (store, tier) = (store(16 << 20), TestTier::backed(400));
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 20_000);
    store.set_write_back_options(WriteBackOptions { write_through: true, ..WriteBackOptions::default() });
    (0..1000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    store.write_back(LONG);
    assert_eq!(store.tier_usage().unwrap().live_bytes, 0, "all of it is in memory");
    let copies = tier.whole_copies();
    assert!(copies.len() > 10);
    for (copy, bytes) in copies {
        let needed = store.needed_of_tier_copy(copy, &bytes);
        let whole = crate::whole_blocks_bytes(&bytes).unwrap();
        assert_eq!(needed.iter().map(|run| run.bytes as usize).sum::<usize>(), whole, "{copy:?}");
    }
}
