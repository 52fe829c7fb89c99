//! Ages, by themselves and in a pool, held against a model that remembers the exact clock of every page.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashMap, thread};

use proptest::prelude::*;

use super::*;
use crate::{
    ObjectId, PageIndex,
    age_table::tests::table,
    tests::pages::{flat_pool, get, put, store},
};

fn new_ages() -> Ages {
    Ages::over(table(), 0)
}

fn cold(age_ms: Milliseconds, now_ms: Milliseconds) -> Cold {
    Cold { age_ms, now_ms, older_is_cold: true }
}

/// Ages of a client whose entries are the values of a map, as the index is for a pool.
struct World {
    ages: Ages,
    table: AgeTable,
    puts: u64,
    time_ms: u64,
    /// Stamp, exact clock and exact epoch.
    pages: HashMap<u32, (Stamp, u64, u64)>,
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32),
    Get(u32),
    Flush(u32),
    ManyPuts(u64),
    Time(u64),
    Sweep,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let page = || prop_oneof![0..50u32, 0..20_000u32];
    prop_oneof![
        6 => page().prop_map(Step::Put),
        6 => page().prop_map(Step::Get),
        1 => page().prop_map(Step::Flush),
        4 => (1..3000u64).prop_map(Step::ManyPuts),
        1 => (0..60_000u64).prop_map(Step::Time),
        2 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ]
}

impl World {
    fn new() -> Self {
        let table = table();
        Self { ages: Ages::over(table.clone(), 0), table, puts: 0, time_ms: 0, pages: HashMap::new() }
    }

    fn put(&mut self, page: u32) {
        self.puts += 1;
        self.ages.count_put(self.puts, || (self.pages.len() as u64, self.time_ms));
        self.touch(page);
    }

    fn touch(&mut self, page: u32) {
        let epoch = self.ages.epoch.load(Ordering::Relaxed);
        self.pages.insert(page, (self.ages.stamp(), self.puts, epoch));
    }

