//! Fetching pages together: each comes to what it would have by itself.

use std::sync::{Arc, atomic::Ordering};

use super::{
    pages::{flat_pool, get, get_many, page, put, store},
    test_tier::TestTier,
    tiers::{Writer, noise},
};
use crate::{GetError, ObjectId, PageIndex, Pool, Store, entry::Entry, ids::IndexSlot};

/// A store with 1500 pages, the first 100 of them in the tier and the last one in memory.
fn with_pages_in(tier: &Arc<TestTier>) -> (Arc<Store>, Arc<Pool>) {
    let store = store(4 << 20);
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 2000);
    let writer = Writer::start(&store);
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    let is_in_tier = |slot: u32| matches!(pool.index().load(IndexSlot(slot)), Ok(Entry::Tiered(_)));
    assert!((0..100).all(is_in_tier) && !is_in_tier(1499));
    (store, pool)
}

/// Nobody holds a copy: all go with their pages.
fn assert_nothing_is_pinned(store: &Store, pool: &Pool) {
    pool.flush_object(ObjectId(0));
    let usage = store.tier_usage().unwrap();
    assert_eq!((usage.used_bytes, usage.live_bytes, usage.stored_pages), (0, 0, 0));
}

#[test]
fn r1_pages_come_from_wherever_they_are() {
    for tier in [TestTier::of_blocks(400), TestTier::new(400)] {
        let (store, pool) = with_pages_in(&tier);
        // Nothing at 1800, and one page twice.
        let indices: Vec<u64> = (0..30).chain([1499, 1800, 7]).collect();
        let found = get_many(&pool, 0, &indices);
        for (index, got) in indices.iter().zip(found) {
            let expected = (*index != 1800).then(|| page(noise(*index)));
            assert!(got.unwrap() == expected, "page {index}");
        }
        let together = tier.most_together.load(Ordering::Relaxed);
        assert_eq!(together, if crate::Tier::reads_together(&*tier) { 8 } else { 0 });
        assert!(store.clients()[0].tier_gets >= 25);
        assert_nothing_is_pinned(&store, &pool);
    }
}

#[test]
fn r4_r2_what_is_damaged_or_out_of_reach_is_an_error_for_itself_alone() {
    let tier = TestTier::of_blocks(400);
    let (store, pool) = with_pages_in(&tier);
    let Ok(Entry::Tiered(damaged)) = pool.index().load(IndexSlot(50)) else { panic!("page 50 is in memory") };
    tier.flip_bit(damaged.place.0, (damaged.start as usize + 100) * 8);
    let indices: Vec<u64> = (48..53).chain([1499]).collect();
    let found = get_many(&pool, 0, &indices);
    for (index, got) in indices.iter().zip(found) {
        let expected = if *index == 50 { Err(GetError::Damaged) } else { Ok(Some(page(noise(*index)))) };
        assert!(got == expected, "page {index}");
    }
    assert_eq!(store.clients()[0].checksum_errors, 1);

    tier.refuses_reads.store(true, Ordering::Relaxed);
    let errors = store.tier_usage().unwrap().errors;
    let found = get_many(&pool, 0, &[60, 61, 1499, 62]);
    let away = Err(GetError::TierUnavailable);
    assert!(found == [away, away, Ok(Some(page(noise(1499)))), away]);
    assert_eq!(store.tier_usage().unwrap().errors, errors + 3);
    tier.refuses_reads.store(false, Ordering::Relaxed);
    assert!(*get(&pool, 0, 61).unwrap().unwrap() == page(noise(61)));
    pool.flush_page(ObjectId(0), PageIndex(61));
    assert_eq!(get_many(&pool, 0, &[61, 61]), [Ok(None), Ok(None)]);
    assert_nothing_is_pinned(&store, &pool);
}
