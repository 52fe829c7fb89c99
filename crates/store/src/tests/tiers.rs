//! Pages in a tier: rules 1, 2, 4 and 7.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    pages::{TestKeeper, client_options, flat_pool, get, page, put, store},
    test_tier::TestTier,
};
use crate::{
    Dedup, GetError, Keys, ObjectId, PageIndex, Persistence, Pool, PutError, RecompressionOptions, Store,
    StoreError, TierState, WriteBackOptions, entry::Entry, extents::EXTENT_BYTES, ids::IndexSlot,
};

pub(super) const LONG: Duration = Duration::from_secs(60);

/// Seeds of pages that do not get smaller.
pub(super) fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

pub(super) fn tiered_store(limit_bytes: u64, places: u32) -> (Arc<Store>, Arc<TestTier>) {
    let (store, tier) = (store(limit_bytes), TestTier::new(places));
    store.attach_tier(tier.clone()).unwrap();
    (store, tier)
}

/// A thread that writes pages to the tier until it is dropped, as the daemon has one.
pub(super) struct Writer {
    store: Arc<Store>,
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(store: &Arc<Store>) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let (there, ends_there) = (store.clone(), ends.clone());
        let (has_begun, begins) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            there.wait_until_write_back_is_wanted(Duration::ZERO);
            has_begun.send(()).unwrap();
            while !ends_there.load(Ordering::Relaxed) {
                there.wait_until_write_back_is_wanted(Duration::from_millis(20));
                there.write_back(LONG);
                there.clean_tier(Duration::from_millis(10));
            }
            there.end_write_back();
        });
        begins.recv().unwrap();
        Self { store: store.clone(), ends, thread: Some(thread) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.store.wake_write_back();
        if self.thread.take().unwrap().join().is_err() && !thread::panicking() {
            panic!("the writer panicked");
        }
    }
}

pub(super) fn assert_all_there(pool: &Pool, pages: std::ops::Range<u64>, seed: impl Fn(u64) -> u32) {
    for i in pages {
        let got = get(pool, 0, i).unwrap_or_else(|error| panic!("page {i}: {error}"));
        assert!(*got.unwrap_or_else(|| panic!("page {i} is gone")) == page(seed(i)), "page {i}");
    }
}

fn tiered_pages(pool: &Pool) -> u64 {
    let slots = 0..pool.index().slots() as u32;
    slots.filter(|slot| matches!(pool.index().load(IndexSlot(*slot)), Ok(Entry::Tiered(_)))).count() as u64
}

