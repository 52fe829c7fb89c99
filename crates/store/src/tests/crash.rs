//! The process dies between any two stores to shared memory: what is found afterwards is what a HashMap says.
//!
//! `TMEM_CRASHES=N` tries N places instead of some hundreds.

mod domains;

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    pages::{TestKeeper, client_options, get, page, put},
    test_tier::TestTier,
};
use crate::{
    Client, ClientOptions, Dedup, GetError, Keys, ObjectId, PageIndex, Persistence, Pool, PutError,
    RecompressionOptions, Recovery, Store, StoreOptions, WriteBackOptions,
    entry::Entry,
    fault_injection::{Outcome, crash_at},
    ids::IndexSlot,
};

const FLAT_PAGES: u64 = 1200;
const LIMIT: u64 = 1 << 20;
const POOLS: usize = 5;

type Key = (usize, u64, u64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Page(u32),
    Refused,
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: Key,
        seed: u32,
    },
    Flush {
        pool: usize,
        object: u64,
        start: u64,
        end: u64,
    },
    FlushObject {
        pool: usize,
        object: u64,
    },
    Compact,
    Recompress,
    WriteBack,
    CleanTier,
    /// From here on puts take only what this finds, unless that ends at once.
    StockUp {
        ends: bool,
    },
    Limit {
        mebibytes: u64,
    },
    RemoveClient {
        pool: usize,
    },
    DestroyPool {
        pool: usize,
    },
}

/// What outlives the process.
struct Model {
    keeper: Arc<TestKeeper>,
    tier: Arc<TestTier>,
    known: HashMap<Key, Known>,
    /// How often each client was made, or is just being made.
    lives: [u32; POOLS],
    /// What was going on when the process died.
    doing: Option<Step>,
    limit_bytes: u64,
    /// Pages moved or evicted so far.
    made_room: u64,
}

/// What dies with the process.
struct World {
    store: Arc<Store>,
    clients: Vec<(Arc<Client>, Arc<Pool>)>,
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
}

/// Traffic that fills the store many times over.
fn traffic(seed: u64, steps: usize) -> Vec<Step> {
    let state = &mut (seed * 977 + 1);
    let step = |_| {
        let pool = random(state) as usize % POOLS;
        let object = random(state) % objects(pool);
        let index = random(state) % if random(state).is_multiple_of(2) { 60 } else { FLAT_PAGES };
        match random(state) % 100 {
            // Some of few contents, which share blocks; most of the others do not compress, so that the store is full.
            0..20 => Step::Put { key: (pool, object, index), seed: (random(state) % 40) as u32 },
            20..82 => Step::Put { key: (pool, object, index), seed: random(state) as u32 / 5 * 5 + 4 },
            82..90 => Step::Flush { pool, object, start: index, end: index + 1 },
            90..92 => Step::Flush { pool, object, start: index, end: index + random(state) % 300 },
            92 => Step::StockUp { ends: !random(state).is_multiple_of(3) },
            93 => Step::FlushObject { pool, object },
            94 => Step::Compact,
            95 => Step::Recompress,
            96 if random(state).is_multiple_of(2) => Step::WriteBack,
            96 => Step::CleanTier,
            97 => Step::Limit { mebibytes: 1 + random(state) % 2 },
            98 => Step::RemoveClient { pool },
            _ => Step::DestroyPool { pool },
        }
    };
    (0..steps).map(step).collect()
}

fn objects(pool: usize) -> u64 {
    if matches!(pool, 1 | 2) { 3 } else { 1 }
}

fn options(pool: usize, life: u32) -> ClientOptions {
    let dedup = if pool > 2 { Dedup::Domain("web".to_owned()) } else { Dedup::Alone };
    ClientOptions { dedup, ..client_options(&format!("c{pool}-{life}"), None) }
}

/// Pool 0: a disk. Pool 1: persistent, many objects. Pool 2: ephemeral, with so few leaves that they are used again. Pools 3 and 4:
/// disks of two clients in one dedup domain.
fn make_pool(client: &Client, number: usize) -> Arc<Pool> {
    let (persistence, keys) = match number {
        1 => (Persistence::Persistent, Keys::Sparse { max_pages: 4000 }),
        2 => (Persistence::Ephemeral, Keys::Sparse { max_pages: 1600 }),
        _ => (Persistence::Persistent, Keys::Flat { pages: FLAT_PAGES }),
    };
    client.create_pool(persistence, keys).unwrap()
}

