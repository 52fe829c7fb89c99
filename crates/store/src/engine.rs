//! What all pools share: the budget, the arena, and the list of pools by which blocks find their owners.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak, atomic::AtomicU32};

use crate::{
    arena::Arena, budget::Budget, error::StoreError, extents::EXTENT_BYTES, ids::PoolId, pool::Pool,
};

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) budget: Arc<Budget>,
    pub(crate) arena: Arena,
    /// Held by whoever compacts: one at a time.
    pub(crate) compacting: Mutex<()>,
    /// Puts that wait for it.
    pub(crate) compaction_wanted: AtomicU32,
    pools: RwLock<Vec<PoolSeat>>,
}

/// One pool number.
#[derive(Debug)]
enum PoolSeat {
    Free,
    /// Taken by a pool that is being made, or by one that is being taken apart.
    Reserved,
    Taken(Weak<Pool>),
}

/// Who a pool number stands for.
pub(crate) enum Owner {
    Pool(Arc<Pool>),
    /// A pool that is just coming or going.
    Changing,
    Nobody,
}

impl Engine {
    pub(crate) fn new(limit_bytes: u64) -> Result<Self, StoreError> {
        // Emptying an extent takes at most one other to move its blocks to.
        let budget = Arc::new(Budget::new(limit_bytes, EXTENT_BYTES as u64));
        let arena =
            Arena::new(budget.clone()).map_err(|source| StoreError::Memory { what: "the arena", source })?;
        Ok(Self {
            budget,
            arena,
            compacting: Mutex::default(),
            compaction_wanted: AtomicU32::new(0),
            pools: RwLock::default(),
        })
    }

    /// Makes a pool with a number of its own and enters it in the list.
    pub(crate) fn add_pool(
        &self,
        make: impl FnOnce(PoolId) -> Result<Pool, StoreError>,
    ) -> Result<Arc<Pool>, StoreError> {
        let id = self.reserve_pool_id()?;
        match make(id) {
            Ok(pool) => {
                let pool = Arc::new(pool);
                self.set_seat(id, PoolSeat::Taken(Arc::downgrade(&pool)));
                Ok(pool)
            }
            Err(error) => {
                self.set_seat(id, PoolSeat::Free);
                Err(error)
            }
        }
    }

    /// Frees a pool's number. None of its blocks is left.
    pub(crate) fn remove_pool(&self, id: PoolId) {
        self.set_seat(id, PoolSeat::Free);
    }

    /// Who a block's header names.
    pub(crate) fn owner(&self, id: PoolId) -> Owner {
        match self.pools.read().unwrap_or_else(PoisonError::into_inner).get(usize::from(id.0)) {
            Some(PoolSeat::Taken(pool)) => pool.upgrade().map_or(Owner::Changing, Owner::Pool),
            Some(PoolSeat::Reserved) => Owner::Changing,
            Some(PoolSeat::Free) | None => Owner::Nobody,
        }
    }

    fn reserve_pool_id(&self) -> Result<PoolId, StoreError> {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let free = pools.iter().position(|seat| matches!(seat, PoolSeat::Free));
        let index = free.unwrap_or(pools.len());
        let id = u16::try_from(index).map_err(|_| StoreError::TooManyPools)?;
        if free.is_none() {
            pools.push(PoolSeat::Reserved);
        } else {
            pools[index] = PoolSeat::Reserved;
        }
        Ok(PoolId(id))
    }

    fn set_seat(&self, id: PoolId, seat: PoolSeat) {
        self.pools.write().unwrap_or_else(PoisonError::into_inner)[usize::from(id.0)] = seat;
    }
}