#[test]
fn r1_r7_what_does_not_fit_in_memory_is_in_the_tier_and_comes_back() {
    let (store, tier) = tiered_store(4 << 20, 400);
    let pool = flat_pool(&store, "a", 20_000);
    let writer = Writer::start(&store);
    // Five times the limit, each page as soon as there is room for it.
    (0..5000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    let usage = store.usage();
    assert!(usage.held_bytes <= usage.limit_bytes && usage.stored_pages == 5000);
    let client = &store.clients()[0];
    assert!(client.tiered_pages > 3900 && client.tiered_pages == tiered_pages(&pool), "{client:?}");
    assert_eq!(client.refused_puts, 0);
    let in_tier = store.tier_usage().unwrap();
    assert_eq!((in_tier.stored_pages, in_tier.live_bytes), (client.tiered_pages, client.tiered_bytes));
    assert!(in_tier.used_bytes >= in_tier.live_bytes && in_tier.state == TierState::Ready);
    assert!(tier.copies() as u64 * EXTENT_BYTES as u64 >= in_tier.live_bytes);
    assert_all_there(&pool, 0..5000, noise);
    assert!(store.clients()[0].tier_gets >= client.tiered_pages);

    pool.flush_object(ObjectId(0));
    let (usage, in_tier) = (store.usage(), store.tier_usage().unwrap());
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!((in_tier.used_bytes, in_tier.live_bytes, in_tier.stored_pages), (0, 0, 0));
}

#[test]
fn r1_pages_that_are_used_stay_in_memory() {
    let (store, _tier) = tiered_store(4 << 20, 400);
    let pool = flat_pool(&store, "a", 20_000);
    // The first pages are fetched over and over while others come.
    for i in 0..6000 {
        put(&pool, 0, i, noise(i)).unwrap();
        if i >= 100 {
            get(&pool, 0, i % 100).unwrap();
        }
        if i % 30 == 0 {
            thread::sleep(Duration::from_millis(1)); // ages are in milliseconds
            store.write_back(LONG);
        }
    }
    let used = (0..100).filter(|slot| matches!(pool.index().load(IndexSlot(*slot)), Ok(Entry::Block(_))));
    let (used, fetched) = (used.count(), store.clients()[0].tier_gets);
    assert!(used > 80, "only {used} of the pages that are used all the time are in memory");
    assert!(fetched < 600, "{fetched} of 5900 gets went to the tier");
}

#[test]
fn r2_r1_a_tier_that_fails_loses_nothing_and_is_used_again_when_it_recovers() {
    let (store, tier) = tiered_store(4 << 20, 400);
    let pool = flat_pool(&store, "a", 20_000);
    let writer = Writer::start(&store);
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());

    tier.refuses_writes.store(true, Ordering::Relaxed);
    let accepted: Vec<bool> = (1500..4000).map(|i| put(&pool, 0, i, noise(i)).is_ok()).collect();
    assert!(accepted.contains(&false), "puts went on without a tier");
    assert_eq!(store.tier_usage().unwrap().state, TierState::Failing);
    assert_all_there(&pool, 0..1500, noise);
    for (i, accepted) in (1500..).zip(&accepted) {
        let expected = accepted.then(|| Box::new(page(noise(i))));
        assert_eq!(get(&pool, 0, i).unwrap(), expected, "page {i}");
    }

    tier.refuses_writes.store(false, Ordering::Relaxed);
    let written = store.tier_usage().unwrap().written_extents;
    while store.tier_usage().unwrap().written_extents == written {
        store.wake_write_back();
        thread::yield_now();
    }
    (4000..6000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
}

#[test]
fn r1_a_tier_that_cannot_be_read_gives_errors_until_it_can() {
    let (store, tier) = tiered_store(2 << 20, 400);
    let pool = flat_pool(&store, "a", 20_000);
    let writer = Writer::start(&store);
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    tier.refuses_reads.store(true, Ordering::Relaxed);
    let lost = (0..1500).filter(|i| match get(&pool, 0, *i) {
        Ok(found) => *found.unwrap() != page(noise(*i)),
        Err(error) => error == GetError::TierUnavailable,
    });
    assert_eq!(lost.count() as u64, tiered_pages(&pool));
    let client = &store.clients()[0];
    assert_eq!((client.tier_errors, client.checksum_errors), (tiered_pages(&pool), 0));
    tier.refuses_reads.store(false, Ordering::Relaxed);
    assert_all_there(&pool, 0..1500, noise);
}

#[test]
fn r4_a_damaged_copy_is_an_error_and_counted() {
    let (store, tier) = tiered_store(2 << 20, 400);
    let pool = flat_pool(&store, "a", 20_000);
    let writer = Writer::start(&store);
    (0..1000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    let Ok(Entry::Tiered(tiered)) = pool.index().load(IndexSlot(3)) else { panic!("page 3 is in memory") };
    // The last bytes of a block are padding.
    for bit in (0..usize::from(tiered.block_bytes - 4) * 8).step_by(97) {
        let bit = tiered.start as usize * 8 + bit;
        tier.flip_bit(tiered.place.0, bit);
        assert_eq!(get(&pool, 0, 3), Err(GetError::Damaged), "bit {bit}");
        tier.flip_bit(tiered.place.0, bit);
    }
    assert!(*get(&pool, 0, 3).unwrap().unwrap() == page(noise(3)));
    assert!(store.clients()[0].checksum_errors > 300);
}

#[test]
fn r1_r7_a_tier_is_cleaned_when_much_in_it_is_dead() {
    let (store, tier) = tiered_store(2 << 20, 60);
    let pool = flat_pool(&store, "a", 4000);
    let writer = Writer::start(&store);
    // In a tier for some 1800 pages, 1200 are overwritten at random over and over.
    let (mut state, mut seeds) = (9_u64, vec![0; 1200]);
    for i in 0..12_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let index = if i < 1200 { i } else { (state >> 33) % 1200 };
        seeds[index as usize] = noise(i);
        put(&pool, 0, index, noise(i)).unwrap();
    }
    drop(writer);
    assert_eq!(store.clients()[0].refused_puts, 0);
    assert_all_there(&pool, 0..1200, |i| seeds[i as usize]);
    store.clean_tier(LONG);
    let usage = store.tier_usage().unwrap();
    assert!(tier.copies() <= 60 && usage.used_bytes <= 60 * EXTENT_BYTES as u64);
    assert_all_there(&pool, 0..1200, |i| seeds[i as usize]);
}

#[test]
fn r7_the_tier_learns_what_is_not_needed_though_nothing_is_written() {
    let (store, tier) = tiered_store(2 << 20, 400);
    let pool = flat_pool(&store, "a", 4000);
    let writer = Writer::start(&store);
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    pool.flush_object(ObjectId(0));
    store.clean_tier(LONG);
    assert_eq!(tier.copies(), 0);
}

#[test]
fn r2_a_full_tier_refuses_and_says_so() {
    let (store, _tier) = tiered_store(2 << 20, 10);
    let pool = flat_pool(&store, "a", 4000);
    let _writer = Writer::start(&store);
    let accepted = (0..1500).filter(|i| put(&pool, 0, *i, noise(*i)).is_ok()).count();
    assert!((600..900).contains(&accepted), "{accepted}");
    assert_eq!(store.tier_usage().unwrap().state, TierState::Full);
    let found =
        (0..1500).filter(|i| get(&pool, 0, *i).unwrap().is_some_and(|found| *found == page(noise(*i))));
    assert_eq!(found.count(), accepted);
    // Forgetting pages makes room again.
    pool.flush_range(ObjectId(0), 0..700);
    assert!((2000..2300).all(|i| put(&pool, 0, i, noise(i)).is_ok()));
}

#[test]
fn r1_old_pages_go_without_any_need_if_told_so() {
    let (store, _tier) = tiered_store(16 << 20, 400);
    let pool = flat_pool(&store, "a", 4000);
    (0..1000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    assert_eq!(store.write_back(LONG).written_back_pages, 0);
    // What is cold is first moved to extents for cold pages.
    store.set_recompression(RecompressionOptions { age: Duration::ZERO, ..Default::default() }).unwrap();
    store.recompress(LONG);
    store.set_write_back_options(WriteBackOptions { age: Some(Duration::ZERO), write_through: false });
    let done = store.write_back(LONG);
    assert!(done.written_back_pages > 900 && !done.blocked, "{done:?}");
    assert_eq!(tiered_pages(&pool), done.written_back_pages);
    assert_all_there(&pool, 0..1000, noise);
    // There is plenty of room, so what was fetched came back to memory.
    assert_eq!((tiered_pages(&pool), store.tier_usage().unwrap().used_bytes), (0, 0));
}

#[test]
fn r1_r7_shared_blocks_go_to_the_tier_and_come_back() {
    let (store, _tier) = tiered_store(8 << 20, 400);
    let clients = ["a", "b"].map(|name| {
        let options =
            crate::ClientOptions { dedup: Dedup::Domain("web".to_owned()), ..client_options(name, None) };
        store.create_client(options).unwrap()
    });
    let pools = clients
        .map(|client| client.create_pool(Persistence::Persistent, Keys::Flat { pages: 6000 }).unwrap());
    let writer = Writer::start(&store);
    for i in 0..5000 {
        pools.iter().for_each(|pool| put(pool, 0, i, noise(i)).unwrap());
    }
    drop(writer);
    let usage = store.tier_usage().unwrap();
    let own: u64 = store.clients().iter().map(|client| client.tiered_pages).sum();
    assert!(usage.stored_pages > 1000 && own < 300, "{usage:?}, {own} pages unshared");
    for pool in &pools {
        assert_all_there(pool, 0..5000, noise);
    }
    pools[0].flush_object(ObjectId(0));
    assert_all_there(&pools[1], 0..5000, noise);
    pools[1].flush_object(ObjectId(0));
    let (usage, in_tier) = (store.usage(), store.tier_usage().unwrap());
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!((in_tier.used_bytes, in_tier.live_bytes, in_tier.stored_pages), (0, 0, 0));
}

#[test]
fn r1_pages_in_a_tier_are_found_again_when_the_store_is_opened() {
    let (keeper, tier) = (Arc::<TestKeeper>::default(), TestTier::new(400));
    let store = keeper.store(2 << 20);
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 4000);
    let writer = Writer::start(&store);
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    (0..1500).step_by(7).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    drop(writer);
    let (before, tier_before) = (store.usage(), store.tier_usage());
    store.detach();
    drop((pool, store));

    let (store, recovery) = keeper.open(2 << 20);
    assert_eq!((recovery.damaged_pages, recovery.found_pages), (0, before.stored_pages));
    let pool = store.client("a").unwrap().pools().remove(0);
    assert_eq!(get(&pool, 0, 1), Err(GetError::TierUnavailable), "there is no tier yet");
    assert!(matches!(store.attach_tier(TestTier::new(3)), Err(StoreError::TierTooSmall { places: 3, .. })));
    store.attach_tier(tier.clone()).unwrap();
    assert!(matches!(store.attach_tier(tier), Err(StoreError::SecondTier { .. })));
    let (after, tier_before) = (store.tier_usage().unwrap(), tier_before.unwrap());
    assert_eq!((after.live_bytes, after.used_bytes), (tier_before.live_bytes, tier_before.used_bytes));
    for i in 0..1500 {
        let expected = (i % 7 != 0).then(|| Box::new(page(noise(i))));
        assert_eq!(get(&pool, 0, i).unwrap(), expected, "page {i}");
    }
    assert_eq!(put(&pool, 0, 4000, 4), Err(PutError::NoSuchPage));
}

/// r1: whoever hands the store over knows that nobody changes anything in it any more.
#[test]
fn r1_handing_over_waits_for_what_is_being_written() {
    let (keeper, tier) = (Arc::<TestKeeper>::default(), TestTier::new(400));
    let store = keeper.store(4 << 20);
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 4000);
    (0..900).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    tier.delay_us.store(200_000, Ordering::Relaxed);
    thread::scope(|scope| {
        let writing = scope.spawn(|| store.write_back(LONG));
        while tier.writes_begun.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        store.detach();
        let before = tiered_pages(&pool);
        writing.join().unwrap();
        assert_eq!(tiered_pages(&pool), before);
    });
}