impl Model {
    fn new(tier: Arc<TestTier>) -> Self {
        Self {
            keeper: Arc::default(),
            tier,
            known: HashMap::new(),
            lives: [0; POOLS],
            doing: None,
            limit_bytes: LIMIT,
            made_room: 0,
        }
    }

    fn start(&self) -> World {
        let store = self.keeper.store(self.limit_bytes);
        store.attach_tier(self.tier.clone()).unwrap();
        let clients = (0..POOLS).map(|number| {
            let client = store.create_client(options(number, 0)).unwrap();
            let pool = make_pool(&client, number);
            (client, pool)
        });
        let clients = clients.collect();
        World { store, clients }
    }

    fn run(&mut self, world: &mut World, step: &Step) {
        self.doing = Some(step.clone());
        match *step {
            Step::Put { key, seed } => match put(&world.clients[key.0].1, key.1, key.2, seed) {
                Ok(()) => {
                    self.known.insert(key, Known::Page(seed));
                }
                Err(PutError::NoSuchPage) => assert!(key.0 == 2, "no leaf for {key:?}"),
                Err(error) => {
                    assert!(matches!(error, PutError::Full | PutError::OverShare), "{error}");
                    if let Some(known) = self.known.get_mut(&key) {
                        *known = Known::Refused;
                    }
                }
            },
            Step::Flush { pool, object, start, end } => {
                world.clients[pool].1.flush_range(ObjectId(object), start..end);
                self.known
                    .retain(|key, _| key.0 != pool || key.1 != object || !(start..end).contains(&key.2));
            }
            Step::FlushObject { pool, object } => {
                world.clients[pool].1.flush_object(ObjectId(object));
                self.known.retain(|key, _| key.0 != pool || key.1 != object);
            }
            Step::Compact => {
                let evicted = world.clients[2].0.usage().evicted_pages;
                self.made_room +=
                    evicted.min(1) + world.store.compact(Duration::from_secs(10)).moved_pages.min(1);
            }
            Step::Recompress => {
                let options = RecompressionOptions { age: Duration::ZERO, ..Default::default() };
                world.store.set_recompression(options).unwrap();
                world.store.recompress(Duration::from_secs(10));
            }
            Step::WriteBack => {
                let options = WriteBackOptions { age: Some(Duration::ZERO), write_through: true };
                world.store.set_write_back_options(options);
                world.store.write_back(Duration::from_secs(10));
            }
            Step::CleanTier => {
                world.store.clean_tier(Duration::from_secs(10));
            }
            Step::StockUp { ends } => {
                let engine = world.store.engine();
                engine.stock.forgo_waiting();
                engine.begin_stock();
                engine.stock_up(u64::MAX);
                if ends {
                    engine.end_stock();
                }
            }
            Step::Limit { mebibytes } => {
                self.limit_bytes = mebibytes << 20;
                world.store.set_limit_bytes(self.limit_bytes).unwrap();
            }
            Step::RemoveClient { pool } => {
                self.lives[pool] += 1;
                world.store.remove_client(&world.clients[pool].0).unwrap();
                let client = world.store.create_client(options(pool, self.lives[pool])).unwrap();
                let fresh = make_pool(&client, pool);
                world.clients[pool] = (client, fresh);
                self.known.retain(|key, _| key.0 != pool);
            }
            Step::DestroyPool { pool } => {
                let (client, old) = &mut world.clients[pool];
                client.destroy_pool(old);
                *old = make_pool(client, pool);
                self.known.retain(|key, _| key.0 != pool);
            }
        }
        self.doing = None;
    }

