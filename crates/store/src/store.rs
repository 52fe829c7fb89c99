//! The store: all clients over one arena and one limit.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    client::{Client, ClientOptions},
    compaction::Compaction,
    engine::Engine,
    entry::MAX_ARENA_BYTES,
    error::StoreError,
    files::{self, FileKeeper, Files},
    mapped_ahead,
    recompression::{Recompression, RecompressionOptions},
    recovery::{self, Recovery},
    tier::{Tier, TierCopy, TierRun},
    tier_cleaning::Cleaning,
    tiering::{TierUsage, WriteBackOptions},
    usage::{ClientUsage, StoreUsage},
    write_back::WriteBack,
};

/// How a store is to be.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The most memory it may hold from the OS, in bytes, index included: [`MIN_LIMIT_BYTES`] to
    /// [`MAX_LIMIT_BYTES`].
    pub limit_bytes: u64,
}

/// The engine that keeps pages. Starts no threads; all methods may run on many threads at once.
#[derive(Debug)]
pub struct Store {
    engine: Arc<Engine>,
    clients: Mutex<Vec<Arc<Client>>>,
}

/// The smallest limit a store can have, in bytes.
pub const MIN_LIMIT_BYTES: u64 = 1 << 20;

/// The largest limit a store can have, in bytes: as far as offsets in its arena reach.
pub const MAX_LIMIT_BYTES: u64 = MAX_ARENA_BYTES;

/// However soon pages are to be cold, epochs are not ended by time more often: that would spend them on a fraction of the pages.
const SHORTEST_LONGEST_EPOCH: Duration = Duration::from_secs(1);

impl Store {
    /// Makes an empty store. It takes memory as pages come.
    pub fn new(options: StoreOptions) -> Result<Arc<Store>, StoreError> {
        Self::create(options, None)
    }

    /// Makes an empty store whose memory files somebody else holds, too, so that they can be opened when this process has died.
    pub fn new_kept(options: StoreOptions, keeper: Arc<dyn FileKeeper>) -> Result<Arc<Store>, StoreError> {
        Self::create(options, Some(keeper))
    }

    /// Turns over one bit of a page of some flat pool, chosen by `random`. `tell` is told which page of which pool before it happens. False:
    /// no page was found that could be damaged so.
    #[cfg(any(test, feature = "fault-injection"))]
    pub fn flip(
        &self,
        flip: crate::fault_injection::Flip,
        random: impl Fn() -> u64,
        tell: impl Fn(crate::PoolId, crate::PageIndex),
    ) -> bool {
        let pools = self.engine.pools();
        let flat: Vec<_> =
            pools.iter().filter(|pool| matches!(pool.keys(), crate::Keys::Flat { .. })).collect();
        let Some(pool) = flat.get((random() % flat.len().max(1) as u64) as usize) else { return false };
        pool.flip(flip, random, tell)
    }

    /// Opens the memory files of a store that is gone: its process died at any moment, or left it with [`Store::detach`]. Every
    /// accepted persistent page is found again, and so are ephemeral ones; a page that was just being put or flushed is as it was
    /// before or after that. What clients have done is counted anew. Nobody else uses the files from now on.
    ///
    /// `files` are all that the keeper holds, by name; it is told of changes from now on. Errors: a file is missing, is not the
    /// store's, or was made by a version with another layout; nothing has changed then, and nothing is released.
    pub fn open(
        files: impl IntoIterator<Item = (String, OwnedFd)>,
        options: StoreOptions,
        keeper: Option<Arc<dyn FileKeeper>>,
    ) -> Result<(Arc<Store>, Recovery), StoreError> {
        check_limit(options.limit_bytes)?;
        let opened = recovery::open(files, options.limit_bytes, Files::new(keeper))?;
        let store = Store { engine: opened.engine, clients: Mutex::new(opened.clients) };
        Ok((Arc::new(store), opened.recovery))
    }

