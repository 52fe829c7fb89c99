//! A pool: a client's set of pages, and what can be done with them.
//!
//! Each page belongs to a stripe, whose lock orders everything that happens to it. A block is freed when its entry is replaced,
//! under the lock; a get pins the block's extent under the lock and reads after it. Compressing, reserving memory and touching
//! the caller's page happen without any lock.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tmem_faults::Fault;

use crate::{
    account::Account,
    arena::Need,
    counters::Counters,
    dedup::{Domain, NumberRange},
    directory::Directory,
    engine::Engine,
    entry::Entry,
    error::{PutError, StoreError},
    files,
    ids::{IndexSlot, PoolId},
    index::{ENTRIES_PER_INDEX_PAGE, INDEX_PAGE_BYTES, Index},
};

mod ages;
mod entries;
#[cfg(any(test, feature = "fault-injection"))]
mod flip;
mod flush;
mod get;
mod look;
mod put;
mod recover;
mod share;
mod state;
mod tiered;

pub use get::Got;
pub use look::Stored;
pub(crate) use recover::PoolFiles;
use state::{AtomicPoolState, PoolState};

/// What a pool promises about the pages put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// An accepted page comes back until it is flushed or overwritten (frontswap).
    Persistent,
    /// A page may vanish at any time; it never comes back wrong (cleancache).
    Ephemeral,
}

/// Which keys a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Object 0 with pages 0 to `pages` - 1: a swap disk.
    Flat {
        /// 1 to 2^32 - 1.
        pages: u64,
    },
    /// Any objects with any pages.
    Sparse {
        /// About how many pages there can be at one time, at most; 1 to 2^32 - 1.
        max_pages: u64,
    },
}

impl Keys {
    /// Pages at one time, at most.
    pub(crate) fn pages(self) -> u64 {
        match self {
            Keys::Flat { pages } | Keys::Sparse { max_pages: pages } => pages,
        }
    }

    pub(crate) fn is_allowed(self) -> bool {
        (1..=u64::from(u32::MAX)).contains(&self.pages())
    }
}

/// A client's set of pages. All methods may run on many threads at once.
#[derive(Debug)]
pub struct Pool {
    id: PoolId,
    persistence: Persistence,
    keys: Keys,
    directory: Directory,
    index: Index,
    stripes: Box<[Stripe]>,
    account: Arc<Account>,
    engine: Arc<Engine>,
    /// Whose pages may share blocks with this pool's, and what those are called there, if they are found by their contents.
    domain: Option<(Arc<Domain>, NumberRange)>,
    state: AtomicPoolState,
    /// Dropped after the files of index and directory: the next pool of that number has files of the same names.
    _seat: Seat,
}

/// That the pool has its number.
#[derive(Debug)]
struct Seat {
    id: PoolId,
    engine: Arc<Engine>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.engine.remove_pool(self.id);
    }
}

/// The lock of a share of the index pages, and their counters. On cache lines of its own, so that threads on different stripes do
/// not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(Mutex<Counters>);

/// Index pages go to stripes in turn. A guest's CPUs swap in clusters as large as an index page, so they meet on different ones.
const MAX_STRIPES: u64 = 64;

/// Why a put did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoRoom(Need),
    /// The memory of the index page was not found yet.
    NoIndexMemory,
    OverCap,
    Frozen,
    Destroyed,
}

const NO_INDEX_PAGE: Refusal = Refusal::NoRoom(Need::Bytes(INDEX_PAGE_BYTES));

impl From<Refusal> for PutError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoRoom(Need::Headroom) => PutError::OverShare,
            Refusal::NoRoom(_) | Refusal::NoIndexMemory => PutError::Full,
            Refusal::OverCap => PutError::OverCap,
            Refusal::Frozen => PutError::Frozen,
            Refusal::Destroyed => PutError::Destroyed,
        }
    }
}