/// r1: of places of a disk that came back smaller none is used that is not there.
#[test]
fn r1_a_tier_that_comes_back_smaller_is_used_as_far_as_it_goes() {
    let (keeper, tier) = (Arc::<TestKeeper>::default(), TestTier::new(400));
    let store = keeper.store(2 << 20);
    store.attach_tier(tier.clone()).unwrap();
    let pool = flat_pool(&store, "a", 4000);
    let writer = Writer::start(&store);
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    drop(writer);
    // A page with a high place stays there.
    let last = (0..1500).max_by_key(|i| match pool.index().load(IndexSlot(*i)) {
        Ok(Entry::Tiered(tiered)) => tiered.place.0,
        _ => 0,
    });
    let last = u64::from(last.unwrap());
    pool.flush_range(ObjectId(0), 0..last);
    pool.flush_range(ObjectId(0), last + 1..1500);
    store.detach();
    drop((pool, store));
    let (store, _) = keeper.open(2 << 20);
    // Missing when it was attached.
    tier.shrink_to(0);
    store.attach_tier(tier.clone()).unwrap_err();
    tier.refuses_writes.store(true, Ordering::Relaxed);
    store.attach_tier(tier.clone()).unwrap();
    tier.refuses_writes.store(false, Ordering::Relaxed);
    tier.shrink_to(20);
    let pool = store.client("a").unwrap().pools().remove(0);
    let _writer = Writer::start(&store);
    let accepted: Vec<_> = (0..1500).filter(|i| *i != last && put(&pool, 0, *i, noise(*i)).is_ok()).collect();
    assert!((500..1400).contains(&accepted.len()), "{}", accepted.len());
    accepted.iter().for_each(|i| assert!(*get(&pool, 0, *i).unwrap().unwrap() == page(noise(*i))));
}

