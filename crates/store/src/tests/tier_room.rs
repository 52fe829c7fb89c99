//! Room for puts where there is a tier: nobody is refused, or waits, for nothing. Rules 2, 5 and 6.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{
    pages::{flat_pool, get, put},
    tiers::{LONG, Writer, assert_all_there, noise, tiered_store},
};
use crate::{PutError, WriteBackOptions};

/// r2: places that are mostly dead are room. Nobody cleans but whoever writes because puts wait.
#[test]
fn r2_a_tier_full_of_what_is_dead_refuses_no_put() {
    let (store, _tier) = tiered_store(2 << 20, 60);
    let pool = flat_pool(&store, "a", 4000);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                store.wait_until_write_back_is_wanted(Duration::from_millis(20));
                store.write_back(LONG);
            }
            store.end_write_back();
        });
        while !store.engine().tiering.signal.has_maker() {
            thread::yield_now();
        }
        let (mut state, mut seeds) = (9_u64, vec![0; 1200]);
        let refused = (0..12_000).filter(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = if *i < 1200 { *i } else { (state >> 33) % 1200 };
            seeds[index as usize] = noise(*i);
            put(&pool, 0, index, noise(*i)).is_err()
        });
        let refused = refused.count();
        ends.store(true, Ordering::Relaxed);
        assert_eq!(refused, 0);
        assert_all_there(&pool, 0..1200, |i| seeds[i as usize]);
    });
}

/// r5: however often a put tries to share a block, it waits for a tier that hangs no longer than for one write.
#[test]
fn r5_a_put_waits_for_a_tier_once() {
    let (store, _tier) = tiered_store(2 << 20, 400);
    let pool = flat_pool(&store, "a", 4000);
    let filled = (0..4000).take_while(|i| put(&pool, 0, *i, noise(*i)).is_ok()).count() as u64;
    // From here on somebody writes, and is not done with it.
    let signal = &store.engine().tiering.signal;
    store.wait_until_write_back_is_wanted(Duration::ZERO);
    assert_eq!(put(&pool, 0, filled + 1, noise(1)), Err(PutError::Full));
    assert_eq!(signal.timed_out(), 1);
    store.end_write_back();
    assert_eq!(get(&pool, 0, filled + 1), Ok(None));
    assert_all_there(&pool, 0..filled, noise);
}

#[test]
fn r2_a_full_tier_refuses_no_put_while_what_is_in_memory_has_copies() {
    let (store, tier) = tiered_store(8 << 20, 400);
    store.set_write_back_options(WriteBackOptions { age: None, write_through: true });
    let pool = flat_pool(&store, "a", 20_000);
    (0..1600).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    store.write_back(LONG);
    tier.is_full.store(true, Ordering::Relaxed);
    let writer = Writer::start(&store);
    (1600..2800).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    assert_all_there(&pool, 0..2800, noise);
}

/// r2, r6: as long as the tier is well and has room, nobody is refused, however many put at once, and although most of what counts against
/// a client's share may be in the tier, in blocks that its pages share.
#[test]
fn r2_r6_no_put_is_refused_while_a_slow_tier_is_well_and_has_room() {
    let (store, tier) = tiered_store(8 << 20, 4000);
    let stock = crate::StockKeeper::start(store.clone(), || u64::MAX).unwrap();
    tier.delay_us.store(2000, Ordering::Relaxed);
    let pools: Vec<_> = (0..4).map(|i| flat_pool(&store, &format!("c{i}"), 20_000)).collect();
    let writer = Writer::start(&store);
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let pool = &pools[thread as usize % 4];
            // The last client puts a few pages over and over. Two threads of each put the same contents.
            let (pages, from) = if thread % 4 == 3 { (300, 0) } else { (3000, thread / 4 * 3000) };
            scope.spawn(move || (0..3000).for_each(|i| put(pool, 0, from + i % pages, noise(i)).unwrap()));
        }
    });
    drop((writer, stock));
    let clients = store.clients();
    assert!(clients.iter().all(|client| client.refused_puts == 0) && clients[3].written_back_pages == 0);
}
