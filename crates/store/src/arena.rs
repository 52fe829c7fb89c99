//! The arena: the memory that holds blocks, as a log.
//!
//! Blocks are appended to the open extent of their kind, so they lie without gaps, in the order they came. Forgetting a block makes
//! its bytes dead; an extent without live bytes goes back to the OS at once, and compaction moves the live rest out of the
//! emptiest ones. Ephemeral blocks have extents of their own: making room is dropping the oldest one whole.
//!
//! A block's life: [`Arena::reserve`], fill, publish in the index, [`Arena::commit`]; later [`Arena::free`] under the lock that the
//! index entry was replaced under, then [`Arena::settle`] after it.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use crate::{
    block,
    budget::{Budget, Claim},
    entry::{BlockRef, MAX_ARENA_BYTES},
    extent_order::ExtentOrder,
    extents::{EXTENT_BYTES, EXTENTS_PER_HUGE_PAGE, ExtentId, ExtentUse, Extents},
    fault_injection,
    head::{Head, OpenExtent},
    ids::ArenaOffset,
    memory_file::{HUGE_PAGE_BYTES, MemoryFile},
    prefetch::prefetch,
    stock::Stock,
    tier_table::TierTable,
    walk::Walk,
};

mod copies;
mod recover;
mod stocking;
mod turns;
mod zeroing;

use copies::Copies;
use zeroing::Zeroing;

#[derive(Debug)]
pub(crate) struct Arena {
    memory: MemoryFile,
    extents: Extents,
    persistent: Head,
    ephemeral: Head,
    survivors: Head,
    cold: Head,
    /// Sealed ephemeral extents, oldest first. It may name extents that were given back since, and some twice.
    ephemeral_order: Mutex<VecDeque<ExtentId>>,
    /// Sealed extents with blocks that are to be recompressed once they are cold.
    recompression_order: ExtentOrder,
    /// Sealed extents of cold blocks, which are the first to go to the tier.
    cold_order: ExtentOrder,
    pub(crate) copies: Copies,
    born: Instant,
    /// Where the next search for the emptiest extent starts.
    search_from: AtomicU32,
    /// Where the next search for a stretch without a huge page starts.
    collapse_from: AtomicU32,
    stock: Arc<Stock>,
    zeroing: Zeroing,
}

/// An extent that a block's end left without users. Hand it to [`Arena::settle`] once no lock is held.
#[derive(Debug)]
#[must_use]
pub(crate) struct Emptied {
    extent: ExtentId,
    sealed: bool,
}

/// Keeps an extent while its memory is found.
struct Pinned<'a> {
    arena: &'a Arena,
    extent: ExtentId,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // Whoever is dying leaves everything as it is.
        if !fault_injection::is_crashed() {
            self.arena.unpin(self.extent);
        }
    }
}
const EXTENT_COUNT: u32 = (MAX_ARENA_BYTES / EXTENT_BYTES as u64) as u32;

/// Extents among which the emptiest is chosen: 1 GiB of arena, some microseconds.
const WINDOW_EXTENTS: u32 = 8192;

/// From this many names on, and each time it has doubled, the order of ephemeral extents is rid of those given back.
const LONG_ORDER: usize = 1024;

/// What there has to be room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// So many bytes outside the arena: a page of an index.
    Bytes(u64),
    /// Nothing in particular, but that the pool is not nearly full: [`Claim::BeyondShare`].
    Headroom,
    /// A block of such a size.
    Block {
        block_bytes: u16,
        /// Persistent or ephemeral.
        usage: ExtentUse,
    },
}

/// How far to look for an extent to empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// While a put waits: through 16 GiB of arena at most, well under a disk write's time.
    Brief,
    /// Through all of it.
    Whole,
}

impl Arena {
    /// How long the file of an arena is, in bytes, and the file of its extents.
    pub(crate) const FILE_BYTES: usize = MAX_ARENA_BYTES as usize;
    /// What of it there have to be addresses for. The arena can't grow further then.
    pub(crate) const LEAST_BYTES: usize = 1 << 36;
    pub(crate) const EXTENTS_FILE_BYTES: usize = Extents::file_bytes(EXTENT_COUNT);