#[test]
fn r1_r7_written_through_every_full_extent_is_in_the_tier_and_room_takes_no_writing() {
    let (store, tier) = tiered_store(16 << 20, 400);
    store.set_write_back_options(WriteBackOptions { age: None, write_through: true });
    let pool = flat_pool(&store, "a", 20_000);
    (0..2000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    store.write_back(LONG);
    let usage = store.tier_usage().unwrap();
    let (held, full) = (store.held_bytes(), 2000 / 31);
    assert_eq!((usage.written_extents, tier.copies() as u64, tiered_pages(&pool)), (full, full, 0));
    assert_eq!(usage.used_bytes, full * EXTENT_BYTES as u64);

    // Nothing leaves memory for a tier that fails.
    tier.refuses_writes.store(true, Ordering::Relaxed);
    store.set_limit_bytes(3 << 20).unwrap();
    let done = store.write_back(LONG);
    assert!(done.written_back_pages == 0 && done.blocked && tiered_pages(&pool) == 0, "{done:?}");
    tier.refuses_writes.store(false, Ordering::Relaxed);
    // All but what is kept free goes at once, though nothing can be written.
    tier.is_full.store(true, Ordering::Relaxed);
    let done = store.write_back(LONG);
    assert!(done.written_back_pages > 1300 && done.written_extents == 0, "{done:?}");
    assert!(store.held_bytes() < 3 << 20 && held > 8 << 20);
    tier.is_full.store(false, Ordering::Relaxed);
    assert_all_there(&pool, 0..2000, noise);

    pool.flush_object(ObjectId(0));
    assert_eq!((store.held_bytes(), store.tier_usage().unwrap().used_bytes), (0, 0));
}

#[test]
fn r7_copies_of_pages_that_are_in_memory_go_with_them() {
    let (store, _tier) = tiered_store(16 << 20, 400);
    let pool = flat_pool(&store, "a", 20_000);
    (0..1000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    // What was there before the mode was changed is copied, too.
    store.set_write_back_options(WriteBackOptions { age: None, write_through: true });
    store.write_back(LONG);
    assert_eq!(store.tier_usage().unwrap().written_extents, 1000 / 31);
    let before = store.tier_usage().unwrap().used_bytes;
    (0..500).for_each(|i| put(&pool, 0, i, noise(i + 7000)).unwrap());
    assert!(store.tier_usage().unwrap().used_bytes < before * 6 / 10);
    store.write_back(LONG);
    assert_all_there(&pool, 0..500, |i| noise(i + 7000));
    pool.flush_object(ObjectId(0));
    assert_eq!((store.held_bytes(), store.tier_usage().unwrap().used_bytes), (0, 0));
}

#[test]
fn r6_a_noisy_client_takes_no_page_of_one_within_its_share_out_of_memory() {
    let (store, _tier) = tiered_store(16 << 20, 2000);
    let quiet = flat_pool(&store, "quiet", 2000);
    let noisy = flat_pool(&store, "noisy", 40_000);
    let writer = Writer::start(&store);
    // Some four of its eight mebibytes, of which it uses one in seven of the pages.
    (0..1000).for_each(|i| put(&quiet, 0, i, noise(i)).unwrap());
    let ends = AtomicBool::new(false);
    let overwrites = thread::scope(|scope| {
        let noise_maker = scope.spawn(|| {
            // All that it can be refused for is that the tier does not keep up.
            let accepted = (0..30_000).filter(|i| put(&noisy, 0, *i, noise(*i + 5000)).is_ok()).count();
            ends.store(true, Ordering::Relaxed);
            accepted
        });
        let mut overwrites = 0;
        while !ends.load(Ordering::Relaxed) {
            let i = overwrites % 150;
            assert!(*get(&quiet, 0, i).unwrap().unwrap() == page(noise(i)));
            put(&quiet, 0, i, noise(i)).unwrap();
            overwrites += 1;
            // So many that the rest are old, if they are told by puts and not by time.
            if overwrites % 50 == 0 {
                store.tend_ages(LONG);
            }
        }
        assert!(noise_maker.join().unwrap() > 20_000);
        overwrites
    });
    drop(writer);
    let clients = store.clients();
    let (quiet_usage, noisy_usage) = (&clients[0], &clients[1]);
    assert_eq!((quiet_usage.tiered_pages, quiet_usage.refused_puts, quiet_usage.tier_gets), (0, 0, 0));
    assert!(overwrites > 0 && noisy_usage.tiered_pages > 20_000, "{noisy_usage:?}");
    // Nothing is written of which nothing goes: an extent has 31 such pages.
    let (written, gone) = (store.tier_usage().unwrap().written_extents, noisy_usage.written_back_pages);
    assert!(written <= gone / 31 * 2, "{written} extents written for {gone} pages");
    assert_all_there(&quiet, 0..1000, noise);
}

#[test]
fn r6_what_overwriting_leaves_behind_is_made_room_of_before_anything_is_written() {
    let (store, _tier) = tiered_store(16 << 20, 2000);
    let busy = flat_pool(&store, "busy", 1000);
    let growing = flat_pool(&store, "growing", 4000);
    (0..1000).for_each(|i| put(&busy, 0, i, noise(i)).unwrap());
    // Each page that stays has four about it that do not, so that no extent comes back by itself.
    let grow = |pages: std::ops::Range<u64>| {
        for i in pages {
            put(&growing, 0, i, noise(i + 5000)).unwrap();
            (0..4).map(|n| (i * 4 + n) % 150).for_each(|i| put(&busy, 0, i, noise(i)).unwrap());
            if i % 10 == 0 {
                store.write_back(LONG);
                store.tend_ages(LONG);
            }
        }
    };
    // Ten of sixteen mebibytes.
    grow(0..1500);
    assert_eq!(store.tier_usage().unwrap().written_extents, 0);
    grow(1500..4000);
    let (busy_usage, growing_usage) = (&store.clients()[0], &store.clients()[1]);
    assert_eq!((busy_usage.tiered_pages, busy_usage.tier_gets), (0, 0), "it is within its share");
    let (written, gone) = (store.tier_usage().unwrap().written_extents, growing_usage.written_back_pages);
    assert!(gone > 1000 && written <= gone / 31 * 2, "{written} extents written for {gone} pages");
    assert_all_there(&busy, 0..1000, noise);
    assert_all_there(&growing, 0..4000, |i| noise(i + 5000));
}

#[test]
fn r6_the_pages_of_an_idle_client_go_before_those_of_a_busy_one() {
    let (store, _tier) = tiered_store(8 << 20, 2000);
    store
        .set_recompression(RecompressionOptions { age: Duration::from_millis(50), ..Default::default() })
        .unwrap();
    let (idle, busy) = (flat_pool(&store, "idle", 2000), flat_pool(&store, "busy", 4000));
    (0..700).for_each(|i| put(&idle, 0, i, noise(i)).unwrap());
    thread::sleep(Duration::from_millis(1100)); // the shortest time after which an epoch ends by itself
    store.tend_ages(LONG);
    for round in 0..40 {
        (0..20).for_each(|i| put(&busy, 0, round * 20 + i, noise(round * 20 + i + 7000)).unwrap());
        (0..(round + 1) * 20).for_each(|i| assert!(get(&busy, 0, i).unwrap().is_some()));
        thread::sleep(Duration::from_millis(5));
        store.tend_ages(LONG);
    }
    // Neither has had its share, but something has to go.
    (2000..2500).for_each(|i| {
        put(&busy, 0, i, noise(i)).unwrap();
        store.write_back(LONG);
    });
    let clients = store.clients();
    assert!(clients[0].tiered_pages > 250, "{:?}", clients[0]);
    assert!(clients[1].tiered_pages < 100, "{:?}", clients[1]);
}
