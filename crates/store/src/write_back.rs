//! Write-back: moving pages to the tier when the store needs room, or when they have not been used for long.
//!
//! Extents are taken in the order in which they have been still for longest, cold ones first. A batch of them is written to the tier as
//! they are; then each block that is to go is moved by the exchange of its index entry, what is left is moved together, and the
//! extent goes back to the OS. A page that was used since its extent was sealed, or rather in the later half of that time, gets a second
//! chance: it is moved together with others like it, and their extent begins to wait anew. Only when a whole turn of that gains nothing do pages go
//! whatever their age. Until a write is known to be good, memory has everything.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{
    age_table::Milliseconds,
    arena::Need,
    block,
    compaction::Compaction,
    engine::{Engine, Owner},
    entry::{Place, TierPlace, TieredRef},
    extents::{EXTENT_BYTES, ExtentUse},
    tier::{MAX_TIER_BATCH, TierCopy},
    walk::{Met, Walk},
};

/// What a round of write-back did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteBack {
    /// Pages that are in the tier now.
    pub written_back_pages: u64,
    /// Extents that were written.
    pub written_extents: u64,
    /// Whether the tier could not take what was to go: it failed, or is full.
    pub blocked: bool,
    /// Whether the time was up before the work was done.
    pub more: bool,
}

/// Write-back begins when less than this part of the limit is free: early enough that puts need not wait for it, which they do when
/// nothing is.
const KEPT_PART: u64 = 64 / 3;

/// It ends when so much is.
const GOAL_PART: u64 = 16;

/// The least of either, in bytes: a batch of a few extents.
const LEAST_KEPT_BYTES: u64 = 4 * EXTENT_BYTES as u64;

/// An extent that is to be written, and which of its pages are to go.
struct Candidate<'a> {
    walk: Walk<'a>,
    choice: Choice,
}

/// Which pages go: those that were not used for so long.
#[derive(Clone, Copy, Debug)]
struct Choice {
    /// For clients that give way...
    age_ms: Milliseconds,
    /// ...because they have at least so much of their share...
    gives_way_permille: u64,
    /// ...and for the others.
    others_age_ms: Milliseconds,
}

/// Who has nearly as much of its share as anybody gives way with the one that has most: nine tenths of that.
const NEARLY_AS_MUCH: (u64, u64) = (9, 10);

impl Choice {
    fn age_ms(self, share_permille: u64) -> Milliseconds {
        if share_permille >= self.gives_way_permille { self.age_ms } else { self.others_age_ms }
    }
}

impl Engine {
    /// Moves pages to the tier until there is enough room and none is too old, or about `time` is over.
    pub(crate) fn write_back(&self, time: Duration) -> WriteBack {
        let mut done = WriteBack::default();
        let start = Instant::now();
        // Somebody else is at it.
        let Ok(_one_at_a_time) = self.tiering.cleaner.try_lock() else { return done };
        let goal_bytes = self.goal_bytes();
        let mut whatever_their_age = false;
        let mut pressed = self.is_pressed();
        while !self.files.is_detached() && self.tiering.tier().is_some() && !done.blocked {
            done.more = start.elapsed() >= time;
            if done.more {
                break;
            }
            pressed = pressed && !self.make_room_without_tier(goal_bytes);
            let goes_on = if pressed {
                self.relieve(goal_bytes, &mut whatever_their_age, &mut done)
            } else {
                self.write_aged(&mut done) || self.copy_extents(&mut done)
            };
            if !goes_on {
                break;
            }
        }
        self.tiering.signal.end_round(done.written_back_pages > 0 && !done.blocked);
        done
    }

    /// Moves the pages of a batch of the oldest extents to gain room. False: there is none to be gained.
    fn relieve(&self, goal_bytes: u64, whatever_their_age: &mut bool, done: &mut WriteBack) -> bool {
        let batch = self.choose_oldest(goal_bytes, *whatever_their_age);
        let held_before = self.budget.held_bytes();
        let gained = self.write_batch(batch, true, done);
        let goes_on = gained || !*whatever_their_age;
        // A turn in which everything was too young to go only moved pages about.
        *whatever_their_age |= !gained && self.budget.held_bytes() >= held_before;
        if gained {
            self.tiering.signal.end_round(true);
        }
        goes_on
    }

    /// Moves the pages of a batch that were not used for as long as the options say. False: there are none.
    fn write_aged(&self, done: &mut WriteBack) -> bool {
        let batch = self.choose_aged();
        !batch.is_empty() && {
            self.write_batch(batch, false, done);
            true
        }
    }