    /// An arena over these files. It can grow as far as offsets reach and the budget allows, and costs address space only, until
    /// used.
    pub(crate) fn over(
        memory: MemoryFile,
        extents: MemoryFile,
        tier: Arc<TierTable>,
        budget: Arc<Budget>,
        stock: Arc<Stock>,
    ) -> Self {
        let count = EXTENT_COUNT.min((memory.span_bytes() / EXTENT_BYTES) as u32);
        Self {
            memory,
            extents: Extents::over(extents, count, budget, stock.clone()),
            persistent: Head::default(),
            ephemeral: Head::default(),
            survivors: Head::default(),
            cold: Head::default(),
            ephemeral_order: Mutex::default(),
            recompression_order: ExtentOrder::new(EXTENT_COUNT),
            cold_order: ExtentOrder::new(EXTENT_COUNT),
            copies: Copies::new(EXTENT_COUNT, tier),
            born: Instant::now(),
            search_from: AtomicU32::new(0),
            collapse_from: AtomicU32::new(0),
            stock,
            zeroing: Zeroing::default(),
        }
    }

    /// How far it can grow, in bytes.
    pub(crate) fn span_bytes(&self) -> u64 {
        self.memory.span_bytes() as u64
    }

    /// Reserves room for a block. `None`: the open extent has none, and another extent is not to be had.
    pub(crate) fn reserve(&self, block_bytes: u16, usage: ExtentUse) -> Option<BlockRef> {
        self.reserve_claiming(block_bytes, usage, Claim::Growth)
    }

    /// As [`Arena::reserve`]. Whoever claims for compaction gives at least as much back before the next one does.
    pub(crate) fn reserve_claiming(
        &self,
        block_bytes: u16,
        usage: ExtentUse,
        claim: Claim,
    ) -> Option<BlockRef> {
        let head = self.head(usage);
        loop {
            if let Some(block) = self.append(head, block_bytes, || true).ok()? {
                return Some(block);
            }
            let fresh = self.extents.acquire(usage, claim)?;
            let mut open = head.lock();
            if open.as_ref().is_some_and(|open| open.has_room(block_bytes)) {
                drop(open);
                self.extents.give_back(&self.memory, fresh); // another thread was quicker
                continue;
            }
            let populated = self.extents.state(fresh).see().populated;
            let full = open.replace(OpenExtent::empty(fresh, populated));
            drop(open);
            self.seal(usage, full);
        }
    }

    /// Reserves room for a persistent block in what compaction left free in its own open extents, as long as compaction can have
    /// another for what it is moving.
    pub(crate) fn reserve_among_survivors(&self, block_bytes: u16) -> Option<BlockRef> {
        let may = || self.extents.has_room(Claim::Compaction);
        let mut heads = [&self.survivors, &self.cold].into_iter();
        heads.find_map(|head| self.append(head, block_bytes, may).ok()?)
    }

    /// Reserves the next place in a head's open extent, if `may` says so under its lock. `None`: it has no room. Errors: the OS has
    /// no memory for it.
    fn append(&self, head: &Head, block_bytes: u16, may: impl Fn() -> bool) -> io::Result<Option<BlockRef>> {
        let mut _pinned = None;
        loop {
            let (extent, missing) = {
                let mut open = head.lock();
                let Some(open) = open.as_mut().filter(|open| open.has_room(block_bytes) && may()) else {
                    return Ok(None);
                };
                let state = self.extents.state(open.extent);
                let Some(missing) = open.missing(block_bytes) else {
                    state.reserve(u32::from(block_bytes));
                    return Ok(Some(BlockRef { offset: open.append(block_bytes), block_bytes }));
                };
                // It stays until the block is reserved, or its memory would be found for nobody.
                state.pin();
                (open.extent, missing)
            };
            _pinned = Some(Pinned { arena: self, extent });
            // The OS finds the memory while nobody waits for the head. If two threads ask for the same piece, one asked in vain.
            let bytes = missing.len();
            let populated = self.memory.populate(extent.offset() + missing.start as usize, bytes);
            if populated.is_ok()
                && let Some(open) = head.lock().as_mut().filter(|open| open.extent == extent)
            {
                open.set_populated(missing.end);
            }
            populated?;
        }
    }

    /// Keeps the extent of a block that an index entry refers to, whose lock the caller holds. Undone by [`Arena::commit`].
    pub(crate) fn pin_block(&self, block: ArenaOffset) {
        self.extents.state(extent_of(block)).pin();
    }

    /// Says that a reserved block is filled, and published or freed; or that a pinned one was read.
    pub(crate) fn commit(&self, block: ArenaOffset) {
        let extent = extent_of(block);
        let state = self.extents.state(extent);
        if state.is_newly_complete() {
            self.extents.mark_complete(extent);
        }
        let seen = state.unpin();
        if seen.is_unused() {
            self.settle(Some(Emptied { extent, sealed: seen.sealed }));
        }
        self.pin_went(extent);
    }

