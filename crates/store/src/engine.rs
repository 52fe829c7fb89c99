//! What all pools share: the budget, the arena, and the list of pools by which blocks find their owners.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU32, AtomicU64},
    },
};

use crate::{
    arena::Arena,
    budget::{Budget, HEADROOM_PART},
    catalog::Catalog,
    dedup::{Domain, DomainId, DomainScope, Homes, SHARED_POOL, SharedBlocks},
    entry::Place,
    error::StoreError,
    extents::EXTENT_BYTES,
    files::{self, Files},
    ids::{IndexSlot, PoolId},
    memory_file::MemoryFile,
    page::PAGE_BYTES,
    pool::Pool,
    recompression::{RecompressionSettings, Recompressor},
    shares::Shares,
    stock::Stock,
    tier_table::TierTable,
    tiering::Tiering,
};

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) budget: Arc<Budget>,
    pub(crate) arena: Arena,
    pub(crate) stock: Arc<Stock>,
    /// Held by whoever stocks up.
    pub(crate) stocking: Mutex<()>,
    pub(crate) catalog: Catalog,
    pub(crate) files: Arc<Files>,
    /// Held by whoever compacts: one at a time.
    pub(crate) compacting: Mutex<()>,
    /// Puts that wait for it.
    pub(crate) compaction_wanted: AtomicU32,
    pub(crate) recompression: RecompressionSettings,
    /// Held by whoever recompresses: one at a time, and nobody waits for it.
    pub(crate) recompressor: Mutex<Recompressor>,
    /// Extents that recompression has let go of.
    pub(crate) recompressed_extents: AtomicU64,
    pools: RwLock<Vec<PoolSeat>>,
    pub(crate) shared_blocks: SharedBlocks,
    pub(crate) tiering: Tiering,
    pub(crate) shares: Shares,
    /// A page whose payload is longer is refused.
    pub(crate) max_payload_bytes: AtomicU32,
    domains: Mutex<Domains>,
    /// Pools with pages that were here before this process and are not found by their contents yet, and from which page of the index on.
    pub(crate) recalling: Mutex<Vec<(Weak<Pool>, u64)>>,
}

/// The files of what an engine is made of.
#[derive(Debug)]
pub(crate) struct EngineFiles {
    pub(crate) arena: MemoryFile,
    pub(crate) extents: MemoryFile,
    pub(crate) shared: MemoryFile,
}

/// Pages come back from a tier for good as long as 1/8 of the limit is free: more than what is kept free by writing them there.
const PLENTY_PART: u64 = 8;

/// The dedup domains in use.
#[derive(Debug, Default)]
struct Domains {
    by_id: BTreeMap<DomainId, Weak<Domain>>,
    last_id: u32,
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
    /// All pages that share the block.
    Shared,
    /// A pool that is just coming or going.
    Changing,
    Nobody,
}

impl Engine {
    /// An engine without pools, over new files.
    pub(crate) fn create(limit_bytes: u64, files: Arc<Files>) -> Result<Self, StoreError> {
        let refused = |what| move |source| StoreError::Memory { what, source };
        let arena = files
            .create_spanning(files::ARENA, Arena::FILE_BYTES, Arena::LEAST_BYTES)
            .map_err(refused("the arena"))?;
        let extents = files
            .create(files::EXTENTS, Arena::EXTENTS_FILE_BYTES)
            .map_err(refused("the table of extents"))?;
        let shared =
            files.create(files::SHARED, SharedBlocks::file_bytes()).map_err(refused("shared blocks"))?;
        let tier = TierTable::create(&files).map_err(refused("the table of a tier"))?;
        let catalog = Catalog::create(&files).map_err(refused("the catalog"))?;
        Ok(Self::over(limit_bytes, files, EngineFiles { arena, extents, shared }, tier, catalog))
    }

    pub(crate) fn over(
        limit_bytes: u64,
        files: Arc<Files>,
        EngineFiles { arena, extents, shared }: EngineFiles,
        tier: TierTable,
        catalog: Catalog,
    ) -> Self {
        // Emptying an extent takes at most one other to move its blocks to.
        let budget = Arc::new(Budget::new(limit_bytes, EXTENT_BYTES as u64));
        let (tier, stock) = (Arc::new(tier), Arc::new(Stock::new()));
        let arena = Arena::over(arena, extents, tier.clone(), budget.clone(), stock.clone());
        let shared_blocks = SharedBlocks::over(shared, budget.clone(), stock.clone());
        Self {
            budget,
            arena,
            stock,
            stocking: Mutex::default(),
            shared_blocks,
            tiering: Tiering::over(tier),
            shares: Shares::default(),
            max_payload_bytes: AtomicU32::new(PAGE_BYTES as u32),
            domains: Mutex::default(),
            recalling: Mutex::default(),
            catalog,
            files,
            compacting: Mutex::default(),
            compaction_wanted: AtomicU32::new(0),
            recompression: RecompressionSettings::default(),
            recompressor: Mutex::default(),
            recompressed_extents: AtomicU64::new(0),
            pools: RwLock::default(),
        }
    }