    /// Finds clients and pools again. What was being made or removed is made anew; by then it is all there or all gone.
    fn find(&mut self, store: Arc<Store>) -> World {
        let clients = (0..POOLS).map(|number| {
            let life = self.lives[number];
            let of_life = |life| store.client(&options(number, life).name);
            let older = life.checked_sub(1).and_then(of_life);
            let client = older.or_else(|| of_life(life)).unwrap_or_else(|| {
                self.assert_in_flight(number);
                store.create_client(options(number, life)).unwrap()
            });
            let mut pools = client.pools();
            assert!(pools.len() <= 1);
            let pool = pools.pop().unwrap_or_else(|| {
                self.assert_in_flight(number);
                self.known.retain(|key, _| key.0 != number);
                make_pool(&client, number)
            });
            (client, pool)
        });
        let clients: Vec<_> = clients.collect();
        if let Some(Step::RemoveClient { pool }) = self.doing {
            if clients[pool].0.name() == options(pool, self.lives[pool]).name {
                self.known.retain(|key, _| key.0 != pool);
            } else {
                self.lives[pool] -= 1;
            }
        }
        if let Some(Step::DestroyPool { pool }) = self.doing {
            // A new pool is empty, the old one is whole.
            let whole = self.known.iter().any(|(key, known)| {
                key.0 == pool && *known != Known::Refused && is(*known, &get(&clients[pool].1, key.1, key.2))
            });
            if !whole {
                self.known.retain(|key, _| key.0 != pool);
            }
        }
        World { store, clients }
    }

    fn assert_in_flight(&self, number: usize) {
        let going_on = matches!(
            self.doing,
            Some(Step::RemoveClient { pool } | Step::DestroyPool { pool }) if pool == number
        );
        assert!(going_on, "client {number} is gone during {:?}", self.doing);
    }

    /// Compares all keys there can be. What was in flight is settled as it was found.
    fn check(&mut self, world: &World) {
        for pool in 0..POOLS {
            for object in 0..objects(pool) {
                for index in 0..FLAT_PAGES {
                    self.check_key(world, (pool, object, index));
                }
            }
        }
        self.doing = None;
        let stored = world.store.usage().stored_pages;
        let known = self.known.values().filter(|known| **known != Known::Refused).count();
        assert_eq!(stored, known as u64);
        assert_cells_are_counted(world);
    }

    fn check_key(&mut self, world: &World, key: Key) {
        let got = get(&world.clients[key.0].1, key.1, key.2);
        let before = self.known.get(&key).copied();
        let as_before = match before {
            Some(known) => is(known, &got),
            None => got == Ok(None),
        };
        if as_before {
            return;
        }
        let may_be = match self.doing {
            Some(Step::Put { key: flying, seed }) if flying == key => {
                let refused = key.0 != 2 && before.is_some() && got == Err(GetError::Refused);
                if refused {
                    self.known.insert(key, Known::Refused);
                } else if is(Known::Page(seed), &got) {
                    self.known.insert(key, Known::Page(seed));
                }
                refused || is(Known::Page(seed), &got)
            }
            Some(Step::Flush { pool, object, start, end }) => {
                key.0 == pool && key.1 == object && (start..end).contains(&key.2) && got == Ok(None)
            }
            Some(Step::FlushObject { pool, object }) => key.0 == pool && key.1 == object && got == Ok(None),
            _ => false,
        };
        let may_be = may_be || key.0 == 2 && got == Ok(None);
        if got == Ok(None) {
            self.known.remove(&key);
        }
        assert!(may_be, "{key:?}: {before:?} became {} during {:?}", describe(&got), self.doing);
    }

    /// Opens the files, now and then dying on the way.
    fn open(&mut self, state: &mut u64) -> World {
        let open = |keeper: &Arc<TestKeeper>, limit_bytes| {
            let files = keeper.files();
            Store::open(files, StoreOptions { limit_bytes }, Some(keeper.clone())).unwrap()
        };
        for _ in 0..random(state) % 3 {
            let (keeper, limit) = (self.keeper.clone(), self.limit_bytes);
            if let Outcome::Finished((store, _), _) =
                crash_at(random(state) % 40, move || open(&keeper, limit))
            {
                store.detach();
            }
        }
        let (store, recovery): (_, Recovery) = open(&self.keeper, self.limit_bytes);
        while store.tend_dedup(Duration::from_secs(1)) {}
        assert_eq!((recovery.damaged_pages, recovery.damaged_records), (0, 0), "{recovery:?}");
        store.attach_tier(self.tier.clone()).unwrap();
        let arena = &store.engine().arena;
        assert_eq!(arena.free_extents_with_memory(), 0);
        self.find(store)
    }
}