    /// Makes a block's bytes dead. Called under the lock under which its index entry was replaced, so that whoever holds the lock
    /// knows: a block that no entry refers to is not counted as live.
    pub(crate) fn free(&self, block: BlockRef) -> Option<Emptied> {
        if let Some(emptied) = self.free_zeroed(block) {
            return emptied;
        }
        let extent = extent_of(block.offset);
        let seen = self.extents.state(extent).free(u32::from(block.block_bytes));
        seen.is_unused().then_some(Emptied { extent, sealed: seen.sealed })
    }

    /// Gives an emptied extent back to the OS. Called without locks.
    pub(crate) fn settle(&self, emptied: Option<Emptied>) {
        let Some(Emptied { extent, sealed }) = emptied else { return };
        if sealed || self.close_unused(extent) {
            self.give_back(extent);
        }
    }

    /// Takes an extent from its head if nobody uses it. False: it is used again, or some head's open extent no more.
    fn close_unused(&self, extent: ExtentId) -> bool {
        let Some(usage) = self.extents.usage(extent) else { return false };
        // Under the head's lock nothing is added to it.
        let mut open = self.head(usage).lock();
        let is_open = open.as_ref().is_some_and(|open| open.extent == extent);
        let close = is_open && self.extents.state(extent).see().is_unused();
        if close {
            *open = None;
        }
        close
    }

    /// A stored block's bytes. `None`: no such place.
    ///
    /// # Safety
    /// For as long as the slice lives the block is not freed, or its extent is pinned.
    pub(crate) unsafe fn block(&self, block: BlockRef) -> Option<&[u8]> {
        // SAFETY: by the caller's promise nobody reuses the place, and complete blocks are never written to.
        unsafe { self.bytes(block.offset, usize::from(block.block_bytes)) }
    }