    /// Makes a cell refer to a copy of its block and keeps its domain's books. False: the block is not there any more.
    pub(crate) fn relocate_shared(&self, cell: IndexSlot, from: Place, to: Place) -> bool {
        let domain = self.shared_blocks.domain_at(cell, from).and_then(|domain| self.domain_of(domain));
        let count = |place, change| match (place, &domain) {
            (Place::Arena(block), Some(domain)) if change > 0 => domain.count_new_block(block.block_bytes),
            (Place::Arena(block), Some(domain)) => domain.count_lost_block(block.block_bytes),
            (Place::Arena(_), None) => {}
            (Place::Tier(tiered), _) => self.tiering.count_shared(change, tiered),
        };
        // Counted there before anybody can find it there and take it away again.
        count(to, 1);
        let is_done = self.exchange_shared(cell, from, to);
        count(if is_done { from } else { to }, -1);
        is_done
    }

    /// Makes a cell refer to a copy of its block, whose books the caller keeps. False: the block is not there any more.
    pub(crate) fn exchange_shared(&self, cell: IndexSlot, from: Place, to: Place) -> bool {
        let emptied = self.shared_blocks.relocate(cell, from, to, self.homes());
        emptied.map(|emptied| self.arena.settle(emptied)).is_some()
    }

    /// So much earlier than the limit are clients refused that have had their share.
    pub(crate) fn headroom_bytes(&self) -> u64 {
        if self.shares.are_needed() { self.budget.limit_bytes() / HEADROOM_PART } else { 0 }
    }

    /// The most that any client has of its share, in thousandths.
    pub(crate) fn most_share_permille(&self) -> u64 {
        self.pools().iter().map(|pool| pool.share_permille()).max().unwrap_or(0)
    }

    /// Whether so much of the limit is free that pages may come back from a tier.
    pub(crate) fn has_plenty_of_room(&self) -> bool {
        let limit_bytes = self.budget.limit_bytes();
        let kept_bytes = (limit_bytes / PLENTY_PART).max(16 * EXTENT_BYTES as u64);
        self.budget.held_bytes() + kept_bytes + self.headroom_bytes() <= limit_bytes
    }

    pub(crate) fn homes(&self) -> Homes<'_> {
        Homes { arena: &self.arena, tier: &self.tiering.table }
    }

    /// Enters a pool that is taken over, under the number it has.
    pub(crate) fn adopt_pool(&self, id: PoolId, pool: Pool) -> Arc<Pool> {
        let pool = Arc::new(pool);
        pool.enter_domain();
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        while pools.len() <= usize::from(id.0) {
            pools.push(PoolSeat::Free);
        }
        pools[usize::from(id.0)] = PoolSeat::Taken(Arc::downgrade(&pool));
        pool
    }

    /// Whether there are any pools.
    pub(crate) fn has_pools(&self) -> bool {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.iter().any(|seat| !matches!(seat, PoolSeat::Free))
    }

    /// All pools.
    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let taken = pools.iter().filter_map(|seat| match seat {
            PoolSeat::Taken(pool) => pool.upgrade(),
            PoolSeat::Free | PoolSeat::Reserved => None,
        });
        taken.collect()
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
                pool.enter_domain();
                self.set_seat(id, PoolSeat::Taken(Arc::downgrade(&pool)));
                pool.request_first_index_page();
                Ok(pool)
            }
            Err(error) => {
                self.set_seat(id, PoolSeat::Free);
                Err(error)
            }
        }
    }

    /// Frees a pool's number. None of its blocks is left, and its files are released.
    pub(crate) fn remove_pool(&self, id: PoolId) {
        self.set_seat(id, PoolSeat::Free);
    }

    /// The dedup domain of a name, a new one if nobody is in it; or one for a client alone.
    pub(crate) fn domain(&self, scope: DomainScope<'_>) -> Result<Arc<Domain>, StoreError> {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.by_id.retain(|_, domain| domain.strong_count() > 0);
        let mut known = domains.by_id.values().filter_map(Weak::upgrade);
        if let Some(name) = scope.name()
            && let Some(domain) = known.find(|domain| domain.name() == Some(name))
        {
            return Ok(domain);
        }
        domains.last_id += 1;
        let id = DomainId(domains.last_id);
        let domain = Domain::new(id, scope, self.budget.clone(), self.stock.clone())
            .map_err(|source| StoreError::Memory { what: "a dedup domain", source })?;
        let domain = Arc::new(domain);
        domains.by_id.insert(id, Arc::downgrade(&domain));
        Ok(domain)
    }

    /// All dedup domains.
    pub(crate) fn domains(&self) -> Vec<Arc<Domain>> {
        let domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.by_id.values().filter_map(Weak::upgrade).collect()
    }

    /// A domain, unless it is gone with its last client.
    pub(crate) fn domain_of(&self, id: DomainId) -> Option<Arc<Domain>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(&id)?.upgrade()
    }

    /// Who a block's header names.
    pub(crate) fn owner(&self, id: PoolId) -> Owner {
        if id == SHARED_POOL {
            return Owner::Shared;
        }
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
        let id =
            u16::try_from(index).ok().filter(|id| *id < SHARED_POOL.0).ok_or(StoreError::TooManyPools)?;
        if free.is_none() {
            pools.push(PoolSeat::Reserved);
        } else {
            pools[index] = PoolSeat::Reserved;
        }
        Ok(PoolId(id))
    }

    fn set_seat(&self, id: PoolId, seat: PoolSeat) {
        self.pools.write().unwrap_or_else(PoisonError::into_inner)[usize::from(id.0)] = seat;
        self.stock.want(); // the first pool has it filled, and the last one emptied
    }
}