    /// Waits for room until `deadline`. False: there is none, and no tier that makes some.
    pub(crate) fn await_room(&self, need: Need, deadline: Instant) -> bool {
        // What has yet to be found for the stock is waited for elsewhere.
        let has_room =
            || self.arena.has_room(need) || self.arena.can_be_stocked_for(need) && !self.stock.is_starved();
        Instant::now() < deadline
            && self.tiering.is_taking()
            && self.tiering.signal.await_room(deadline, has_room)
    }

    /// Whether so little is free that pages have to go.
    pub(crate) fn is_pressed(&self) -> bool {
        self.has_less_than(self.kept_bytes(KEPT_PART)) || self.stock.is_starved()
    }

    /// How much is to be free in the end, in bytes.
    fn goal_bytes(&self) -> u64 {
        let free_bytes = self.budget.limit_bytes().saturating_sub(self.budget.held_bytes());
        // While the OS has nothing to give, a batch at a time becomes free of what is held, whatever the limit.
        let starved_bytes = if self.stock.is_starved() { free_bytes + LEAST_KEPT_BYTES } else { 0 };
        self.kept_bytes(GOAL_PART).max(starved_bytes)
    }

    fn kept_bytes(&self, part: u64) -> u64 {
        (self.budget.limit_bytes() / part).max(LEAST_KEPT_BYTES) + self.headroom_bytes()
    }

    fn has_less_than(&self, free_bytes: u64) -> bool {
        self.budget.held_bytes() + free_bytes > self.budget.limit_bytes()
    }

    /// Drops what may be dropped before anything is written. True: that was enough.
    fn make_room_without_tier(&self, goal_bytes: u64) -> bool {
        while self.has_less_than(goal_bytes) {
            // What the OS can't give again is kept for the next puts.
            let released = !self.stock.is_starved() && self.arena.release_spare();
            if !released && !self.evict_oldest_ephemeral() {
                return false;
            }
        }
        true
    }