    /// A reserved block's bytes, for filling.
    ///
    /// # Safety
    /// The caller reserved the block and has not committed it.
    #[expect(
        clippy::mut_from_ref,
        reason = "the reservation is what makes the slice exclusive, as the contract says"
    )]
    pub(crate) unsafe fn block_mut(&self, block: BlockRef) -> Option<&mut [u8]> {
        let bytes = usize::from(block.block_bytes);
        let mut start = self.memory.at(block.offset.0 as usize, bytes)?;
        // SAFETY: the range is inside the mapping and the caller's alone.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_mut(), bytes) })
    }

    /// Any bytes of the arena. `None`: no such place.
    ///
    /// # Safety
    /// Nobody writes to them for as long as the slice lives.
    pub(crate) unsafe fn bytes(&self, start: ArenaOffset, bytes: usize) -> Option<&[u8]> {
        let start = self.memory.at(usize::try_from(start.0).ok()?, bytes)?;
        // SAFETY: inside the mapping; not written to by the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) })
    }

    /// Has the CPU load a block's header ahead of its use. The block may be gone by then.
    pub(crate) fn prefetch_header(&self, block: BlockRef) {
        if let Some(start) = self.memory.at(block.offset.0 as usize, block::HEADER_BYTES) {
            prefetch(start.as_ptr());
        }
    }

    /// Pins the oldest ephemeral extent whose blocks are all complete. `None`: there is none.
    pub(crate) fn pin_oldest_ephemeral(&self) -> Option<Walk<'_>> {
        let mut tries = self.order().len();
        if tries == 0 {
            // All there is may be in the open extent.
            let open = self.ephemeral.lock().take();
            self.seal(ExtentUse::Ephemeral, open);
            tries = self.order().len();
        }
        for _ in 0..tries {
            let extent = self.order().pop_front()?;
            if self.extents.usage(extent) != Some(ExtentUse::Ephemeral) {
                continue; // given back since
            }
            if let Some(walk) = self.pin(extent, |usage| usage == ExtentUse::Ephemeral) {
                return Some(walk);
            }
            self.order().push_back(extent); // a put is just writing to it, or a get reading
        }
        None
    }

    /// An ephemeral extent was not emptied: it can be tried again.
    pub(crate) fn put_back_in_order(&self, extent: ExtentId) {
        self.order().push_back(extent);
    }

    /// Pins an extent with few live bytes, `live_bytes` at most, among those that hold persistent blocks: the emptiest of the first
    /// window that has one. `None`: there is none as far as the search goes.
    pub(crate) fn pin_emptiest(
        &self,
        live_bytes: u32,
        search: Search,
        is_wanted: impl Fn(ExtentId) -> bool,
    ) -> Option<Walk<'_>> {
        let end = self.extents.untouched_from();
        let windows = end.div_ceil(WINDOW_EXTENTS);
        let windows = if search == Search::Brief { windows.min(16) } else { windows };
        (0..windows).find_map(|_| {
            let looked_at = end.min(WINDOW_EXTENTS);
            let from = self.search_from.fetch_add(looked_at, Ordering::Relaxed) % end;
            let candidates = (0..looked_at).map(|i| ExtentId((from + i) % end)).filter_map(|extent| {
                let seen = self.extents.state(extent).see();
                let walkable = seen.sealed && !seen.damaged && seen.pins == 0 && seen.live_bytes > 0;
                (walkable
                    && seen.live_bytes <= live_bytes
                    && self.extents.usage(extent).is_some_and(ExtentUse::is_persistent)
                    && is_wanted(extent))
                .then_some((seen.live_bytes, extent))
            });
            let (_, emptiest) = candidates.min()?;
            self.pin(emptiest, ExtentUse::is_persistent)
        })
    }

    /// Pins the extent that has waited longest to be recompressed, if it has waited for so long. `None`: there is none.
    pub(crate) fn pin_longest_still(&self, age_ms: u64) -> Option<Walk<'_>> {
        let wait = |extent| self.wait_to_be_recompressed(extent);
        let (walk, _) =
            self.pin_first_of(&self.recompression_order, age_ms, ExtentUse::is_recompressible, wait)?;
        Some(walk)
    }

    /// Pins the first extent of an order that can be, if it has waited for so long; gives also for how long.
    fn pin_first_of(
        &self,
        order: &ExtentOrder,
        age_ms: u64,
        wanted: impl Fn(ExtentUse) -> bool,
        wait: impl Fn(ExtentId),
    ) -> Option<(Walk<'_>, u64)> {
        for _ in 0..order.len() {
            let now_ms = self.now_ms();
            let (extent, since_ms) = order.pop(now_ms.checked_sub(age_ms)?)?;
            if let Some(walk) = self.pin(extent, &wanted) {
                return Some((walk, now_ms - since_ms));
            }
            wait(extent); // just read or compacted, if it is not damaged
        }
        None
    }

    /// How many extents wait to be recompressed, or a few more.
    pub(crate) fn waiting_to_be_recompressed(&self) -> usize {
        self.recompression_order.len()
    }

    /// An extent begins to wait to be recompressed, if it has anything to be.
    pub(crate) fn wait_to_be_recompressed(&self, extent: ExtentId) {
        let seen = self.extents.state(extent).see();
        let is_wanted = |extent| self.extents.usage(extent).is_some_and(ExtentUse::is_recompressible);
        if is_wanted(extent) && seen.live_bytes > 0 && !seen.damaged {
            self.recompression_order.push(extent, self.now_ms(), is_wanted);
        }
    }

    /// Where compaction moves the blocks of an extent that it has pinned.
    pub(crate) fn moves_to(&self, extent: ExtentId) -> ExtentUse {
        self.extents.usage(extent).map_or(ExtentUse::Survivors, ExtentUse::moves_to)
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    /// Pins an extent for a walk, if it is for that use. While it is pinned the use stays; before, it may change at any time.
    fn pin(&self, extent: ExtentId, wanted: impl Fn(ExtentUse) -> bool) -> Option<Walk<'_>> {
        let state = self.extents.state(extent);
        if !state.pin_for_walk() {
            return None;
        }
        let walk = Walk::new(self, state, extent);
        self.extents.usage(extent).is_some_and(wanted).then_some(walk)
    }

    /// Puts one more stretch of the arena into a huge page: the next one whose extents are all sealed. False: there is none, or the
    /// OS has none to give.
    pub(crate) fn collapse_next(&self) -> bool {
        let end = self.extents.untouched_from() / EXTENTS_PER_HUGE_PAGE;
        let collapsed = (0..end).find_map(|_| {
            let stretch = self.collapse_from.fetch_add(1, Ordering::Relaxed) % end;
            if self.extents.is_huge(stretch) { None } else { self.collapse(stretch) }
        });
        collapsed.unwrap_or(false)
    }

    /// Puts a stretch into a huge page; says whether the OS did. `None`: some extent of it is open, free or just looked at.
    fn collapse(&self, stretch: u32) -> Option<bool> {
        let first = stretch * EXTENTS_PER_HUGE_PAGE;
        let extents = (first..first + EXTENTS_PER_HUGE_PAGE).map(ExtentId);
        // While they are pinned no extent is given back, whose memory would otherwise be found again here.
        let _walks = extents.map(|extent| self.pin(extent, |_| true)).collect::<Option<Vec<_>>>()?;
        let is_huge = self.memory.collapse(ExtentId(first).offset(), HUGE_PAGE_BYTES).is_ok();
        self.extents.set_huge(stretch, is_huge);
        Some(is_huge)
    }

    /// Takes a pin from an extent: a walk is over, or a search for memory, or it was sealed.
    pub(crate) fn unpin(&self, extent: ExtentId) {
        self.commit(ArenaOffset(extent.offset() as u64));
    }

    /// Whether there is room, at this moment.
    pub(crate) fn has_room(&self, need: Need) -> bool {
        match need {
            Need::Bytes(bytes) => self.extents.has_room_for_bytes(bytes),
            Need::Headroom => self.extents.has_headroom(),
            Need::Block { block_bytes, usage } => {
                let has_room =
                    |usage| self.head(usage).lock().as_ref().is_some_and(|open| open.has_room(block_bytes));
                self.extents.has_room(Claim::Growth)
                    || has_room(usage)
                    || usage == ExtentUse::Persistent
                        && self.extents.has_room(Claim::Compaction)
                        && (has_room(ExtentUse::Survivors) || has_room(ExtentUse::Cold))
            }
        }
    }

    /// Gives an extent to the OS that was kept to be used again. False: there is none.
    pub(crate) fn release_spare(&self) -> bool {
        self.extents.release_spare(&self.memory)
    }

    /// Bytes that live blocks take, and bytes of all extents held.
    pub(crate) fn live_and_held_bytes(&self) -> (u64, u64) {
        let extents = (0..self.extents.untouched_from()).map(ExtentId);
        let held = extents.filter(|extent| self.extents.usage(*extent).is_some());
        held.fold((0, 0), |(live, held), extent| {
            (live + u64::from(self.extents.state(extent).see().live_bytes), held + EXTENT_BYTES as u64)
        })
    }

    /// Seals the open extents of persistent blocks that have no room for such a block, so that they can be compacted, too.
    pub(crate) fn seal_full(&self, need: Need) {
        let Need::Block { block_bytes, .. } = need else { return };
        for usage in [ExtentUse::Persistent, ExtentUse::Survivors, ExtentUse::Cold] {
            let full = self.head(usage).lock().take_if(|open| !open.has_room(block_bytes));
            self.seal(usage, full);
        }
    }

    fn seal(&self, usage: ExtentUse, open: Option<OpenExtent>) {
        let Some(OpenExtent { extent, filled_bytes, .. }) = open else { return };
        let rest = extent.offset() + filled_bytes as usize;
        if let Some(mut start) = self.memory.at(rest, EXTENT_BYTES - filled_bytes as usize) {
            // SAFETY: the rest of an extent that has just left its head: nobody else reads or writes there.
            block::write_end(unsafe {
                std::slice::from_raw_parts_mut(start.as_mut(), EXTENT_BYTES - filled_bytes as usize)
            });
        }
        if usage == ExtentUse::Ephemeral {
            let mut order = self.order();
            if order.len() >= LONG_ORDER && order.len().is_power_of_two() {
                order.retain(|extent| self.extents.usage(*extent) == Some(ExtentUse::Ephemeral));
            }
            order.push_back(extent);
        }
        // Pinned, so that whoever takes the last pin away finds it sealed and, as a rule, complete.
        let state = self.extents.state(extent);
        state.pin();
        state.seal();
        self.unpin(extent);
        self.wait_for_its_turn(extent);
        self.wait_to_be_copied(extent);
    }

    fn give_back(&self, extent: ExtentId) {
        self.copies.forget(extent);
        self.extents.give_back(&self.memory, extent);
    }

    fn head(&self, usage: ExtentUse) -> &Head {
        match usage {
            ExtentUse::Persistent => &self.persistent,
            ExtentUse::Ephemeral => &self.ephemeral,
            ExtentUse::Survivors => &self.survivors,
            ExtentUse::Cold => &self.cold,
        }
    }

    fn order(&self) -> MutexGuard<'_, VecDeque<ExtentId>> {
        self.ephemeral_order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free extents for which the OS holds memory all the same.
    #[cfg(test)]
    pub(crate) fn free_extents_with_memory(&self) -> usize {
        let extents =
            |range: std::ops::Range<usize>| range.start / EXTENT_BYTES..range.end.div_ceil(EXTENT_BYTES);
        let held = self.memory.held_ranges().flat_map(|range| extents(range.unwrap()));
        held.filter(|extent| self.extents.usage(ExtentId(*extent as u32)).is_none()).count()
    }

    /// Bytes that the OS holds for the arena.
    #[cfg(test)]
    pub(crate) fn allocated_bytes(&self) -> std::io::Result<u64> {
        self.memory.allocated_bytes()
    }
}

fn extent_of(block: ArenaOffset) -> ExtentId {
    ExtentId((block.0 / EXTENT_BYTES as u64) as u32)
}
