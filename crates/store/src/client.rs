//! A client: whoever lends pages, with a name, a cap and pools.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use crate::{
    account::Account,
    ages::{self, Sweep},
    catalog::ClientSlot,
    client_settings::ClientSettings,
    counters::Counters,
    dedup::{Domain, DomainScope},
    engine::Engine,
    error::StoreError,
    pool::{Keys, Persistence, Pool},
    usage::{ClientUsage, SharedPart},
    weight::Weight,
};

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A swap disk.
    Disk,
    /// A program that uses the store as it is.
    Native,
}

/// With whose pages a client's may share a block when they are equal. Nothing is shared across domains, and nothing that one does
/// tells another what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dedup {
    /// With those of the same client.
    #[default]
    Alone,
    /// With those of all clients that name this domain. They can learn from timing what the others hold.
    Domain(String),
    /// With none.
    Off,
}

/// How a client is to be.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Unique among the clients of a store.
    pub name: String,
    /// What kind of client it is.
    pub kind: ClientKind,
    /// The most memory its pages may take, in bytes, index included, up to a tebibyte; `None` = as far as the store's limit allows.
    pub cap_bytes: Option<u64>,
    /// Its share of the limit, relative to others'.
    pub weight: Weight,
    /// With whose pages its own may share blocks.
    pub dedup: Dedup,
}

/// Between two looks at the clock a sweep passes so many index pages: some tens of microseconds.
const INDEX_PAGES_AT_ONCE: u64 = 32;

/// Whoever lends pages.
#[derive(Debug)]
pub struct Client {
    account: Arc<Account>,
    domain: Option<Arc<Domain>>,
    engine: Arc<Engine>,
    slot: ClientSlot,
    /// `None` once the client was removed.
    pools: Mutex<Option<Vec<Arc<Pool>>>>,
    sweeping: Mutex<Option<Sweeping>>,
}

/// A sweep over the client's ages that is not done yet.
#[derive(Debug)]
struct Sweeping {
    sweep: Sweep,
    pools: Vec<Weak<Pool>>,
    /// Of the last of the pools.
    next_index_page: u64,
}

impl Client {
    /// A client that the catalog has under that place. Errors: no memory for its dedup domain.
    pub(crate) fn new(
        options: ClientOptions,
        frozen: bool,
        engine: Arc<Engine>,
        slot: ClientSlot,
    ) -> Result<Self, StoreError> {
        let domain = match &options.dedup {
            Dedup::Off => None,
            Dedup::Alone => Some(engine.domain(DomainScope::Client(slot))?),
            Dedup::Domain(name) => Some(engine.domain(DomainScope::Named(name))?),
        };
        engine.shares.join(options.weight);
        Ok(Self {
            account: Arc::new(Account::new(options, frozen, engine.catalog.age_table(slot))),
            domain,
            engine,
            slot,
            pools: Mutex::new(Some(Vec::new())),
            sweeping: Mutex::default(),
        })
    }

    /// Enters a pool that is taken over.
    pub(crate) fn adopt_pool(&self, pool: Arc<Pool>) {
        if let Some(pools) = self.lock().as_mut() {
            pools.push(pool);
        }
    }

    /// What its pools share.
    pub(crate) fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// Whose pages may share blocks with those of such a pool. Ephemeral pages go with their extents, which takes a block for each.
    pub(crate) fn domain(&self, persistence: Persistence) -> Option<Arc<Domain>> {
        self.domain.clone().filter(|_| persistence == Persistence::Persistent)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.account.name
    }

    /// What can be changed of it, as it is now.
    pub fn settings(&self) -> ClientSettings {
        self.account.settings()
    }

    /// Changes some of that at once. A lower cap leaves stored pages alone and refuses puts that would use more. When this returns, the
    /// change holds for every put, and whenever the store is opened again. Errors: the client was removed, or a cap is out of bounds;
    /// nothing has changed then.
    pub fn change(&self, change: impl FnOnce(&mut ClientSettings)) -> Result<(), StoreError> {
        let pools = self.lock();
        let pools = pools.as_ref().filter(|_| !self.engine.files.is_detached());
        let pools = pools.ok_or_else(|| StoreError::NoSuchClient { name: self.name().to_owned() })?;
        let mut settings = self.settings();
        change(&mut settings);
        settings.check()?;
        self.engine.catalog.set_client(self.slot, &settings);
        self.engine.shares.change(self.account.weight(), settings.weight);
        self.account.set(settings);
        pools.iter().for_each(|pool| pool.set_frozen(settings.frozen));
        Ok(())
    }

    /// Its part of the store's limit by its weight among all clients', in bytes. A client alone has all of it.
    pub fn share_bytes(&self) -> u64 {
        self.engine.shares.bytes(self.account.weight(), self.engine.budget.limit_bytes())
    }

