//! Opening a store from its memory files.
//!
//! First everything is checked that can be without changing anything; then directories and indexes are read, and from them all that
//! is not in a file is derived; last, the few extents that were being written to are repaired. Every change this makes can be cut
//! short and done again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    arena::Arena,
    catalog::{Catalog, Contents},
    client::Client,
    dedup::SharedBlocks,
    directory::Directory,
    engine::{Engine, EngineFiles},
    error::StoreError,
    files::{self, FileRole, Files},
    ids::PoolId,
    index::Index,
    memory_file::MemoryFile,
    pool::{Keys, Pool, PoolFiles},
    records::PoolRecord,
    tier_table::TierTable,
};

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Clients found.
    pub clients: u64,
    /// Pools found.
    pub pools: u64,
    /// Pages found.
    pub found_pages: u64,
    /// Pages whose index entry cannot be right. A get of such a persistent page is an error; ephemeral ones are gone.
    pub damaged_pages: u64,
    /// Damaged descriptions of clients, pools and leaves: what they described is gone.
    pub damaged_records: u64,
    /// Extents that were being written to.
    pub repaired_extents: u64,
    /// Files of pools that were just being made or destroyed; released.
    pub leftover_files: u64,
    /// Memory held from the OS, in bytes.
    pub held_bytes: u64,
    /// Time it took to map the files and read catalog and directories.
    pub mapping_time: Duration,
    /// Time it took to read the indexes.
    pub index_time: Duration,
    /// Time it took to derive the state of the extents and repair some.
    pub extent_time: Duration,
}

/// The files that were handed over and are not taken yet.
struct HandedOver {
    by_name: BTreeMap<String, OwnedFd>,
    files: Arc<Files>,
}

/// A pool that the catalog knows, with its files.
type FoundPool = (PoolId, PoolRecord, PoolFiles);

/// A store that was opened.
pub(crate) struct Opened {
    pub(crate) engine: Arc<Engine>,
    pub(crate) clients: Vec<Arc<Client>>,
    pub(crate) recovery: Recovery,
}

/// Checks what can be without the files' being this process's alone.
pub(crate) fn check(handed_over: impl IntoIterator<Item = (String, OwnedFd)>) -> Result<(), StoreError> {
    let files = Files::new(None);
    files.detach();
    let mut handed_over = HandedOver::new(handed_over, files)?;
    Catalog::over(handed_over.take(files::CATALOG, Catalog::BYTES)?).check_layout()
}

/// Opens a store. On errors all files stay with the keeper.
pub(crate) fn open(
    handed_over: impl IntoIterator<Item = (String, OwnedFd)>,
    limit_bytes: u64,
    files: Arc<Files>,
) -> Result<Opened, StoreError> {
    let start = Instant::now();
    // Until all is well, what is dropped leaves everything as it is.
    files.detach();
    let mut recovery = Recovery::default();
    let mut handed_over = HandedOver::new(handed_over, files.clone())?;
    let catalog = Catalog::over(handed_over.take(files::CATALOG, Catalog::BYTES)?);
    catalog.check_layout()?;
    let contents = catalog.read().map_err(unreadable("the catalog"))?;
    let arena = handed_over.take_spanning(files::ARENA, Arena::FILE_BYTES, Arena::LEAST_BYTES)?;
    let extents = handed_over.take(files::EXTENTS, Arena::EXTENTS_FILE_BYTES)?;
    let shared = handed_over.take(files::SHARED, SharedBlocks::file_bytes())?;
    let tier = TierTable::over(handed_over.take(files::TIER, TierTable::FILE_BYTES)?);
    let pools = handed_over.take_pools(&contents)?;
    let engine_files = EngineFiles { arena, extents, shared };
    let engine = Arc::new(Engine::over(limit_bytes, files.clone(), engine_files, tier, catalog));
    let mut survey = engine.arena.survey().map_err(unreadable("the table of extents"))?;

    // From here on files change.
    engine.catalog.resume(&contents);
    recovery.leftover_files = handed_over.release_rest();
    recovery.damaged_records = contents.damaged_records;
    let clients = adopt(&engine, &contents, pools, &mut recovery)?;
    recovery.mapping_time = start.elapsed();

    let start = Instant::now();
    engine.shared_blocks.recover().map_err(unreadable("the cells of shared blocks"))?;
    for pool in clients.iter().flat_map(|client| client.pools()) {
        let found = pool.recover(&mut survey)?;
        recovery.found_pages += found.whole;
        recovery.damaged_pages += found.damaged;
    }
    engine.shared_blocks.resume();
    engine.tiering.table.resume().map_err(unreadable("the table of a tier"))?;
    recovery.index_time = start.elapsed();

    let start = Instant::now();
    recovery.repaired_extents = engine.arena.recover(survey).map_err(unreadable("the arena"))?;
    recovery.extent_time = start.elapsed();

    let mut recalling = engine.recalling.lock().unwrap_or_else(PoisonError::into_inner);
    recalling.extend(clients.iter().flat_map(|client| client.pools()).map(|pool| (Arc::downgrade(&pool), 0)));
    drop(recalling);
    recovery.held_bytes = engine.budget.held_bytes();
    files.attach();
    Ok(Opened { engine, clients, recovery })
}

