//! The store's tier: what is attached, how it is used, and reading from it.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    entry::TieredRef,
    error::{GetError, StoreError},
    room_signal::RoomSignal,
    tier::{Tier, TierCopy, TierError, TierRead, TierState, TierWrite},
    tier_cleaning::Cleaner,
    tier_table::TierTable,
};

/// When pages go to the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteBackOptions {
    /// A page goes when it was neither put nor fetched for so long. `None`: only when the store needs room.
    pub age: Option<Duration>,
    /// Whether every extent is copied to the tier as soon as it is full, so that making room later takes no writing: frontswap's
    /// write-through mode. Pages are still read from memory as long as they are there.
    pub write_through: bool,
}

/// What a tier is and holds, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierUsage {
    /// What people call it.
    pub name: String,
    /// What it is, in one word.
    pub kind: &'static str,
    /// How it is.
    pub state: TierState,
    /// The last thing that went wrong, if it still matters.
    pub trouble: Option<String>,
    /// What it can hold, in bytes of blocks.
    pub limit_bytes: u64,
    /// The places in use, in bytes: blocks that are needed, and what lies between them.
    pub used_bytes: u64,
    /// What is needed of that, in bytes.
    pub live_bytes: u64,
    /// Pages that are in the tier alone; pages that share a block count once.
    pub stored_pages: u64,
    /// Blocks that nobody needs and a tier that keeps single blocks still has, because it could not be told: they go with their copies. In
    /// bytes, so far.
    pub untold_bytes: u64,
    /// Copies of extents written so far.
    pub written_extents: u64,
    /// Reads so far.
    pub reads: u64,
    /// Reads and writes that it could not do, so far.
    pub errors: u64,
}

/// An eighth of the places is not for copies of what stays in memory.
const KEPT_PLACES_PART: u32 = 8;

#[derive(Debug)]
pub(crate) struct Tiering {
    pub(crate) table: Arc<TierTable>,
    tier: OnceLock<Arc<dyn Tier>>,
    options: RwLock<WriteBackOptions>,
    /// Puts that wait for room, and whoever makes it.
    pub(crate) signal: RoomSignal,
    /// Held by whoever writes or cleans: one at a time.
    pub(crate) cleaner: Mutex<Cleaner>,
    is_cleanable: AtomicBool,
    shared_blocks: AtomicU64,
    shared_bytes: AtomicU64,
    written_extents: AtomicU64,
    reads: AtomicU64,
    errors: AtomicU64,
}