    /// Whether its pages use more than its share. What it shares with others counts as if it were its own, as for a cap. A client alone
    /// is never over its share.
    pub fn is_over_share(&self) -> bool {
        let limit_bytes = self.engine.budget.growth_limit_bytes();
        !self.engine.shares.cover(self.account.used_bytes(), self.account.weight(), limit_bytes)
    }

    /// Freezes or thaws it: while it is frozen, puts are refused; gets and flushes work as ever. Errors: the client was removed.
    pub fn set_frozen(&self, frozen: bool) -> Result<(), StoreError> {
        self.change(|settings| settings.frozen = frozen)
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        self.settings().frozen
    }

    /// Its pools, in the order they were made.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().clone().unwrap_or_default()
    }

    /// Makes an empty pool. Errors: the client was removed, or the pool cannot be made.
    pub fn create_pool(&self, persistence: Persistence, keys: Keys) -> Result<Arc<Pool>, StoreError> {
        let mut pools = self.lock();
        let pools =
            pools.as_mut().ok_or_else(|| StoreError::NoSuchClient { name: self.name().to_owned() })?;
        let engine = &self.engine;
        let domain = self.domain(persistence);
        let pool = engine.add_pool(|id| {
            let pool = Pool::new(id, persistence, keys, self.account.clone(), domain, engine.clone())?;
            engine.catalog.add_pool(id, self.slot, persistence, keys);
            Ok(pool)
        })?;
        pools.push(pool.clone());
        Ok(pool)
    }

    /// Forgets all pages of a pool and what it did; puts into it are refused from now on. A pool of another client is left alone.
    pub fn destroy_pool(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        let own = pools.as_mut().and_then(|pools| {
            let at = pools.iter().position(|own| Arc::ptr_eq(own, pool))?;
            Some(pools.remove(at))
        });
        drop(pools);
        if let Some(own) = own {
            own.destroy();
        }
    }

    /// Destroys all pools and makes no more.
    pub(crate) fn remove(&self) {
        let pools = {
            let mut pools = self.lock();
            if pools.is_some() {
                self.engine.shares.leave(self.account.weight());
            }
            pools.take()
        };
        // From here on it is gone, whenever the process dies.
        self.engine.catalog.remove_client(self.slot);
        pools.iter().flatten().for_each(|pool| pool.destroy());
        self.engine.catalog.free_client(self.slot);
    }

    /// Refuses puts from now on and leaves everything as it is.
    pub(crate) fn detach(&self) {
        self.lock().iter().flatten().for_each(|pool| pool.close());
    }

    /// Pages of its domain that were compared with one that was put.
    #[cfg(test)]
    pub(crate) fn compared_pages(&self) -> Option<u64> {
        Some(self.domain.as_ref()?.compared_pages())
    }

    /// Sees to the ages of its pages: ends the running epoch if it has lasted so long, and sweeps if that is due. Ends at `until`, to
    /// go on the next time.
    pub(crate) fn tend_ages(&self, longest_epoch: Duration, until: Instant) {
        if self.engine.files.is_detached() {
            return; // another process may have the memory by now
        }
        let ages = &self.account.ages;
        let counters = self.counters();
        ages.end_long_epoch(
            counters.puts + counters.gets,
            counters.stored_pages(),
            longest_epoch,
            ages::now_ms(),
        );
        let Ok(mut sweeping) = self.sweeping.try_lock() else { return };
        if sweeping.is_none() {
            *sweeping = ages.begin_sweep().map(|sweep| {
                let pools = self.lock().iter().flatten().map(Arc::downgrade).collect();
                Sweeping { sweep, pools, next_index_page: 0 }
            });
        }
        let Some(Sweeping { sweep, pools, next_index_page }) = sweeping.as_mut() else { return };
        while let Some(pool) = pools.last() {
            let Some(pool) = pool.upgrade() else {
                pools.pop();
                *next_index_page = 0;
                continue;
            };
            if *next_index_page >= pool.index_pages() {
                pools.pop();
                *next_index_page = 0;
                continue;
            }
            if Instant::now() >= until {
                return;
            }
            let end = (*next_index_page + INDEX_PAGES_AT_ONCE).min(pool.index_pages());
            pool.sweep_ages(sweep, *next_index_page..end);
            *next_index_page = end;
        }
        ages.end_sweep(sweep);
        *sweeping = None;
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for pool in self.lock().iter().flatten() {
            sum += pool.counters();
        }
        sum
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Arc<Pool>>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds and has done, at this moment.
    pub fn usage(&self) -> ClientUsage {
        let (mut sum, mut in_domain) = (Counters::default(), Counters::default());
        for pool in self.lock().iter().flatten() {
            let counters = pool.counters();
            sum += counters;
            in_domain += if pool.has_domain() { counters } else { Counters::default() };
        }
        let domain = self.domain.as_ref().map(|domain| domain.usage()).unwrap_or_default();
        ClientUsage::new(&self.account, self.share_bytes(), &sum, SharedPart::of(&in_domain, &domain))
    }
}