    /// The distance that is told is not below the exact one, and at most the page's epoch above it; what is told as older is.
    fn check(&self, page: u32) {
        let Some(&(stamp, clock, epoch)) = self.pages.get(&page) else { return };
        let exact = self.puts - clock;
        // What stripes have not reported, or reported twice when batches changed: there is one stripe here.
        let unreported = 4 * MAX_BATCH_PUTS;
        let running = self.ages.epoch.load(Ordering::Relaxed);
        match self.ages.distance_pages(stamp) {
            None => assert!(running - epoch > RANGE, "{exact} pages are told as older"),
            Some(told) => {
                assert!(told + unreported >= exact, "{told} told for {exact}");
                let began =
                    |epoch: u64| self.ages.began[(epoch % EPOCHS) as usize].clock.load(Ordering::Relaxed);
                let clock = self.ages.clock.load(Ordering::Relaxed);
                let ended = if epoch == running { clock } else { began(epoch + 1) };
                let length = ended - began(epoch);
                assert!(told <= exact + length + unreported, "{told} told for {exact}, an epoch is {length}");
            }
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put(page) => self.put(page),
            Step::Get(page) => {
                self.check(page);
                if self.pages.contains_key(&page) {
                    self.touch(page);
                }
            }
            Step::Flush(page) => {
                self.pages.remove(&page);
            }
            Step::ManyPuts(count) => (0..count).for_each(|i| self.put((self.puts + i) as u32 % 20_000)),
            Step::Time(ms) => {
                self.time_ms += ms;
                let stored = self.pages.len() as u64;
                self.ages.end_long_epoch(self.puts, stored, Duration::from_secs(30), self.time_ms);
            }
            Step::Reopen => {
                self.ages = Ages::over(self.table.clone(), self.time_ms);
                self.pages.values_mut().for_each(|page| page.0 = self.ages.adopt(page.0));
            }
            Step::Sweep => {
                if let Some(sweep) = self.ages.begin_sweep() {
                    // Pages come and go while it runs.
                    for number in 0..20_000 {
                        if number % 5000 == 77 {
                            (0..100).for_each(|i| self.put(number + i));
                        }
                        let now = self.ages.stamp();
                        if let Some(page) = self.pages.get_mut(&number) {
                            page.0 = sweep.sweep(page.0, now);
                        }
                    }
                    self.ages.end_sweep(&sweep);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_distance_is_right_to_within_an_epoch_or_told_as_older(steps in proptest::collection::vec(step(), 1..400)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        (0..20_000).for_each(|page| world.check(page));
    }
}

#[test]
fn ages_come_round_many_times() {
    let mut world = World::new();
    for round in 0..2000u32 {
        (0..200).for_each(|i| world.put((round * 200 + i) % 7000));
        (0..7000).step_by(97).for_each(|page| world.check(page));
        world.run(Step::Sweep);
    }
    let epochs = world.ages.epoch.load(Ordering::Relaxed);
    assert!(epochs > 10 * EPOCHS, "{epochs} epochs");
}

#[test]
fn without_sweeps_the_running_epoch_gets_longer_and_nothing_is_told_too_near() {
    let mut world = World::new();
    world.put(0);
    for _ in 0..30_000 {
        world.put(1);
    }
    assert_eq!(world.ages.epoch.load(Ordering::Relaxed), EPOCHS - 1);
    world.check(0);
    world.check(1);
    assert_eq!(world.ages.distance_pages(world.pages[&0].0), Some(30_001));
}

#[test]
fn many_stored_pages_make_long_epochs() {
    let mut world = World::new();
    (0..64_000).for_each(|page| world.put(page));
    // From here on 64 epochs and more span what is stored.
    world.run(Step::Sweep);
    let before = world.ages.epoch.load(Ordering::Relaxed);
    (0..64_000).for_each(|page| world.put(page));
    let epochs = world.ages.epoch.load(Ordering::Relaxed) - before;
    assert!((5..=64).contains(&epochs), "{epochs} epochs");
}

#[test]
fn without_what_the_stamps_mean_every_page_is_old() {
    let mut world = World::new();
    world.run(Step::ManyPuts(5000));
    world.table.clear();
    world.run(Step::Reopen);
    assert!(world.pages.values().all(|page| page.0 == Stamp::OLD));
    world.puts = 0;
    world.pages.clear();
    world.run(Step::ManyPuts(5000));
    (0..5000).for_each(|page| world.check(page));
}

#[test]
fn pages_of_a_client_that_is_idle_since_the_store_was_opened_get_cold() {
    let table = table();
    let ages = Ages::over(table.clone(), 0);
    ages.count_put(1, || (1, 0));
    let stamp = ages.stamp();
    let ages = Ages::over(table, 1000);
    let stamp = ages.adopt(stamp);
    ages.end_long_epoch(0, 1, Duration::from_secs(30), 31_000);
    assert!(ages.is_cold(stamp, cold(60_000, 91_000)));
    let running = ages.stamp();
    ages.end_long_epoch(0, 1, Duration::from_secs(30), 1_000_000);
    assert_eq!(ages.stamp(), running, "it is idle");
}

#[test]
fn a_page_is_cold_when_its_epoch_ended_so_long_ago() {
    let ages = new_ages();
    let most = Duration::from_secs(30);
    let stamp = ages.stamp();
    assert!(
        ages.is_cold(stamp, cold(0, 0)) && !ages.is_cold(stamp, cold(60_000, 1_000_000)),
        "its epoch is still running"
    );
    ages.end_long_epoch(1, 1, most, 29_999);
    assert_eq!(ages.stamp(), stamp);
    ages.end_long_epoch(1, 1, most, 30_000);
    assert_ne!(ages.stamp(), stamp);
    assert!(!ages.is_cold(stamp, cold(60_000, 89_999)) && ages.is_cold(stamp, cold(60_000, 90_000)));
    // An idle client does not use up epochs.
    let running = ages.stamp();
    (1..1000).for_each(|minute| ages.end_long_epoch(1, 1, most, minute * 60_000));
    assert_eq!(ages.stamp(), running);
    assert!(ages.is_cold(Stamp::OLD, cold(60_000, 0)));
}

#[test]
fn what_is_older_by_puts_may_be_young_by_time() {
    let ages = new_ages();
    let by_time = |age_ms, now_ms| Cold { older_is_cold: false, ..cold(age_ms, now_ms) };
    assert!(ages.is_cold(Stamp::OLD, by_time(60_000, 60_000)), "the store was opened with it");
    // An epoch of 64 puts each millisecond.
    for puts in 1..=10_000 {
        ages.count_put(puts, || (1, 100_000 + puts / 64));
    }
    let sweep = ages.begin_sweep().unwrap();
    let epochs = ages.epoch.load(Ordering::Relaxed);
    assert_eq!(sweep.sweep(Stamp::of_epoch(epochs - RANGE - 1), ages.stamp()), Stamp::OLD);
    let newest_ms = 100_000 + epochs - RANGE;
    assert!(ages.is_cold(Stamp::OLD, cold(60_000, newest_ms)));
    assert!(!ages.is_cold(Stamp::OLD, by_time(60_000, newest_ms + 59_000)));
    assert!(ages.is_cold(Stamp::OLD, by_time(60_000, newest_ms + 61_000)));
    assert!(ages.is_cold(Stamp::OLD, by_time(0, newest_ms)));
}

#[test]
fn gets_of_a_pool_are_counted_by_their_distance() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 10_000);
    // Seeds of every kind: same-filled pages and such in blocks.
    (0..5000).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    let told = |page| {
        let before = store.clients()[0].reuse_distances.clone();
        get(&pool, 0, page).unwrap();
        let since = store.clients()[0].reuse_distances.since(&before);
        since.buckets().filter(|(_, gets)| *gets > 0).map(|(end, _)| end).next()
    };
    for page in [0, 1, 2, 3, 4] {
        let end = told(page).unwrap();
        assert!((4900..=6144).contains(&end), "page {page}, put 5000 puts ago: {end}");
        assert!(told(page).unwrap() <= 160, "page {page} again");
    }
    assert_eq!(told(7777), None, "there is no such page");
    pool.flush_page(ObjectId(0), PageIndex(2));
    assert_eq!(told(2), None);
    put(&pool, 0, 2, 9).unwrap();
    put(&pool, 0, 3000, 9).unwrap();
    assert!(told(2).unwrap() <= 160 && told(3000).unwrap() <= 160, "put again");
    assert_eq!(store.clients()[0].reuse_distances.older_gets(), 0);
}

#[test]
fn a_pool_is_swept_while_threads_use_it() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..3000).for_each(|i| put(&pool, 0, i, 1).unwrap());
    thread::scope(|scope| {
        let workers = [0, 1u64].map(|half| {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..60u64 {
                    for i in 3000..4000 {
                        put(pool, 0, i * 2 + half, 1).unwrap();
                        get(pool, 0, i * 2 + half).unwrap();
                    }
                    get(pool, 0, round * 2 + half).unwrap(); // put at the beginning
                }
            })
        });
        while workers.iter().any(|worker| !worker.is_finished()) {
            store.tend_ages(Duration::from_millis(1));
        }
    });
    // What was not touched for dozens of thousands of puts is not told as near, whichever way.
    store.tend_ages(Duration::from_secs(60));
    let before = store.clients()[0].reuse_distances.clone();
    assert_eq!(before.gets(), 2 * 60 * 1001);
    (200..3000).for_each(|i| assert!(get(&pool, 0, i).unwrap().is_some()));
    let since = store.clients()[0].reuse_distances.since(&before);
    assert_eq!((since.gets(), since.avoidable_gets(100_000)), (2800, 0), "{since:?}");
}