impl Tiering {
    pub(crate) fn over(table: Arc<TierTable>) -> Self {
        Self {
            table,
            tier: OnceLock::new(),
            options: RwLock::default(),
            signal: RoomSignal::default(),
            cleaner: Mutex::default(),
            is_cleanable: AtomicBool::new(true),
            shared_blocks: AtomicU64::new(0),
            shared_bytes: AtomicU64::new(0),
            written_extents: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// Errors: there is one already, or it is smaller than what was written to it.
    pub(crate) fn attach(&self, tier: Arc<dyn Tier>) -> Result<(), StoreError> {
        let needed_places = self.table.untouched_from();
        let name = tier.name().to_owned();
        if self.tier.get().is_some() {
            return Err(StoreError::SecondTier { name });
        }
        // One that is missing for now has no places yet.
        if tier.state() == TierState::Ready && tier.places() < needed_places {
            return Err(StoreError::TierTooSmall { name, places: tier.places(), needed_places });
        }
        tier.use_key(&self.table.key());
        if tier.keeps_blocks() {
            self.table.note_dead_blocks();
        }
        if !tier.is_cleaned() {
            self.set_cleanable(false);
        }
        self.tier.set(tier).map_err(|_| StoreError::SecondTier { name })
    }

    pub(crate) fn tier(&self) -> Option<&Arc<dyn Tier>> {
        self.tier.get()
    }

    pub(crate) fn options(&self) -> WriteBackOptions {
        *self.options.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_options(&self, options: WriteBackOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = options;
    }

    /// Whether it pays to wait for room: pages can be written, and there are places for them, or some that are mostly dead.
    pub(crate) fn is_taking(&self) -> bool {
        self.tier.get().is_some_and(|tier| {
            tier.state() == TierState::Ready
                && (self.table.used() + 1 < tier.places() || self.is_cleanable.load(Ordering::Relaxed))
        })
    }

    /// Remembers whether cleaning gained places when it was last tried.
    pub(crate) fn set_cleanable(&self, is_cleanable: bool) {
        self.is_cleanable.store(is_cleanable, Ordering::Relaxed);
    }

    /// Whether pages may leave memory for the tier, as it seems: it gives what it has.
    pub(crate) fn is_giving(&self) -> bool {
        self.tier.get().is_some_and(|tier| tier.state().is_giving())
    }

    /// Places for copies of what stays in memory: some are left to pages that have to go.
    pub(crate) fn places_to_spare(&self) -> usize {
        let places = self.tier.get().map_or(0, |tier| tier.places());
        (places - places / KEPT_PLACES_PART).saturating_sub(self.table.used()) as usize
    }

    /// Reads a block from a copy that the caller has pinned.
    pub(crate) fn read(&self, tiered: TieredRef, copy: TierCopy, block: &mut [u8]) -> Result<(), GetError> {
        self.read_at(copy, tiered.start as usize, block).map_err(GetError::from)
    }

    /// Whether the tier is one to read several blocks of at once.
    pub(crate) fn reads_together(&self) -> bool {
        self.tier.get().is_some_and(|tier| tier.reads_together())
    }

    /// Reads blocks from copies that the caller has pinned, all at once.
    pub(crate) fn read_many(&self, reads: &mut [TierRead<'_>]) {
        // Where there is none they say that they were not read.
        let Some(tier) = self.tier.get() else { return };
        tier.read_many(reads);
        let errors = reads.iter().filter(|read| read.result.is_err()).count();
        self.reads.fetch_add(reads.len() as u64, Ordering::Relaxed);
        self.errors.fetch_add(errors as u64, Ordering::Relaxed);
    }

    /// Reads from a copy that the caller has pinned.
    pub(crate) fn read_at(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        let tier = self.tier.get().ok_or_else(|| TierError::Unavailable("there is no tier".to_owned()))?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        tier.read(copy, start, into).inspect_err(|_| {
            self.errors.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Writes copies.
    pub(crate) fn write(&self, writes: &[TierWrite<'_>]) -> Result<(), TierError> {
        let tier = self.tier.get().ok_or_else(|| TierError::Unavailable("there is no tier".to_owned()))?;
        let written = tier.write(writes);
        if written.is_ok() {
            self.written_extents.fetch_add(writes.len() as u64, Ordering::Relaxed);
        } else {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// Takes places for copies, having told the tier which ones are not needed any more. One place is left to cleaning.
    pub(crate) fn take_places(&self, wanted: usize) -> Vec<TierCopy> {
        let Some(tier) = self.tier.get() else { return Vec::new() };
        self.forget_left(tier);
        let may_be_used = tier.places().saturating_sub(self.table.used() + 1);
        self.table.take(wanted.min(may_be_used as usize), tier.places())
    }

    /// Takes a place, be it the last one, which is given back as soon as the copies are that it is for.
    pub(crate) fn take_last_place(&self) -> Option<TierCopy> {
        let tier = self.tier.get()?;
        self.forget_left(tier);
        self.table.take(1, tier.places()).pop()
    }

    /// Tells the tier which copies are not needed any more.
    pub(crate) fn forget_unneeded(&self) {
        if let Some(tier) = self.tier.get() {
            self.forget_left(tier);
        }
    }

    /// Whether the tier keeps single blocks.
    pub(crate) fn keeps_blocks(&self) -> bool {
        self.tier.get().is_some_and(|tier| tier.keeps_blocks())
    }

    fn forget_left(&self, tier: &Arc<dyn Tier>) {
        self.table.take_dead_blocks(|dead| tier.release(dead));
        let left = self.table.take_left();
        left.iter().for_each(|place| tier.discard(place.0));
        self.table.make_free(left);
    }

    /// Counts a shared block that came to the tier (1) or left it (-1).
    pub(crate) fn count_shared(&self, change: i64, tiered: TieredRef) {
        self.shared_blocks.fetch_add(change as u64, Ordering::Relaxed);
        self.shared_bytes.fetch_add((change * i64::from(tiered.block_bytes)) as u64, Ordering::Relaxed);
    }

    /// What the tier is and holds, where clients have so many pages of their own in it, of so many bytes. `None`: there is none.
    pub(crate) fn usage(&self, own_pages: u64, own_bytes: u64) -> Option<TierUsage> {
        let tier = self.tier.get()?;
        let bytes = |places: u32| u64::from(places) * crate::tier::TIER_EXTENT_BYTES as u64;
        let state = match tier.state() {
            TierState::Ready if self.table.used() + 1 >= tier.places() => TierState::Full,
            state => state,
        };
        Some(TierUsage {
            name: tier.name().to_owned(),
            kind: tier.kind(),
            state,
            trouble: tier.trouble(),
            limit_bytes: tier.limit_bytes(),
            used_bytes: bytes(self.table.used()),
            live_bytes: own_bytes + self.shared_bytes.load(Ordering::Relaxed),
            stored_pages: own_pages + self.shared_blocks.load(Ordering::Relaxed),
            untold_bytes: self.table.untold_bytes(),
            written_extents: self.written_extents.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        })
    }
}
