//! The places of a tier: which are in use, by which writing, and how much of each is live.
//!
//! ```text
//! | key, 4 words | next writing | 0 … | one word a place: the writing whose copy is there, 0 = none |
//! ```
//!
//! A place is taken, written to, entered here, and only then referred to by index entries; it is free again when the last of them is
//! replaced. Its users are counted as an extent's are, by an [`ExtentState`]: live bytes, pins of reads, and a pin of whoever fills it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    dead_blocks::{DeadBlock, DeadBlocks, Fate},
    entry::{BlockRef, MAX_TIER_PLACES, TierPlace, TieredRef},
    extent_state::{ExtentState, Seen},
    extents::EXTENT_BYTES,
    fault_injection::{self, Point},
    files::{self, Files},
    memory_file::MemoryFile,
    sparse::{Sparse, sparse},
    tier::{TierCopy, TierKey, TierRun},
};

const KEY_WORDS: usize = 4;
const NEXT_WRITING: usize = KEY_WORDS;
const PLACES_AT: usize = 512;

/// Copies among which the emptiest is chosen: 1 GiB of a tier, some microseconds.
const WINDOW_PLACES: u32 = 8192;

#[derive(Debug)]
pub(crate) struct TierTable {
    file: MemoryFile,
    /// Derived: can be counted from the indexes.
    states: Sparse<ExtentState>,
    places: Mutex<Places>,
    /// Where the next search for the emptiest copy starts.
    search_from: AtomicU32,
    /// For a tier that keeps single blocks.
    dead: OnceLock<DeadBlocks>,
}

#[derive(Debug, Default)]
struct Places {
    /// Free, and the tier knows. The lowest is used first, so that copies lie next to each other and the tier stays short.
    free: BinaryHeap<Reverse<u32>>,
    /// From here on none was ever used.
    untouched_from: u32,
    /// Free, and the tier has yet to be told.
    left: Vec<TierPlace>,
    used: u32,
}

/// A block that stays where it is as long as it is pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pinned {
    Arena(BlockRef),
    Tier(TieredRef, TierCopy),
}

impl TierTable {
    pub(crate) const FILE_BYTES: usize = (PLACES_AT + MAX_TIER_PLACES as usize) * 8;

    /// A table without copies, and a new key. Errors: no memory, or no random numbers.
    pub(crate) fn create(files: &Arc<Files>) -> io::Result<Self> {
        let mut key = [0; KEY_WORDS * 8];
        // The kernel's random numbers come whole for so few bytes.
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
        let file = files.create_filled(files::TIER, Self::FILE_BYTES, |file| {
            let (words, _) = key.as_chunks::<8>();
            let cells = file.as_u64s();
            words
                .iter()
                .zip(cells)
                .for_each(|(word, cell)| cell.store(u64::from_le_bytes(*word), Ordering::Relaxed));
            cells[NEXT_WRITING].store(1, Ordering::Relaxed);
        })?;
        Ok(Self::over(file))
    }

    /// A table whose places have yet to be taken over.
    pub(crate) fn over(file: MemoryFile) -> Self {
        Self {
            file,
            states: sparse(MAX_TIER_PLACES as usize),
            places: Mutex::default(),
            search_from: AtomicU32::new(0),
            dead: OnceLock::new(),
        }
    }

    pub(crate) fn key(&self) -> TierKey {
        let mut key = [0; KEY_WORDS * 8];
        let (words, _) = key.as_chunks_mut::<8>();
        words
            .iter_mut()
            .zip(self.file.as_u64s())
            .for_each(|(word, cell)| *word = cell.load(Ordering::Relaxed).to_le_bytes());
        TierKey(key)
    }

    /// Takes so many free places among the first `end`, or as many as there are. They are in nobody's way until they are entered.
    pub(crate) fn take(&self, wanted: usize, end: u32) -> Vec<TierCopy> {
        let mut places = self.lock();
        let mut taken = Vec::with_capacity(wanted);
        while taken.len() < wanted {
            // A tier that was missing when it was attached may have come back smaller.
            let lowest = places.free.peek().is_some_and(|Reverse(place)| *place < end);
            let place = match if lowest { places.free.pop() } else { None } {
                Some(Reverse(place)) => place,
                None if places.untouched_from < end.min(MAX_TIER_PLACES) => {
                    places.untouched_from += 1;
                    places.untouched_from - 1
                }
                None => break,
            };
            places.used += 1;
            fault_injection::point(Point::TierTable);
            let writing = self.file.as_u64s()[NEXT_WRITING].fetch_add(1, Ordering::AcqRel);
            taken.push(TierCopy { place, writing });
        }
        taken
    }

    /// Gives a place back that was taken and not entered.
    pub(crate) fn put_back(&self, copy: TierCopy) {
        let mut places = self.lock();
        places.used -= 1;
        places.left.push(TierPlace(copy.place));
    }