/// Every cell counts the entries that name it, and all of them are of one domain.
fn assert_cells_are_counted(world: &World) {
    let mut named = HashMap::new();
    for (number, (_, pool)) in world.clients.iter().enumerate() {
        let domain = number.min(3);
        for slot in (0..pool.index().slots() as u32).map(IndexSlot) {
            if let Ok(Entry::Shared(shared)) = pool.index().load(slot) {
                let (of, pages, _) = named.entry(shared.cell.0).or_insert((domain, 0, shared));
                assert_eq!(*of, domain, "domains share cell {}", shared.cell.0);
                *pages += 1;
            }
        }
    }
    for (cell, (_, pages, shared)) in &named {
        assert_eq!(world.store.engine().shared_blocks.pages(*shared), *pages, "cell {cell}");
    }
    let pages: u32 = named.values().map(|(_, pages, _)| pages).sum();
    let in_clients: u64 = world.store.clients().iter().map(|client| client.dedup_pages).sum();
    assert_eq!(in_clients, u64::from(pages));
}

/// r7: nothing is held once nothing is stored.
fn assert_everything_goes_back(world: &World) {
    for (_, pool) in &world.clients {
        (0..3).for_each(|object| pool.flush_object(ObjectId(object)));
    }
    world.store.engine().end_stock();
    let usage = world.store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!(world.store.engine().arena.allocated_bytes().unwrap(), 0);
    assert_eq!(world.store.engine().shared_blocks.allocated_bytes().unwrap(), 0);
    assert_eq!(world.store.tier_usage().unwrap().used_bytes, 0);
}

fn is(known: Known, got: &Result<Option<Box<[u8; 4096]>>, GetError>) -> bool {
    match (known, got) {
        (Known::Page(seed), Ok(Some(found))) => **found == page(seed),
        (Known::Refused, got) => matches!(got, Err(GetError::Refused) | Ok(None)),
        _ => false,
    }
}

