//! A client: whoever lends pages, with a name, a cap and pools.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    account::Account,
    counters::Counters,
    engine::Engine,
    error::StoreError,
    pool::{Keys, Persistence, Pool},
    usage::ClientUsage,
};

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A swap disk.
    Disk,
    /// A program that uses the store as it is.
    Native,
}

/// How a client is to be.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Unique among the clients of a store.
    pub name: String,
    /// What kind of client it is.
    pub kind: ClientKind,
    /// The most memory its pages may take, in bytes, index included; `None` = as far as the store's limit allows.
    pub cap_bytes: Option<u64>,
}

/// Whoever lends pages.
#[derive(Debug)]
pub struct Client {
    account: Arc<Account>,
    engine: Arc<Engine>,
    /// `None` once the client was removed.
    pools: Mutex<Option<Vec<Arc<Pool>>>>,
}

impl Client {
    pub(crate) fn new(options: ClientOptions, engine: Arc<Engine>) -> Self {
        Self { account: Arc::new(Account::new(options)), engine, pools: Mutex::new(Some(Vec::new())) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.account.options.name
    }

    /// Makes an empty pool. Errors: the client was removed, or the pool cannot be made.
    pub fn create_pool(&self, persistence: Persistence, keys: Keys) -> Result<Arc<Pool>, StoreError> {
        let mut pools = self.lock();
        let pools =
            pools.as_mut().ok_or_else(|| StoreError::NoSuchClient { name: self.name().to_owned() })?;
        let pool = self
            .engine
            .add_pool(|id| Pool::new(id, persistence, keys, self.account.clone(), self.engine.clone()))?;
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
        let pools = self.lock().take();
        pools.iter().flatten().for_each(|pool| pool.destroy());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Arc<Pool>>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds and has done, at this moment.
    pub fn usage(&self) -> ClientUsage {
        let mut sum = Counters::default();
        for pool in self.lock().iter().flatten() {
            sum += pool.counters();
        }
        ClientUsage::new(&self.account, &sum)
    }
}
