//! Random operations on several pools under a tight limit, held against a HashMap.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    pages::{TestKeeper, client_options, get, get_many, page, put},
    test_tier::TestTier,
};
use crate::{
    Client, ClientSettings, GetError, Keys, ObjectId, PageIndex, Persistence, Pool, PutError,
    RecompressionOptions, Store, Weight, WriteBackOptions,
};

#[derive(Clone, Debug)]
enum Step {
    Put { pool: usize, object: u64, index: u64, seed: u32 },
    Get { pool: usize, object: u64, index: u64 },
    GetMany { pool: usize, object: u64, index: u64, count: u64 },
    FlushPage { pool: usize, object: u64, index: u64 },
    FlushRange { pool: usize, object: u64, start: u64, len: u64 },
    FlushObject { pool: usize, object: u64 },
    Limit { mebibytes: u64 },
    Compact,
    Recompress { cold: bool },
    TendAges,
    WriteBack { old: bool, through: bool },
    CleanTier,
    TierFails { fails: bool },
    Recreate { pool: usize },
    Settings { pool: usize, settings: ClientSettings },
    Reopen,
}

const FLAT_PAGES: u64 = 1500;

fn step() -> impl Strategy<Value = Step> {
    let key = || (0..3usize, 0..3u64, prop_oneof![0..40u64, 0..FLAT_PAGES]);
    prop_oneof![
        40 => (key(), prop_oneof![any::<u32>(), 0..60u32]).prop_map(|((pool, object, index), seed)| Step::Put { pool, object, index, seed }),
        20 => key().prop_map(|(pool, object, index)| Step::Get { pool, object, index }),
        5 => (key(), 2..20u64).prop_map(|((pool, object, index), count)| Step::GetMany { pool, object, index, count }),
        8 => key().prop_map(|(pool, object, index)| Step::FlushPage { pool, object, index }),
        3 => (key(), 0..600u64).prop_map(|((pool, object, start), len)| Step::FlushRange { pool, object, start, len }),
        1 => key().prop_map(|(pool, object, _)| Step::FlushObject { pool, object }),
        1 => (1..3u64).prop_map(|mebibytes| Step::Limit { mebibytes }),
        1 => Just(Step::Compact),
        2 => any::<bool>().prop_map(|cold| Step::Recompress { cold }),
        1 => Just(Step::TendAges),
        4 => any::<(bool, bool)>().prop_map(|(old, through)| Step::WriteBack { old, through }),
        1 => Just(Step::CleanTier),
        1 => prop::bool::weighted(0.2).prop_map(|fails| Step::TierFails { fails }),
        1 => (0..3usize).prop_map(|pool| Step::Recreate { pool }),
        2 => (0..3usize, settings()).prop_map(|(pool, settings)| Step::Settings { pool, settings }),
        1 => Just(Step::Reopen),
    ]
}

fn settings() -> impl Strategy<Value = ClientSettings> {
    (proptest::option::of(0..2u64 << 20), Weight::RANGE, prop::bool::weighted(0.3)).prop_map(
        |(cap_bytes, weight, frozen)| ClientSettings {
            cap_bytes,
            weight: Weight::new(weight).unwrap(),
            frozen,
        },
    )
}

/// What the model knows of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Page(u32),
    Refused,
}

struct World {
    keeper: Arc<TestKeeper>,
    tier: Arc<TestTier>,
    store: Arc<Store>,
    pools: Vec<(Arc<Client>, Arc<Pool>)>,
    known: HashMap<(usize, u64, u64), Known>,
    lives: usize,
    settings: [ClientSettings; 3],
    /// What each may use: its cap, or what it may have used when that was lowered.
    most_bytes: [u64; 3],
}

/// How clients are at first: one with a cap.
fn first_settings(number: usize) -> ClientSettings {
    ClientSettings { cap_bytes: (number == 1).then_some(700 << 10), ..ClientSettings::default() }
}

/// Pool 0: a disk. Pool 1: persistent, many objects. Pool 2: ephemeral.
fn make_pool(store: &Store, number: usize, life: usize) -> (Arc<Client>, Arc<Pool>) {
    let cap_bytes = first_settings(number).cap_bytes;
    let client = store.create_client(client_options(&format!("c{number}-{life}"), cap_bytes)).unwrap();
    let persistence = if number == 2 { Persistence::Ephemeral } else { Persistence::Persistent };
    let keys =
        if number == 0 { Keys::Flat { pages: FLAT_PAGES } } else { Keys::Sparse { max_pages: 1 << 20 } };
    let pool = client.create_pool(persistence, keys).unwrap();
    (client, pool)
}

