//! A client: whoever lends pages, with a name, a cap and pools.

use std::sync::{Arc, Mutex, PoisonError};

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
    pools: Mutex<Vec<Arc<Pool>>>,
}

impl Client {
    pub(crate) fn new(options: ClientOptions, engine: Arc<Engine>) -> Self {
        Self { account: Arc::new(Account::new(options)), engine, pools: Mutex::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.account.options.name
    }

    /// Makes an empty pool.
    pub fn create_pool(&self, persistence: Persistence, keys: Keys) -> Result<Arc<Pool>, StoreError> {
        let pool = self
            .engine
            .add_pool(|id| Pool::new(id, persistence, keys, self.account.clone(), self.engine.clone()))?;
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        Ok(pool)
    }

    /// Forgets all pages of a pool; puts into it are refused from now on. A pool of another client is left alone.
    pub fn destroy_pool(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let before = pools.len();
        pools.retain(|own| !Arc::ptr_eq(own, pool));
        let was_own = pools.len() < before;
        drop(pools);
        if was_own {
            pool.destroy();
        }
    }

    pub(crate) fn destroy_all(&self) {
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        pools.iter().for_each(|pool| pool.destroy());
    }

    /// What it holds and has done, at this moment.
    pub fn usage(&self) -> ClientUsage {
        let mut sum = Counters::default();
        for pool in self.pools.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sum += pool.counters();
        }
        ClientUsage::new(&self.account, &sum)
    }
}