    /// Enters a copy that can be read from now on. It stays until [`TierTable::close`].
    pub(crate) fn enter(&self, copy: TierCopy) {
        let state = self.state(TierPlace(copy.place));
        state.open(false);
        state.pin();
        fault_injection::point(Point::TierTable);
        self.cell(TierPlace(copy.place)).store(copy.writing, Ordering::Release);
    }

    /// The copy that is at a place in use.
    pub(crate) fn copy_at(&self, place: TierPlace) -> TierCopy {
        TierCopy { place: place.0, writing: self.cell(place).load(Ordering::Acquire) }
    }

    /// All copies that are at their places, and their live bytes.
    pub(crate) fn entered(&self) -> Vec<(TierCopy, u32)> {
        let copies = (0..self.untouched_from()).map(|place| self.copy_at(TierPlace(place)));
        copies.filter(|copy| copy.writing != 0).map(|copy| (copy, self.live_bytes(copy))).collect()
    }

    /// Counts a block of an entered copy to which `exchange` makes an entry refer; says whether it did.
    pub(crate) fn refer(&self, tiered: TieredRef, exchange: impl FnOnce() -> bool) -> bool {
        // Counted before anybody can find it there and take it away again.
        self.add(tiered);
        let refers = exchange();
        if !refers {
            self.free(tiered);
        }
        refers
    }

    /// A block of an entered copy that an index entry is about to refer to.
    fn add(&self, tiered: TieredRef) {
        let state = self.state(tiered.place);
        state.reserve(u32::from(tiered.block_bytes));
        let _entered = state.unpin();
    }

    /// No more blocks of a copy will be referred to that are not yet.
    pub(crate) fn close(&self, copy: TierCopy) {
        let place = TierPlace(copy.place);
        self.state(place).seal();
        self.note(place, self.state(place).unpin());
    }

    /// Whether no more blocks of a copy will be referred to that are not yet. `None`: it is another one that is there.
    pub(crate) fn is_closed(&self, copy: TierCopy) -> Option<bool> {
        let place = TierPlace(copy.place);
        (self.copy_at(place) == copy).then(|| self.state(place).see().sealed)
    }

    /// Takes a block's bytes away, under the lock that its entry was replaced under.
    pub(crate) fn free(&self, tiered: TieredRef) {
        if let Some(dead) = self.dead.get() {
            let run = TierRun { start: tiered.start, bytes: u32::from(tiered.block_bytes) };
            dead.add((self.copy_at(tiered.place), run));
        }
        self.note(tiered.place, self.state(tiered.place).free(u32::from(tiered.block_bytes)));
    }

    /// From now on it is noted which blocks of copies die.
    pub(crate) fn note_dead_blocks(&self) {
        self.dead.get_or_init(DeadBlocks::new);
    }

    /// Tells a tier which blocks of copies died.
    pub(crate) fn take_dead_blocks(&self, tell: impl FnOnce(&[DeadBlock])) {
        let Some(dead) = self.dead.get() else { return };
        let fate = |(copy, _): &DeadBlock| {
            let seen = self.state(TierPlace(copy.place)).see();
            match (seen.sealed, seen.pins) {
                // Its extent is in memory, and with that the copy stays.
                (false, 1..) => Fate::Never,
                // Whoever still reads a block pinned its copy before it died.
                (true, 1..) => Fate::Later,
                (_, 0) => Fate::Told,
            }
        };
        dead.take(fate, tell);
    }

    /// Bytes of blocks of which the tier was never told that they died.
    pub(crate) fn untold_bytes(&self) -> u64 {
        self.dead.get().map_or(0, DeadBlocks::untold_bytes)
    }

    /// Keeps the copy of a block that an index entry refers to, whose lock the caller holds. `None`: there is no such copy.
    pub(crate) fn pin(&self, tiered: TieredRef) -> Option<Pinned> {
        let writing = self.cell(tiered.place).load(Ordering::Acquire);
        let inside = tiered.start as usize + usize::from(tiered.block_bytes) <= EXTENT_BYTES;
        (writing != 0 && inside).then(|| {
            self.state(tiered.place).pin();
            Pinned::Tier(tiered, TierCopy { place: tiered.place.0, writing })
        })
    }

    /// Undoes [`TierTable::pin`].
    pub(crate) fn unpin(&self, place: TierPlace) {
        self.note(place, self.state(place).unpin());
    }

