//! The store as a keeper: one client, one persistent pool with as many pages as there are.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tmem_store::{
    ClientKind, ClientOptions, Dedup, Got, Keys, MAX_LIMIT_BYTES, ObjectId, PageIndex, Persistence, Pool,
    StockKeeper, Store, StoreOptions, StoreUsage, Weight,
};

use super::keeper::Keeper;
use crate::{
    error::BenchError,
    interrupt::Interrupt,
    page::{PAGE_BYTES, Page},
};

/// A swap disk is one object.
const OBJECT: ObjectId = ObjectId(0);

/// One call of the store's compaction; between two the program looks whether it was asked to end.
const COMPACT_FOR: Duration = Duration::from_millis(100);
/// The first puts are not made before there is memory for them, however busy the machine; unless there is none for so long.
const FIRST_STOCK: Duration = Duration::from_secs(10);

/// A store and the one pool in it.
pub(super) struct Tmem {
    pub(super) store: Arc<Store>,
    pool: Arc<Pool>,
}

/// What compaction did until it did not pay any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compacted {
    pub(super) seconds: f64,
    pub(super) moved_pages: u64,
    pub(super) emptied_extents: u64,
}

impl Tmem {
    /// An empty store for that many pages. Its limit is out of the way: four times what they take as they are.
    pub(super) fn new(pages: usize, dedup: Dedup) -> Result<Self, BenchError> {
        let limit_bytes = (4 * pages as u64 * PAGE_BYTES as u64).clamp(1 << 30, MAX_LIMIT_BYTES);
        let store = Store::new(StoreOptions { limit_bytes })?;
        let options = ClientOptions {
            name: "bench".to_owned(),
            kind: ClientKind::Native,
            cap_bytes: None,
            weight: Weight::default(),
            dedup,
        };
        let keys = Keys::Flat { pages: pages as u64 };
        let pool = store.create_client(options)?.create_pool(Persistence::Persistent, keys)?;
        Ok(Self { store, pool })
    }

    /// Has memory found ahead of puts, as in the daemon, until what this gives is dropped.
    pub(super) fn stocked(&self) -> Result<StockKeeper, BenchError> {
        let keeper = StockKeeper::start(Arc::clone(&self.store), || u64::MAX).map_err(BenchError::Threads)?;
        let start = Instant::now();
        while !keeper.has_found() && start.elapsed() < FIRST_STOCK {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(keeper)
    }

    pub(super) fn usage(&self) -> StoreUsage {
        self.store.usage()
    }

    pub(super) fn flush(&self, place: usize) {
        self.pool.flush_page(OBJECT, PageIndex(place as u64));
    }

    /// Puts what is stored into huge pages, as the daemon does when it is idle.
    pub(super) fn make_huge_pages(&self, interrupt: &Interrupt) -> Result<u64, BenchError> {
        let mut made = 0;
        while self.store.make_huge_page() {
            interrupt.check()?;
            made += 1;
        }
        Ok(made)
    }

    /// Compacts until it does not pay any more.
    pub(super) fn compact(&self, interrupt: &Interrupt) -> Result<Compacted, BenchError> {
        let start = Instant::now();
        let mut compacted = Compacted::default();
        loop {
            interrupt.check()?;
            let done = self.store.compact(COMPACT_FOR);
            compacted.moved_pages += done.moved_pages;
            compacted.emptied_extents += done.emptied_extents;
            if done.emptied_extents == 0 {
                compacted.seconds = start.elapsed().as_secs_f64();
                return Ok(compacted);
            }
        }
    }
}

impl Keeper for Tmem {
    const NAME: &'static str = "the store";

    fn put(&self, place: usize, page: &Page) -> Result<(), BenchError> {
        let put = self.pool.put(OBJECT, PageIndex(place as u64), (&page.0).into());
        put.map_err(|error| BenchError::Put { place, error })
    }

    fn get(&self, place: usize, target: &mut Page) -> Result<(), BenchError> {
        match self.pool.get(OBJECT, PageIndex(place as u64), (&mut target.0).into()) {
            Ok(Got::Page) => Ok(()),
            // The target then still holds another page, which the comparison would show; but the place is known here.
            Ok(Got::Nothing) => Err(BenchError::WrongPage { keeper: Self::NAME, place }),
            Err(error) => Err(BenchError::Get { place, error }),
        }
    }
}