/// Makes clients and pools as the catalog says, all of them still empty.
fn adopt(
    engine: &Arc<Engine>,
    contents: &Contents,
    pools: Vec<FoundPool>,
    recovery: &mut Recovery,
) -> Result<Vec<Arc<Client>>, StoreError> {
    let mut clients = Vec::new();
    let mut by_slot = HashMap::new();
    for (slot, record) in &contents.clients {
        let client = Arc::new(Client::new(record.options.clone(), record.frozen, engine.clone(), *slot)?);
        by_slot.insert(*slot, client.clone());
        clients.push(client);
    }
    for (id, record, files) in pools {
        let Some(client) = by_slot.get(&record.client) else { continue };
        let (pool, damaged) = Pool::reopen(id, &record, files, client, engine.clone())?;
        recovery.damaged_records += damaged;
        client.adopt_pool(engine.adopt_pool(id, pool));
        recovery.pools += 1;
    }
    recovery.clients = clients.len() as u64;
    Ok(clients)
}

impl HandedOver {
    /// Errors: a file that can't be a store's, or the same one twice.
    fn new(
        handed_over: impl IntoIterator<Item = (String, OwnedFd)>,
        files: Arc<Files>,
    ) -> Result<Self, StoreError> {
        let mut by_name = BTreeMap::new();
        let mut seen = HashSet::new();
        for (name, file) in handed_over {
            let problem =
                |problem: &str| StoreError::File { name: name.clone(), problem: problem.to_owned() };
            if FileRole::of(&name).is_none() {
                return Err(problem("no file of a store has such a name"));
            }
            let stat = rustix::fs::fstat(&file).map_err(|error| problem(&error.to_string()))?;
            if !seen.insert((stat.st_dev, stat.st_ino)) {
                return Err(problem("it was handed over under another name, too"));
            }
            if by_name.contains_key(&name) {
                return Err(problem("there are two of that name"));
            }
            by_name.insert(name, file);
        }
        Ok(Self { by_name, files })
    }

    fn take(&mut self, name: &str, len_bytes: usize) -> Result<MemoryFile, StoreError> {
        self.take_spanning(name, len_bytes, len_bytes)
    }

    fn take_spanning(
        &mut self,
        name: &str,
        len_bytes: usize,
        least_bytes: usize,
    ) -> Result<MemoryFile, StoreError> {
        let file =
            self.by_name.remove(name).ok_or_else(|| StoreError::FileMissing { name: name.to_owned() })?;
        let problem =
            |error: io::Error| StoreError::File { name: name.to_owned(), problem: error.to_string() };
        self.files.adopt(name, file, len_bytes, least_bytes).map_err(problem)
    }

    fn take_pools(&mut self, contents: &Contents) -> Result<Vec<FoundPool>, StoreError> {
        let mut pools = Vec::new();
        for (id, record) in &contents.pools {
            let index = self.take(&files::index_name(*id), Index::file_bytes(record.keys.pages()))?;
            let directory = match record.keys {
                Keys::Flat { .. } => None,
                Keys::Sparse { max_pages } => {
                    Some(self.take(&files::directory_name(*id), Directory::file_bytes(max_pages))?)
                }
            };
            pools.push((*id, *record, PoolFiles { index, directory }));
        }
        Ok(pools)
    }

    /// Releases what no pool needs: the files of those that were just being made or destroyed.
    fn release_rest(self) -> u64 {
        self.by_name.keys().for_each(|name| self.files.release(name));
        self.by_name.len() as u64
    }
}

fn unreadable(what: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Memory { what, source }
}