impl Pool {
    pub(crate) fn new(
        id: PoolId,
        persistence: Persistence,
        keys: Keys,
        account: Arc<Account>,
        domain: Option<Arc<Domain>>,
        engine: Arc<Engine>,
    ) -> Result<Self, StoreError> {
        if !keys.is_allowed() {
            return Err(StoreError::PoolSize { pages: keys.pages() });
        }
        let refused = |what| move |source| StoreError::Memory { what, source };
        if tmem_faults::fails(Fault::RefuseMemory) {
            return Err(refused("an index")(io::ErrorKind::OutOfMemory.into()));
        }
        let files = &engine.files;
        let directory = match keys {
            Keys::Flat { pages } => Directory::Flat { pages },
            Keys::Sparse { max_pages } => {
                let file = files.create(&files::directory_name(id), Directory::file_bytes(max_pages));
                Directory::sparse(max_pages, file.map_err(refused("a directory"))?)
            }
        };
        let index = files.create(&files::index_name(id), Index::file_bytes(keys.pages()));
        let (budget, stock) = (engine.budget.clone(), engine.stock.clone());
        let index = Index::over(index.map_err(refused("an index"))?, keys.pages(), id, budget, stock);
        Ok(Self::over(id, persistence, keys, (account, domain), engine, directory, index))
    }

    fn over(
        id: PoolId,
        persistence: Persistence,
        keys: Keys,
        (account, domain): (Arc<Account>, Option<Arc<Domain>>),
        engine: Arc<Engine>,
        directory: Directory,
        index: Index,
    ) -> Self {
        let stripes = (0..index.index_pages().min(MAX_STRIPES)).map(|_| Stripe::default()).collect();
        let _seat = Seat { id, engine: engine.clone() };
        let state = AtomicPoolState::new(account.settings().frozen);
        // Without numbers in its domain a pool goes on with what its pages share already, if any.
        let domain = domain.map(|domain| {
            let numbers = domain.reserve_numbers(index.slots()).unwrap_or(NumberRange::NONE);
            (domain, numbers)
        });
        Self { id, persistence, keys, directory, index, stripes, account, engine, domain, state, _seat }
    }

    /// What it promises about its pages.
    pub fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Which keys it has.
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// Freezes or thaws it: puts are refused while it is frozen.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.state.set_frozen(frozen);
        self.wait_for_puts();
    }

    /// Waits until the puts that saw the state as it was are through.
    fn wait_for_puts(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock()));
    }

    /// How much its client has of its share of the limit, in thousandths.
    pub(crate) fn share_permille(&self) -> u64 {
        let Engine { budget, shares, .. } = &*self.engine;
        let share_bytes = shares.bytes(self.account.weight(), budget.growth_limit_bytes());
        self.account.used_bytes().saturating_mul(1000) / share_bytes.max(1)
    }

    /// Whether the pool keeps nothing in a leaf of its index.
    fn is_leaf_free(&self, leaf: Range<u32>) -> bool {
        let _counters = self.lock(IndexSlot(leaf.start));
        leaf.into_iter().all(|slot| self.index.load(IndexSlot(slot)) == Ok(Entry::Absent))
    }

    fn lock(&self, slot: IndexSlot) -> MutexGuard<'_, Counters> {
        self.stripes[self.stripe_of(slot)].lock()
    }

    fn stripe_of(&self, slot: IndexSlot) -> usize {
        let index_page = u64::from(slot.0) / ENTRIES_PER_INDEX_PAGE;
        (index_page % self.stripes.len() as u64) as usize
    }

    /// Counts something that is no single page's.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Counters)) {
        note(&mut self.lock(IndexSlot(0)));
    }

    /// The sum over all stripes. Each stripe is read at its own moment.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.stripes.iter().for_each(|stripe| sum += *stripe.lock());
        sum
    }

    /// Asks for the memory of the index pages that are used first.
    pub(crate) fn request_first_index_page(&self) {
        self.index.request_page_of(IndexSlot(0));
    }

    /// Has the OS find the memory of an index page and of those behind it. False: it had less than `left_bytes` and what is wanted.
    pub(crate) fn find_index_pages(&self, first: u32, left_bytes: &mut u64) -> bool {
        self.state.get() == PoolState::Destroyed
            || self.index.find_pages(first, left_bytes, |slot| self.lock(slot))
    }

    /// Gives index pages back that were found and not used.
    pub(crate) fn release_found_index_pages(&self) {
        self.index.release_found_pages(|slot| self.lock(slot));
    }

    #[cfg(test)]
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }
}

impl Stripe {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.engine.files.is_detached() {
            self.destroy();
        }
        if let Some((domain, numbers)) = &self.domain {
            domain.remove_pool(*numbers);
        }
    }
}