fn describe(got: &Result<Option<Box<[u8; 4096]>>, GetError>) -> String {
    match got {
        Ok(Some(_)) => "another page".to_owned(),
        Ok(None) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Runs some traffic, dies at the n-th store, opens the files, compares, goes on with the rest, gives everything back. Gives the
/// number of stores when it came to the end without dying.
fn die_at(n: u64, seed: u64, steps: usize) -> Option<u64> {
    let mut model = Model::new(match seed % 3 {
        0 => TestTier::new(24),
        1 => TestTier::of_blocks(60),
        _ => TestTier::backed(24),
    });
    let mut world = model.start();
    let steps = traffic(seed, steps);
    let mut done = 0;
    let (model_there, done_there) = (&mut model, &mut done);
    let outcome = crash_at(n, move || {
        for step in &steps {
            model_there.run(&mut world, step);
            *done_there += 1;
        }
        (world, steps)
    });
    let mut state = n.wrapping_mul(31) ^ seed << 40 | 1;
    let (mut world, rest, stores) = match outcome {
        Outcome::Finished((world, _), stores) => {
            assert!(model.made_room > 2, "traffic {seed} leaves too much room");
            world.store.detach();
            drop(world);
            (model.open(&mut state), Vec::new(), Some(stores))
        }
        Outcome::Crashed => (model.open(&mut state), traffic(seed, done + 150).split_off(done), None),
    };
    model.check(&world);
    for step in &rest {
        model.run(&mut world, step);
    }
    model.check(&world);
    assert_everything_goes_back(&world);
    stores
}

#[test]
fn r1_r2_r3_a_crash_between_any_two_stores_loses_nothing() {
    let tries: u64 = std::env::var("TMEM_CRASHES").ok().and_then(|n| n.parse().ok()).unwrap_or(240);
    // A full store, where every put compacts or evicts, and an empty one.
    let steps = 600;
    let mut state = 99;
    for seed in 0..4 {
        let all = die_at(u64::MAX, seed, steps).unwrap();
        assert!(all > 3000, "only {all} stores");
        for n in 0..tries / 8 {
            assert_eq!(die_at(n, seed, steps), None);
        }
        for _ in 0..tries / 8 {
            die_at(random(&mut state) % all, seed, steps);
        }
    }
}

/// Every place of an operation (of a long one only some) on a store with these pages in it.
fn die_everywhere_in(prepare: &[Step], step: &Step) {
    let (mut n, mut apart) = (0, 1);
    loop {
        let mut model = Model::new(TestTier::new(24));
        let mut world = model.start();
        prepare.iter().for_each(|step| model.run(&mut world, step));
        let there = &mut model;
        let outcome = crash_at(n, move || {
            there.run(&mut world, step);
            world.store.detach();
        });
        let world = model.open(&mut (n + 1));
        model.check(&world);
        assert_everything_goes_back(&world);
        drop(world);
        if let Outcome::Finished((), stores) = outcome {
            assert!(stores > 0, "{step:?} stores nothing");
            return;
        }
        apart += n / 20 % 2;
        n += apart;
    }
}

#[test]
fn r1_r2_r3_no_operation_can_be_cut_in_two() {
    let put = |pool, object, index: u64| Step::Put { key: (pool, object, index), seed: index as u32 * 3 + 2 };
    let small: Vec<_> = (0..3)
        .flat_map(|pool| (0..40).map(move |i| put(pool, if pool == 0 { 0 } else { i % 2 }, i * 5 % 64)))
        .collect();
    let half_dead: Vec<_> = (0..240)
        .map(|i| put(0, 0, i))
        .chain([Step::Flush { pool: 0, object: 0, start: 7, end: 180 }])
        .collect();
    let full: Vec<_> = traffic(3, 400).into_iter().chain([Step::StockUp { ends: true }]).collect();
    for step in [
        put(0, 0, 64 + 5),
        Step::Put { key: (0, 0, 5), seed: 0 },
        Step::Put { key: (1, 0, 10), seed: 4 },
        put(1, 2, 400),
        put(2, 2, 400),
        Step::Flush { pool: 0, object: 0, start: 5, end: 6 },
        Step::Flush { pool: 0, object: 0, start: 0, end: 1000 },
        Step::Flush { pool: 1, object: 1, start: 0, end: 30 },
        Step::FlushObject { pool: 1, object: 0 },
        Step::FlushObject { pool: 2, object: 1 },
        Step::DestroyPool { pool: 0 },
        Step::DestroyPool { pool: 1 },
        Step::DestroyPool { pool: 2 },
        Step::RemoveClient { pool: 0 },
        Step::RemoveClient { pool: 1 },
        Step::StockUp { ends: true },
    ] {
        die_everywhere_in(&small, &step);
    }
    let stocked: Vec<_> = small.iter().cloned().chain([Step::StockUp { ends: false }]).collect();
    for step in
        [put(0, 0, 64 + 5), put(1, 2, 400), put(2, 2, 400), put(0, 0, 1100), Step::DestroyPool { pool: 0 }]
    {
        die_everywhere_in(&stocked, &step);
    }
    // Page 5 of pool 0 has these contents: two pages share a block, then three.
    let twin = |index| Step::Put { key: (0, 0, index), seed: 17 };
    die_everywhere_in(&small, &twin(70));
    let shared: Vec<_> = small.iter().cloned().chain([twin(70)]).collect();
    for step in [
        twin(71),
        Step::Put { key: (0, 0, 5), seed: 3 },
        Step::Flush { pool: 0, object: 0, start: 70, end: 71 },
        Step::Flush { pool: 0, object: 0, start: 0, end: 1000 },
        Step::RemoveClient { pool: 0 },
    ] {
        die_everywhere_in(&shared, &step);
    }
    let half_dead_shared: Vec<_> =
        (200..240).map(|i| Step::Put { key: (0, 0, i + 200), seed: i as u32 * 3 + 2 }).collect();
    let half_dead_shared: Vec<_> = half_dead.iter().cloned().chain(half_dead_shared).collect();
    die_everywhere_in(&half_dead_shared, &Step::Compact);
    die_everywhere_in(&half_dead, &Step::Compact);
    die_everywhere_in(&half_dead, &Step::Recompress);
    // Pages that fill some extents, every fourth of them shared by two.
    let noise = |index: u64| Step::Put { key: (0, 0, index), seed: index as u32 * 5 + 4 };
    let noisy = (0..110).flat_map(|i| {
        let twin = Step::Put { key: (0, 0, i + 500), seed: i as u32 * 5 + 4 };
        [Some(noise(i)), i.is_multiple_of(4).then_some(twin)]
    });
    let cold: Vec<_> = noisy.flatten().chain([Step::Recompress]).collect();
    die_everywhere_in(&cold, &Step::WriteBack);
    let tiered: Vec<_> = cold.iter().cloned().chain([Step::WriteBack]).collect();
    for step in [
        noise(3),
        Step::Put { key: (0, 0, 4), seed: 3 },
        Step::Flush { pool: 0, object: 0, start: 3, end: 70 },
        Step::Flush { pool: 0, object: 0, start: 503, end: 570 },
    ] {
        die_everywhere_in(&tiered, &step);
    }
    die_everywhere_in(&tiered, &Step::RemoveClient { pool: 0 });
    for seed in [4, 9, 14] {
        // On a full store each of them makes room.
        die_everywhere_in(&full, &Step::Put { key: (seed as usize % 3, 0, 20), seed });
    }
}

/// Every place of the first operations on a store: making clients and pools, the first puts.
#[test]
fn r1_a_crash_while_a_store_begins_loses_nothing() {
    for n in 0.. {
        let keeper = Arc::<TestKeeper>::default();
        let there = keeper.clone();
        let mut accepted = 0;
        let count = &mut accepted;
        let outcome = crash_at(n, move || {
            let store = there.store(LIMIT);
            let client = store.create_client(client_options("a", None)).unwrap();
            let pool = make_pool(&client, 1);
            for i in 0..3 {
                put(&pool, 7, i * 16, i as u32 + 2).unwrap();
                *count = i + 1;
            }
            store.detach();
        });
        let made = keeper.names().contains(&"tmem-catalog".to_owned());
        if made {
            let (store, recovery) = keeper.open(LIMIT);
            assert_eq!((recovery.damaged_pages, recovery.damaged_records), (0, 0));
            let pool = store.client("a").and_then(|client| client.pools().pop());
            for i in 0..3 {
                let got = pool.as_ref().and_then(|pool| get(pool, 7, i * 16).unwrap());
                assert!(got.is_some() || i >= accepted, "page {i} is gone at {n}");
                assert!(got.is_none_or(|found| *found == page(i as u32 + 2)));
            }
        } else {
            assert_eq!(accepted, 0);
        }
        if let Outcome::Finished((), stores) = outcome {
            assert!(stores == n && stores > 20, "{stores} stores");
            break;
        }
    }
}

/// A put that dies in the middle leaves a block that nobody owns: walks have to get past it.
#[test]
fn r1_half_written_blocks_are_walked_past() {
    for n in 0.. {
        let keeper = Arc::<TestKeeper>::default();
        let store = keeper.store(2 << 20);
        let client = store.create_client(client_options("a", None)).unwrap();
        let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 1000 }).unwrap();
        (0..30).for_each(|i| put(&pool, 0, i, i as u32 * 5 + 3).unwrap());
        (0..30).filter(|i| i % 3 == 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
        let outcome = crash_at(n, move || {
            put(&pool, 0, 100, 8).unwrap();
            store.detach();
            drop((store, client, pool));
        });
        let (store, recovery) = keeper.open(2 << 20);
        assert_eq!(recovery.repaired_extents, 1, "n {n}, {recovery:?}");
        let pool = store.client("a").unwrap().pools().remove(0);
        assert!(store.compact(Duration::from_secs(10)).emptied_extents > 0, "n {n}");
        for i in (0..30).filter(|i| i % 3 != 0) {
            assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32 * 5 + 3), "page {i}");
        }
        if let Outcome::Finished((), stores) = outcome {
            assert!(stores == n && n >= 4, "{stores} stores");
            break;
        }
    }
}