impl World {
    fn new(tier: Arc<TestTier>) -> Self {
        let keeper = Arc::<TestKeeper>::default();
        let store = keeper.store(2 << 20);
        store.attach_tier(tier.clone()).unwrap();
        let pools = (0..3).map(|number| make_pool(&store, number, 0)).collect();
        let settings = [0, 1, 2].map(first_settings);
        let most_bytes = settings.map(|settings| settings.cap_bytes.unwrap_or(u64::MAX));
        Self { keeper, tier, store, pools, known: HashMap::new(), lives: 0, settings, most_bytes }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put { pool, object, index, seed } => {
                let key = (pool, object, index);
                let ClientSettings { cap_bytes, frozen, .. } = self.settings[pool];
                match put(&self.pools[pool].1, object, index, seed) {
                    Ok(()) => {
                        assert!(!frozen);
                        self.known.insert(key, Known::Page(seed));
                    }
                    Err(PutError::NoSuchPage) => assert!(pool == 0 && object != 0),
                    Err(error) => {
                        match error {
                            PutError::Full | PutError::OverShare => assert!(!frozen),
                            PutError::OverCap => assert!(!frozen && cap_bytes.is_some()),
                            PutError::Frozen => assert!(frozen),
                            error => panic!("{error}"),
                        }
                        if let Some(known) = self.known.get_mut(&key) {
                            *known = Known::Refused; // whatever was there is gone
                        }
                    }
                }
            }
            Step::Get { pool, object, index } => self.check(pool, object, index),
            Step::GetMany { pool, object, index, count } => {
                let indices: Vec<u64> = (index..index + count).collect();
                let found = get_many(&self.pools[pool].1, object, &indices);
                for (index, got) in indices.into_iter().zip(found) {
                    self.judge(pool, object, index, got.map(|found| found.map(Box::new)));
                }
            }
            Step::FlushPage { pool, object, index } => {
                self.pools[pool].1.flush_page(ObjectId(object), PageIndex(index));
                self.known.remove(&(pool, object, index));
            }
            Step::FlushRange { pool, object, start, len } => {
                self.pools[pool].1.flush_range(ObjectId(object), start..start + len);
                self.forget(|key| key.0 == pool && key.1 == object && (start..start + len).contains(&key.2));
            }
            Step::FlushObject { pool, object } => {
                self.pools[pool].1.flush_object(ObjectId(object));
                self.forget(|key| key.0 == pool && key.1 == object);
            }
            Step::Limit { mebibytes } => self.store.set_limit_bytes(mebibytes << 20).unwrap(),
            Step::Compact => {
                let before = self.store.usage();
                self.store.compact(Duration::from_secs(10));
                let after = self.store.usage();
                // A round may end with one extent half filled.
                assert!(after.held_bytes <= before.held_bytes + (128 << 10));
                assert!(after.held_bytes <= before.held_bytes.max(after.limit_bytes));
            }
            Step::Recompress { cold } => {
                let age = if cold { Duration::ZERO } else { Duration::from_secs(60) };
                self.store.set_recompression(RecompressionOptions { age, ..Default::default() }).unwrap();
                let before = self.store.usage();
                let done = self.store.recompress(Duration::from_secs(10));
                let after = self.store.usage();
                assert_eq!(before.used_bytes - after.used_bytes, done.saved_bytes);
                assert_eq!(before.stored_pages, after.stored_pages);
                assert!(after.held_bytes <= before.held_bytes.max(after.limit_bytes));
            }
            Step::TendAges => self.store.tend_ages(Duration::from_secs(10)),
            Step::WriteBack { old, through } => {
                let age = old.then_some(Duration::ZERO);
                self.store.set_write_back_options(WriteBackOptions { age, write_through: through });
                let before = self.store.usage();
                let done = self.store.write_back(Duration::from_secs(10));
                let after = self.store.usage();
                assert!(!done.more && after.held_bytes <= before.held_bytes);
                assert!(done.written_back_pages == 0 || after.compressed_bytes < before.compressed_bytes);
            }
            Step::CleanTier => {
                let before = self.store.tier_usage().unwrap();
                let done = self.store.clean_tier(Duration::from_secs(10));
                let after = self.store.tier_usage().unwrap();
                assert!(after.used_bytes <= before.used_bytes, "{done:?}");
                assert_eq!((after.live_bytes, after.stored_pages), (before.live_bytes, before.stored_pages));
            }
            Step::TierFails { fails } => self.tier.refuses_writes.store(fails, Ordering::Relaxed),
            Step::Recreate { pool } => {
                self.store.remove_client(&self.pools[pool].0).unwrap();
                assert_eq!(put(&self.pools[pool].1, 0, 0, 2), Err(PutError::Destroyed));
                self.lives += 1;
                self.pools[pool] = make_pool(&self.store, pool, self.lives);
                self.forget(|key| key.0 == pool);
                self.settings[pool] = first_settings(pool);
                self.most_bytes[pool] = self.settings[pool].cap_bytes.unwrap_or(u64::MAX);
            }
            Step::Settings { pool, settings } => {
                self.pools[pool].0.change(|now| *now = settings).unwrap();
                self.settings[pool] = settings;
                self.most_bytes[pool] = self.most_bytes[pool].max(settings.cap_bytes.unwrap_or(u64::MAX));
            }
            Step::Reopen => self.reopen(),
        }
    }

    /// The process dies and another one opens the files: nothing has changed but what clients have done.
    fn reopen(&mut self) {
        let (before, tier_before) = (self.store.usage(), self.store.tier_usage().unwrap());
        let names: Vec<_> = self.pools.iter().map(|(client, _)| client.name().to_owned()).collect();
        self.store.detach();
        self.pools.clear();
        let (store, recovery) = self.keeper.open(before.limit_bytes);
        self.store = store;
        self.store.attach_tier(self.tier.clone()).unwrap();
        self.pools = names
            .iter()
            .map(|name| {
                let client = self.store.client(name).unwrap();
                let pool = client.pools().remove(0);
                (client, pool)
            })
            .collect();
        let found = self.pools.iter().map(|(client, _)| client.settings());
        assert!(found.eq(self.settings));
        let after = self.store.usage();
        // The tables that equal pages are found by may have been larger than they had to be.
        let tables = 2 * self.pools.len() as u64 * 4096 * 4;
        assert!(
            (before.used_bytes.saturating_sub(tables)..=before.used_bytes + tables)
                .contains(&after.used_bytes)
        );
        assert_eq!(
            (after.compressed_bytes, after.stored_pages),
            (before.compressed_bytes, before.stored_pages)
        );
        assert!(after.held_bytes <= before.held_bytes + tables);
        assert_eq!((recovery.damaged_pages, recovery.damaged_records, recovery.leftover_files), (0, 0, 0));
        assert_eq!(recovery.found_pages, after.stored_pages);
        let tier_after = self.store.tier_usage().unwrap();
        assert_eq!(
            (tier_after.live_bytes, tier_after.stored_pages),
            (tier_before.live_bytes, tier_before.stored_pages)
        );
        // Copies of what is in memory are made anew.
        assert!(tier_after.used_bytes <= tier_before.used_bytes);
        // What was evicted is not counted any more.
        let cache = self.pools[2].1.clone();
        self.forget(|key| key.0 == 2 && get(&cache, key.1, key.2) == Ok(None));
    }

    fn forget(&mut self, which: impl Fn(&(usize, u64, u64)) -> bool) {
        self.known.retain(|key, _| !which(key));
    }

    /// r1, r2, r3: a persistent page is what was put last; an ephemeral one that or nothing; a refused one never an older page.
    fn check(&self, pool: usize, object: u64, index: u64) {
        self.judge(pool, object, index, get(&self.pools[pool].1, object, index));
    }

    fn judge(
        &self,
        pool: usize,
        object: u64,
        index: u64,
        got: Result<Option<Box<[u8; crate::PAGE_BYTES]>>, GetError>,
    ) {
        match self.known.get(&(pool, object, index)) {
            Some(Known::Page(seed)) => match got {
                Ok(Some(found)) => assert!(*found == page(*seed), "pool {pool} gave a wrong page"),
                Ok(None) => assert_eq!(pool, 2, "a persistent page is gone"),
                Err(error) => panic!("pool {pool}: {error}"),
            },
            Some(Known::Refused) => assert!(matches!(got, Err(GetError::Refused) | Ok(None))),
            None if pool == 0 && (object != 0 || index >= FLAT_PAGES) => {
                assert_eq!(got, Err(GetError::NoSuchPage));
            }
            None => assert_eq!(got, Ok(None)),
        }
    }

    /// r7: the sums agree with each other and with the model, and nothing exceeds the limit.
    fn check_books(&self) {
        let (usage, clients) = self.store.snapshot();
        assert_eq!(usage.used_bytes, clients.iter().map(|client| client.used_bytes).sum::<u64>());
        assert!(usage.used_bytes <= usage.held_bytes);
        assert!(usage.compressed_bytes + usage.metadata_bytes <= usage.used_bytes);
        for client in &clients {
            let number: usize = client.name[1..2].parse().unwrap();
            let known = self.known.iter().filter(|(key, known)| key.0 == number && **known != Known::Refused);
            let known = known.count() as u64;
            if number == 2 {
                assert_eq!(
                    client.stored_pages + client.evicted_pages.min(known - client.stored_pages),
                    known
                );
            } else {
                assert_eq!(client.stored_pages, known, "{client:?}");
            }
            assert!(client.used_bytes <= self.most_bytes[number]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn r1_r2_r3_r7_the_store_does_what_a_hash_map_does(
        kind in 0..3,
        steps in proptest::collection::vec(step(), 1..3000),
    ) {
        let tier = match kind {
            0 => TestTier::new(24),
            1 => TestTier::of_blocks(48),
            _ => TestTier::backed(24),
        };
        let mut world = World::new(tier);
        for (number, step) in steps.into_iter().enumerate() {
            world.run(step);
            if number % 64 == 0 {
                world.check_books();
            }
        }
        world.check_books();
        let keys: Vec<_> = world.known.keys().copied().collect();
        for (pool, object, index) in keys {
            world.check(pool, object, index);
        }
        for (_, pool) in &world.pools {
            (0..3).for_each(|object| pool.flush_object(ObjectId(object)));
        }
        let usage = world.store.usage();
        prop_assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
        prop_assert_eq!(world.store.engine().arena.allocated_bytes().unwrap(), 0);
        prop_assert_eq!(world.store.tier_usage().unwrap().used_bytes, 0);
    }
}