    /// Whether this version can open these files, which another process still uses: by names, lengths and layout. Changes nothing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn check(files: impl IntoIterator<Item = (String, OwnedFd)>) -> Result<(), StoreError> {
        recovery::check(files)
    }

    /// Maps these files, which another process still uses, so that opening them in this one asks the OS for next to nothing. They stay mapped until then.
    ///
    /// # Errors
    /// One is no memory file, or the OS refuses.
    pub fn map_ahead(files: impl IntoIterator<Item = (String, OwnedFd)>) -> Result<(), StoreError> {
        files.into_iter().try_for_each(|(name, file)| {
            mapped_ahead::map(file).map_err(|error| StoreError::File { name, problem: error.to_string() })
        })
    }

    /// Whether these are a store's files, and not those of one that was just being made.
    pub fn is_whole<'n>(names: impl IntoIterator<Item = &'n str>) -> bool {
        names.into_iter().any(|name| name == files::CATALOG)
    }

    fn create(options: StoreOptions, keeper: Option<Arc<dyn FileKeeper>>) -> Result<Arc<Store>, StoreError> {
        check_limit(options.limit_bytes)?;
        let engine = Engine::create(options.limit_bytes, Files::new(keeper))?;
        Ok(Arc::new(Store { engine: Arc::new(engine), clients: Mutex::default() }))
    }

    /// Hands the store over: puts are refused from now on, and dropping store, clients and pools leaves all pages where they are and
    /// the files with their keeper. Waits for what is just being written to a tier. The caller's threads use none of them any more.
    pub fn detach(&self) {
        // Whoever writes pages to the tier or cleans it looks at this before each batch. What it is at has to end here: another process
        // may have the files by the time the disk is done.
        self.engine.files.detach();
        drop(self.engine.tiering.cleaner.lock().unwrap_or_else(PoisonError::into_inner));
        let _no_compaction = self.engine.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let _no_stocking = self.engine.stocking.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock().iter().for_each(|client| client.detach());
    }

    /// Changes the limit. A lower one refuses what comes after; persistent pages stay, and compaction works towards it.
    pub fn set_limit_bytes(&self, limit_bytes: u64) -> Result<(), StoreError> {
        check_limit(limit_bytes)?;
        self.engine.budget.set_limit_bytes(limit_bytes);
        Ok(())
    }

    /// The most memory it may hold from the OS now, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.engine.budget.limit_bytes()
    }

    /// The most that this process has addresses for, in bytes of compressed pages: less than [`MAX_LIMIT_BYTES`] where they are few (`ulimit -v`,
    /// User-mode Linux).
    pub fn span_bytes(&self) -> u64 {
        self.engine.arena.span_bytes()
    }

    /// Memory held from the OS, in bytes: what the limit is for.
    pub fn held_bytes(&self) -> u64 {
        self.engine.budget.held_bytes()
    }

    /// Whether more is held than the limit allows, because it was lowered.
    pub fn is_over_limit(&self) -> bool {
        self.engine.budget.is_exceeded()
    }

    /// Whether pages that memory has no room for can go to a tier now.
    pub fn is_tier_taking(&self) -> bool {
        self.engine.tiering.is_taking()
    }

    /// Makes a client. Errors: its name is taken or too long, its cap out of bounds, or there are too many
    /// clients.
    pub fn create_client(&self, options: ClientOptions) -> Result<Arc<Client>, StoreError> {
        let mut clients = self.lock();
        if clients.iter().any(|client| client.name() == options.name) {
            return Err(StoreError::NameTaken { name: options.name });
        }
        let slot = self.engine.catalog.add_client(&options)?;
        let made = Client::new(options, false, self.engine.clone(), slot).inspect_err(|_| {
            self.engine.catalog.remove_client(slot);
            self.engine.catalog.free_client(slot);
        });
        let client = Arc::new(made?);
        clients.push(client.clone());
        Ok(client)
    }

    /// Forgets a client with all its pages. Errors: it was removed before.
    pub fn remove_client(&self, client: &Arc<Client>) -> Result<(), StoreError> {
        let mut clients = self.lock();
        let at = clients
            .iter()
            .position(|other| Arc::ptr_eq(other, client))
            .ok_or_else(|| StoreError::NoSuchClient { name: client.name().to_owned() })?;
        clients.remove(at);
        drop(clients);
        client.remove();
        Ok(())
    }

    /// The client of that name.
    pub fn client(&self, name: &str) -> Option<Arc<Client>> {
        self.lock().iter().find(|client| client.name() == name).cloned()
    }

    /// What every client holds and has done, in the order they came.
    pub fn clients(&self) -> Vec<ClientUsage> {
        let clients = self.lock().clone();
        clients.iter().map(|client| client.usage()).collect()
    }

    /// What the store holds.
    pub fn usage(&self) -> StoreUsage {
        self.snapshot().0
    }

    /// What the store holds together with its clients, so that the sums agree.
    pub fn snapshot(&self) -> (StoreUsage, Vec<ClientUsage>) {
        let clients = self.clients();
        let usage =
            StoreUsage::new(self.engine.budget.limit_bytes(), self.engine.budget.held_bytes(), &clients);
        (usage, clients)
    }

    /// Moves blocks together where many have been forgotten, so that memory goes back to the OS; returns when it no longer pays or
    /// after about `time`. The store does this by itself only when it is full: call it now and then.
    pub fn compact(&self, time: Duration) -> Compaction {
        self.engine.compact_in_background(time)
    }

    /// Puts a part of the arena that fills no more into a huge page, 2 MiB of it. False: every such part is in one, or the OS has none
    /// to give. It makes gets quicker that find their page in no cache; one of a page that is just being moved waits for it, a
    /// millisecond or so. Call it when there is little to do.
    pub fn make_huge_page(&self) -> bool {
        self.engine.arena.collapse_next()
    }

    /// Compresses cold pages harder, so that they take less memory; returns when there are no more or after about `time`. The store
    /// never does this by itself: call it now and then. A get waits for it no longer than for the exchange of one index entry.
    pub fn recompress(&self, time: Duration) -> Recompression {
        self.engine.recompress(time)
    }

    /// Has pages refused from now on whose payload is longer than that: 4096, a page, refuses none. Pages of one repeated word have
    /// none. What is stored stays.
    pub fn set_max_payload_bytes(&self, bytes: u32) {
        self.engine.max_payload_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether from now on the blocks of forgotten pages are overwritten with zeroes at once: of those that were flushed or overwritten,
    /// and of those that were moved, where they were before. It costs a fraction of a microsecond for each. What was forgotten before stays in
    /// memory until its extent is used again or goes back to the OS; copies in a tier are encrypted, and stay. Off at first.
    pub fn set_zero_on_flush(&self, is_on: bool) {
        self.engine.arena.set_zero_on_flush(is_on);
    }

    /// Changes when and how cold pages are compressed harder. Errors: there is no such level; nothing has changed then.
    pub fn set_recompression(&self, options: RecompressionOptions) -> Result<(), StoreError> {
        self.engine.recompression.set(options)
    }

    /// When and how cold pages are compressed harder.
    pub fn recompression(&self) -> RecompressionOptions {
        self.engine.recompression.get()
    }

    /// Gives the store a tier, for pages that are not in memory any more. One that holds pages of a store that was opened has to be
    /// attached before they are asked for. Errors: there is one already, or it is too small for what is in it.
    pub fn attach_tier(&self, tier: Arc<dyn Tier>) -> Result<(), StoreError> {
        self.engine.tiering.attach(tier)
    }

    /// When pages go to the tier.
    pub fn write_back_options(&self) -> WriteBackOptions {
        self.engine.tiering.options()
    }

    /// Changes when pages go to the tier.
    pub fn set_write_back_options(&self, options: WriteBackOptions) {
        self.engine.tiering.set_options(options);
        self.engine.arena.set_copying(options.write_through);
    }

    /// Moves pages to the tier until there is enough room for what may come, and none in memory is older than the options say; or until
    /// about `time` is over. The store never does this by itself: a thread calls it over and over, with
    /// [`Store::wait_until_write_back_is_wanted`] in between. It waits for the disk; nobody else does who does not need room.
    pub fn write_back(&self, time: Duration) -> WriteBack {
        self.engine.write_back(time)
    }

    /// Waits until a put wants room, somebody calls [`Store::wake_write_back`], or `time` is over. From the first call on, until
    /// [`Store::end_write_back`], puts that find no room wait a short while for what the thread that calls this makes. True: it is wanted.
    pub fn wait_until_write_back_is_wanted(&self, time: Duration) -> bool {
        self.engine.tiering.signal.wait_until_wanted(time)
    }

    /// Has the thread look that writes pages to the tier.
    pub fn wake_write_back(&self) {
        self.engine.tiering.signal.wake();
    }

    /// Says that no thread will write pages to the tier any more.
    pub fn end_write_back(&self) {
        self.engine.tiering.signal.stop();
    }

    /// Makes places in the tier free that are mostly dead, where it is rather full; returns when it does not pay any more or after about
    /// `time`. Call it now and then.
    pub fn clean_tier(&self, time: Duration) -> Cleaning {
        self.engine.clean_tier(time)
    }

    /// The copies that are in the tier, and how much is needed of each, in bytes: for a tier that does not know by itself what another process
    /// has written to it.
    pub fn tier_copies(&self) -> Vec<(TierCopy, u32)> {
        self.engine.tiering.table.entered()
    }

    /// Which blocks of a copy, of which all bytes are given, are needed now: for a tier that makes another copy of it. Of a damaged one: none.
    pub fn needed_of_tier_copy(&self, copy: TierCopy, extent: &[u8]) -> Vec<TierRun> {
        self.engine.needed_of(copy, extent)
    }

    /// What the tier is and holds. `None`: there is none.
    pub fn tier_usage(&self) -> Option<TierUsage> {
        let clients = self.clients();
        let sum = |field: fn(&ClientUsage) -> u64| clients.iter().map(field).sum();
        self.engine.tiering.usage(sum(|client| client.tiered_pages), sum(|client| client.tiered_bytes))
    }

    /// Keeps account of how long pages have been here, for at most about `time`. Call it about once a second: without it ages get
    /// coarser, and idle clients' pages do not get cold.
    pub fn tend_ages(&self, time: Duration) {
        let until = Instant::now() + time;
        let clients = self.lock().clone();
        let longest_epoch = (self.recompression().age / 2).max(SHORTEST_LONGEST_EPOCH);
        clients.iter().for_each(|client| client.tend_ages(longest_epoch, until));
    }

    /// Lets pages be found by their contents again, for at most about `time`: those that were there when the store was opened, and those whose
    /// places others took in the table that leads there. Opening and puts have no time for it. Call it about once a second, and again if it
    /// says that there are more.
    pub fn tend_dedup(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut more = self.recall(until);
        for domain in self.engine.domains() {
            more |= domain.restore_displaced(until); // each gets a turn, be it for one page
        }
        more
    }

    /// True: there are more.
    fn recall(&self, until: Instant) -> bool {
        let lock = || self.engine.recalling.lock().unwrap_or_else(PoisonError::into_inner);
        while Instant::now() < until {
            // Taken out meanwhile: a pool that is removed does not wait for this.
            let Some((pool, index_page)) = lock().pop() else { return false };
            let next = pool.upgrade().and_then(|pool| pool.recall(index_page, until));
            lock().extend(next.map(|next| (pool, next)));
        }
        !lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

fn check_limit(limit_bytes: u64) -> Result<(), StoreError> {
    if (MIN_LIMIT_BYTES..=MAX_LIMIT_BYTES).contains(&limit_bytes) {
        Ok(())
    } else {
        Err(StoreError::Limit { limit_bytes })
    }
}