    /// Pins a copy with few live bytes, `live_bytes` at most: the emptiest of the first window that has one. `None`: there is none.
    pub(crate) fn pin_emptiest(&self, live_bytes: u32) -> Option<TierCopy> {
        let end = self.lock().untouched_from;
        (0..end.div_ceil(WINDOW_PLACES)).find_map(|_| {
            let looked_at = end.min(WINDOW_PLACES);
            let from = self.search_from.fetch_add(looked_at, Ordering::Relaxed) % end;
            let places =
                (0..looked_at).map(|i| TierPlace(((u64::from(from) + u64::from(i)) % u64::from(end)) as u32));
            let candidates = places.filter_map(|place| {
                let seen = self.state(place).see();
                let walkable = seen.sealed && !seen.damaged && seen.pins == 0 && seen.live_bytes > 0;
                (walkable && seen.live_bytes <= live_bytes).then_some((seen.live_bytes, place))
            });
            let (_, place) = candidates.min()?;
            self.state(place).pin_for_walk().then(|| self.copy_at(place))
        })
    }

    /// Remembers that a copy cannot be walked.
    pub(crate) fn mark_damaged(&self, copy: TierCopy) {
        self.state(TierPlace(copy.place)).mark_damaged();
    }

    /// Live bytes of a copy.
    pub(crate) fn live_bytes(&self, copy: TierCopy) -> u32 {
        self.state(TierPlace(copy.place)).see().live_bytes
    }

    /// Places whose copies nobody needs any more since this was last asked. The caller tells the tier, and then
    /// [`TierTable::make_free`].
    pub(crate) fn take_left(&self) -> Vec<TierPlace> {
        std::mem::take(&mut self.lock().left)
    }

    pub(crate) fn make_free(&self, left: Vec<TierPlace>) {
        self.lock().free.extend(left.into_iter().map(|place| Reverse(place.0)));
    }

    /// Copies that were written for the pages that are only there, and live bytes in all of them. Looks at every place.
    pub(crate) fn closed_and_live_bytes(&self) -> (u64, u64) {
        let end = self.lock().untouched_from;
        let seen = (0..end).map(|place| self.state(TierPlace(place)).see());
        // The copy of what is in memory is whole, though nothing refers to it yet.
        let closed = seen.filter(|seen| seen.sealed && seen.live_bytes > 0);
        closed.fold((0, 0), |(copies, bytes), seen| (copies + 1, bytes + u64::from(seen.live_bytes)))
    }

    /// Places in use.
    pub(crate) fn used(&self) -> u32 {
        self.lock().used
    }

    /// One more than the highest place that was ever in use.
    pub(crate) fn untouched_from(&self) -> u32 {
        self.lock().untouched_from
    }

    /// Counts a block that an index entry was found to refer to while the store is opened. False: the entry is wrong.
    #[must_use]
    pub(crate) fn admit(&self, tiered: TieredRef) -> bool {
        let state = self.state(tiered.place);
        let live_bytes = state.see().live_bytes + u32::from(tiered.block_bytes);
        let fits = tiered.start as usize + usize::from(tiered.block_bytes) <= EXTENT_BYTES
            && live_bytes as usize <= EXTENT_BYTES;
        let is_there = fits && self.cell(tiered.place).load(Ordering::Acquire) != 0;
        if is_there {
            self.add(tiered);
        }
        is_there
    }

    /// Ends the taking over: places that nothing refers to are free.
    pub(crate) fn resume(&self) -> io::Result<()> {
        let (mut places, mut last_writing) = (Places::default(), 0);
        for range in self.file.held_ranges() {
            let words = range?;
            let cells = words.start / 8..words.end / 8;
            for cell in cells.filter(|cell| *cell >= PLACES_AT) {
                let place = TierPlace((cell - PLACES_AT) as u32);
                let writing = self.cell(place).load(Ordering::Acquire);
                let live_bytes = self.state(place).see().live_bytes;
                last_writing = last_writing.max(writing);
                if live_bytes > 0 {
                    self.state(place).restore(live_bytes);
                    places.free.extend((places.untouched_from..place.0).map(Reverse));
                    places.untouched_from = place.0 + 1;
                    places.used += 1;
                } else if writing != 0 {
                    self.clear(place);
                }
            }
        }
        *self.lock() = places;
        // It was raised before the writing that it was for; this is for a word that was damaged.
        self.file.as_u64s()[NEXT_WRITING].fetch_max(last_writing.saturating_add(1), Ordering::AcqRel);
        Ok(())
    }

    fn note(&self, place: TierPlace, seen: Seen) {
        if seen.sealed && seen.is_unused() {
            self.clear(place);
            let mut places = self.lock();
            places.used -= 1;
            places.left.push(place);
        }
    }

    fn clear(&self, place: TierPlace) {
        fault_injection::point(Point::TierTable);
        self.cell(place).store(0, Ordering::Release);
    }

    fn cell(&self, place: TierPlace) -> &AtomicU64 {
        &self.file.as_u64s()[PLACES_AT + place.0 as usize]
    }

    fn state(&self, place: TierPlace) -> &ExtentState {
        &self.states[place.0 as usize]
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