    /// The extents that have been still for longest, as many as are needed for so much room.
    fn choose_oldest(&self, goal_bytes: u64, whatever_their_age: bool) -> Vec<Candidate<'_>> {
        let missing_bytes = (self.budget.held_bytes() + goal_bytes).saturating_sub(self.budget.limit_bytes());
        let wanted = missing_bytes.div_ceil(EXTENT_BYTES as u64).clamp(1, MAX_TIER_BATCH as u64) as usize;
        let others_age_ms = self.recompression.get().age.as_millis() as Milliseconds;
        let gives_way_permille = self.most_share_permille() * NEARLY_AS_MUCH.0 / NEARLY_AS_MUCH.1;
        let choice = |still_ms: Milliseconds| Choice {
            age_ms: if whatever_their_age { 0 } else { still_ms / 2 },
            gives_way_permille,
            others_age_ms,
        };
        let candidates = std::iter::from_fn(|| self.arena.pin_oldest());
        candidates.map(|(walk, still_ms)| Candidate { walk, choice: choice(still_ms) }).take(wanted).collect()
    }

    /// Extents with pages that were not used for as long as is asked for.
    fn choose_aged(&self) -> Vec<Candidate<'_>> {
        let Some(age) = self.tiering.options().age else { return Vec::new() };
        let age_ms = age.as_millis() as Milliseconds;
        let candidates = std::iter::from_fn(|| self.arena.pin_still_for(age_ms));
        let choice = Choice { age_ms, gives_way_permille: 0, others_age_ms: age_ms };
        candidates.map(|(walk, _)| Candidate { walk, choice }).take(MAX_TIER_BATCH).collect()
    }

    /// Writes extents, those that have no copy yet, and moves their pages. False: not one page was moved.
    fn write_batch(&self, batch: Vec<Candidate<'_>>, pressed: bool, done: &mut WriteBack) -> bool {
        let before = done.written_back_pages;
        let (mut unwritten, mut written) = (Vec::new(), Vec::new());
        for candidate in batch {
            match self.arena.copies.take(candidate.walk.extent()) {
                Some(copy) => written.push((candidate, copy)),
                None => unwritten.push(candidate),
            }
        }
        let copies = self.write_copies(unwritten.iter().map(|candidate| &candidate.walk), done);
        for candidate in unwritten.drain(copies.len()..) {
            self.wait_anew(candidate);
        }
        written.extend(unwritten.into_iter().zip(copies));
        for (candidate, copy) in written {
            self.move_blocks(candidate, copy, pressed, done);
            self.tiering.table.close(copy);
        }
        done.written_back_pages > before
    }

    /// Copies extents to the tier that stay in memory. False: there are none without a copy, or the tier takes no more.
    fn copy_extents(&self, done: &mut WriteBack) -> bool {
        if !self.tiering.options().write_through {
            return false;
        }
        let walks: Vec<_> = std::iter::from_fn(|| self.arena.pin_uncopied()).take(MAX_TIER_BATCH).collect();
        let copies = self.write_copies(walks.iter(), done);
        for (walk, copy) in walks.iter().zip(&copies) {
            self.arena.copies.enter(walk.extent(), *copy);
        }
        let uncopied: Vec<_> = walks.iter().skip(copies.len()).map(Walk::extent).collect();
        drop(walks);
        uncopied.into_iter().for_each(|extent| self.arena.wait_to_be_copied(extent));
        !copies.is_empty()
    }

    /// Writes the first of these extents to the tier, as many as it takes, and enters their copies, which stay until they are closed.
    fn write_copies<'a>(
        &self,
        walks: impl ExactSizeIterator<Item = &'a Walk<'a>>,
        done: &mut WriteBack,
    ) -> Vec<TierCopy> {
        if walks.len() == 0 {
            return Vec::new();
        }
        let mut copies = self.tiering.take_places(walks.len());
        done.blocked = copies.is_empty();
        let extents: Vec<_> = copies
            .iter()
            .zip(walks)
            // SAFETY: the extents are sealed and pinned by their walks, so nobody writes to them.
            .filter_map(|(copy, walk)| Some((*copy, unsafe { walk.bytes() }?)))
            .collect();
        if done.blocked || self.tiering.write(&extents).is_err() {
            copies.drain(..).for_each(|copy| self.tiering.table.put_back(copy));
            done.blocked = true;
        }
        copies.iter().for_each(|copy| self.tiering.table.enter(*copy));
        done.written_extents += copies.len() as u64;
        copies
    }

    /// Moves the blocks of an extent that are to go to its copy. If room is needed, moves the rest to other extents.
    fn move_blocks(&self, candidate: Candidate<'_>, copy: TierCopy, pressed: bool, done: &mut WriteBack) {
        let Candidate { mut walk, choice } = candidate;
        let extent = walk.extent();
        while let Ok(Some(met)) = walk.next() {
            if self.move_block(&met, extent.offset() as u64, copy, choice) {
                done.written_back_pages += 1;
            }
        }
        if pressed {
            let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
            walk.start_again();
            self.empty_into(ExtentUse::Survivors, &mut walk, &mut Compaction::default());
            drop(walk); // the extent comes back before the next one takes room
        } else {
            drop(walk);
        }
        self.arena.wait_for_its_turn(extent);
        self.arena.wait_to_be_copied(extent);
    }

    fn move_block(&self, met: &Met<'_>, extent_start: u64, copy: TierCopy, choice: Choice) -> bool {
        let tiered = TieredRef {
            place: TierPlace(copy.place),
            start: (met.place.offset.0 - extent_start) as u32,
            block_bytes: met.place.block_bytes,
        };
        let slot = met.header.slot;
        // Counted before anybody can find it there and take it away again.
        self.tiering.table.add(tiered);
        let moved = match self.owner(met.header.pool) {
            Owner::Pool(pool) => {
                let contents = block::fresh_crc_of(met.header, met.payload);
                let age_ms = choice.age_ms(pool.share_permille());
                (age_ms == 0 || pool.is_cold(slot, met.place, age_ms))
                    && contents.is_some_and(|contents| pool.move_to_tier(slot, met.place, tiered, contents))
            }
            Owner::Shared => {
                let domain = self.shared_blocks.domain_at(slot, Place::Arena(met.place));
                let share_permille = domain
                    .and_then(|domain| self.domain_of(domain))
                    .map_or(0, |domain| domain.share_permille());
                let whatever_its_use = choice.age_ms(share_permille) == 0;
                self.shared_blocks.cold_in(slot, met.place, whatever_its_use).is_some()
                    && self.relocate_shared(slot, Place::Arena(met.place), Place::Tier(tiered))
            }
            Owner::Changing | Owner::Nobody => false,
        };
        if !moved {
            self.tiering.table.free(tiered);
        }
        moved
    }

    fn wait_anew(&self, candidate: Candidate<'_>) {
        let extent = candidate.walk.extent();
        drop(candidate);
        self.arena.wait_for_its_turn(extent);
    }
}
