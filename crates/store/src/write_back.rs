//! Write-back: moving pages to the tier when the store needs room, or when they have not been used for long.
//!
//! Extents are taken in the order in which they have been still for longest, cold ones first. A batch of them is written to the tier as
//! they are; then each block that is to go is moved by the exchange of its index entry, what is left is moved together, and the
//! extent goes back to the OS. A page that was used since its extent was sealed, or rather in the later half of that time, gets a second
//! chance: it is moved together with others like it, and their extent begins to wait anew. Only when a whole turn of that gains nothing do pages go
//! whatever their age, and when that gains nothing either, those of whoever has had its share. Extents of which nothing would go are not
//! written. Until a write is known to be good, memory has everything; and what stays of an extent keeps the copy for the next time.

use std::{
    borrow::Cow,
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{
    age_table::Milliseconds,
    ages::Cold,
    arena::Need,
    block,
    compaction::Compaction,
    engine::{Engine, Owner},
    entry::{Place, TierPlace, TieredRef},
    extents::{EXTENT_BYTES, ExtentUse},
    fault_injection::{self, Point},
    patient_lock::touch_stack,
    tier::{MAX_TIER_BATCH, TierCopy, TierRun, TierWrite},
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

/// An extent that is to be written, and those of its blocks that are to go.
struct Candidate<'a> {
    walk: Walk<'a>,
    going: Vec<Met<'a>>,
    /// For how long it was still when its turn came.
    still_ms: Milliseconds,
}

/// Which pages go: those that were not used for so long.
#[derive(Clone, Copy, Debug)]
struct Choice {
    /// For clients that give way...
    cold: Cold,
    /// ...because they have at least so much of their share...
    gives_way_permille: u64,
    /// ...and for the others.
    others_cold: Cold,
}

/// Which pages of those that give way go. Each begins when the one before gained nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Those that were not used lately.
    SecondChance,
    /// All.
    WhateverTheirAge,
    /// All of whoever has had its share: what counts against the share of the one that has most may be in the tier, where it shares blocks.
    OverShare,
}

impl Turn {
    fn next(self) -> Self {
        match self {
            Turn::SecondChance => Turn::WhateverTheirAge,
            Turn::WhateverTheirAge | Turn::OverShare => Turn::OverShare,
        }
    }
}

/// Emptying one extent that is a quarter dead begins another one at most every third time. So many in a row that gained nothing is others' doing.
const MOST_IN_VAIN: u32 = 4;

/// All of an extent is needed.
const WHOLE: &[TierRun] = &[TierRun::WHOLE];

/// A share, in thousandths of it: against a share a page counts for a 32nd more.
const SHARE_PERMILLE: u64 = 32_000 / 33;

/// Who has nearly as much of its share as anybody gives way with the one that has most: nine tenths of that.
const NEARLY_AS_MUCH: (u64, u64) = (9, 10);

impl Candidate<'_> {
    /// Where the blocks are that are to go.
    fn runs(&self) -> Vec<TierRun> {
        let extent_start = self.walk.extent().offset() as u64;
        let run = |met: &Met<'_>| TierRun {
            start: (met.place.offset.0 - extent_start) as u32,
            bytes: u32::from(met.place.block_bytes),
        };
        self.going.iter().map(run).collect()
    }
}

impl Choice {
    fn cold(self, share_permille: u64) -> Cold {
        if share_permille >= self.gives_way_permille { self.cold } else { self.others_cold }
    }
}

impl Engine {
    /// Moves pages to the tier until there is enough room and none is too old, or about `time` is over.
    pub(crate) fn write_back(&self, time: Duration) -> WriteBack {
        touch_stack();
        let mut done = WriteBack::default();
        let start = Instant::now();
        // Somebody else is at it.
        let Ok(mut cleaner) = self.tiering.cleaner.try_lock() else { return done };
        if !self.files.is_detached() && self.tiering.keeps_blocks() {
            self.tiering.forget_unneeded();
        }
        let mut turn = Turn::SecondChance;
        // How much is to be free, once there was so little that pages have to go.
        let mut goal_bytes = self.is_pressed().then(|| self.goal_bytes());
        while !self.files.is_detached() && self.tiering.tier().is_some() {
            done.more = start.elapsed() >= time;
            if done.more {
                break;
            }
            // Puts may have taken the room meanwhile, and do not wait for what nobody needs.
            if goal_bytes.is_none() && self.has_less_than(self.kept_bytes(KEPT_PART)) {
                goal_bytes = Some(self.goal_bytes());
            }
            goal_bytes =
                goal_bytes.filter(|goal_bytes| !self.make_room_without_tier(*goal_bytes, start + time));
            let goes_on = match goal_bytes {
                Some(goal_bytes) => self.relieve(goal_bytes, &mut turn, &mut done),
                None => !done.blocked && (self.write_aged(&mut done) || self.copy_extents(&mut done)),
            };
            // Full of what is mostly dead is not full.
            let is_cleaned = done.blocked && goal_bytes.is_some() && self.clean_for_room(&mut cleaner);
            done.blocked &= !is_cleaned;
            if !goes_on && !is_cleaned {
                break;
            }
        }
        // Nothing was moved because there was room, be it that others have taken it by now.
        let is_enough = goal_bytes.is_none();
        self.tiering.signal.end_round(is_enough || done.written_back_pages > 0 && !done.blocked);
        done
    }

    /// Moves the pages of a batch of the oldest extents to gain room; where nothing can be written, of those that have copies. False: there
    /// is none to be gained.
    fn relieve(&self, goal_bytes: u64, turn: &mut Turn, done: &mut WriteBack) -> bool {
        let batch = self.choose_oldest(goal_bytes, *turn, done.blocked);
        let held_before = self.budget.held_bytes();
        let was_blocked = done.blocked;
        let gained = self.write_batch(batch, true, done);
        // As soon as nothing can be written any more, what has copies is looked for.
        let goes_on = gained || *turn != Turn::OverShare || done.blocked && !was_blocked;
        // A turn in which everything was too young to go.
        if !gained && self.budget.held_bytes() >= held_before {
            *turn = turn.next();
        }
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
        // What has a copy goes without being written.
        let is_taking = self.tiering.is_taking() || self.arena.copies.count() > 0 && self.tiering.is_giving();
        Instant::now() < deadline && is_taking && self.tiering.signal.await_room(deadline, has_room)
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

    /// Makes room of what nobody needs, which is cheaper than writing what somebody does: drops what may be dropped, and moves what is
    /// live out of extents that are dead for a good part. True: that was enough. Puts that wait may come in as soon as there is any.
    fn make_room_without_tier(&self, goal_bytes: u64, until: Instant) -> bool {
        // Of a pool of a few extents those that are being filled are a large part: what is gained there is soon wanted again.
        let compacts = self.budget.limit_bytes() / GOAL_PART > LEAST_KEPT_BYTES;
        let (mut held_before, mut in_vain) = (u64::MAX, 0);
        while self.has_less_than(goal_bytes) {
            // What the OS can't give again is kept for the next puts.
            let released = !self.stock.is_starved() && self.arena.release_spare();
            if !released && !self.evict_oldest_ephemeral() {
                // What was emptied has been released. Puts may take it as quickly, and then pages have to go.
                let held = self.budget.held_bytes();
                in_vain = if held < held_before { 0 } else { in_vain + 1 };
                held_before = held;
                if !compacts
                    || in_vain == MOST_IN_VAIN
                    || Instant::now() >= until
                    || !self.compact_an_extent()
                {
                    return false;
                }
                self.tiering.signal.end_round(true);
            }
        }
        true
    }

    /// The extents that have been still for longest, as many as are needed for so much room, and all with copies if `only_copied`.
    fn choose_oldest(&self, goal_bytes: u64, turn: Turn, only_copied: bool) -> Vec<Candidate<'_>> {
        let missing_bytes = (self.budget.held_bytes() + goal_bytes).saturating_sub(self.budget.limit_bytes());
        let wanted = missing_bytes.div_ceil(EXTENT_BYTES as u64).clamp(1, MAX_TIER_BATCH as u64) as usize;
        let others_cold = Cold::by_time(self.recompression.get().age.as_millis() as Milliseconds);
        let nearly_as_much = self.most_share_permille() * NEARLY_AS_MUCH.0 / NEARLY_AS_MUCH.1;
        let gives_way_permille =
            if turn == Turn::OverShare { nearly_as_much.min(SHARE_PERMILLE) } else { nearly_as_much };
        let choice = |still_ms: Milliseconds| Choice {
            cold: Cold {
                age_ms: if turn == Turn::SecondChance { still_ms / 2 } else { 0 },
                older_is_cold: true,
                ..others_cold
            },
            gives_way_permille,
            others_cold,
        };
        let pin = || if only_copied { self.arena.pin_oldest_copied() } else { self.arena.pin_oldest() };
        self.choose(pin, choice, wanted)
    }

    /// Extents with pages that were not used for as long as is asked for.
    fn choose_aged(&self) -> Vec<Candidate<'_>> {
        let Some(age) = self.tiering.options().age else { return Vec::new() };
        let age_ms = age.as_millis() as Milliseconds;
        let cold = Cold::by_time(age_ms);
        let choice = Choice { cold, gives_way_permille: 0, others_cold: cold };
        self.choose(|| self.arena.pin_still_for(age_ms), |_| choice, MAX_TIER_BATCH)
    }

    /// The first of the extents that are pinned in turn from which something goes, in one turn of all. The others wait anew, and are not
    /// written for nothing.
    fn choose<'a>(
        &'a self,
        pin: impl Fn() -> Option<(Walk<'a>, Milliseconds)>,
        choice: impl Fn(Milliseconds) -> Choice,
        wanted: usize,
    ) -> Vec<Candidate<'a>> {
        let mut chosen = Vec::new();
        for _ in 0..self.arena.waiting_for_their_turn() {
            if chosen.len() == wanted {
                break;
            }
            let Some((mut walk, still_ms)) = pin() else { break };
            let choice = choice(still_ms);
            let mut going = Vec::new();
            while let Ok(Some(met)) = walk.next() {
                if self.is_going(&met, choice) {
                    going.push(met);
                }
            }
            if going.is_empty() {
                let extent = walk.extent();
                drop(walk);
                self.arena.wait_for_its_turn(extent);
            } else {
                chosen.push(Candidate { walk, going, still_ms });
            }
        }
        chosen
    }

    fn is_going(&self, met: &Met<'_>, choice: Choice) -> bool {
        let slot = met.header.slot;
        match self.owner(met.header.pool) {
            Owner::Pool(pool) => {
                let cold = choice.cold(pool.share_permille());
                if cold.is_whatever_their_use() {
                    pool.refers_to(slot, met.place)
                } else {
                    pool.is_cold(slot, met.place, cold)
                }
            }
            Owner::Shared => {
                let domain = self.shared_blocks.domain_at(slot, Place::Arena(met.place));
                let share_permille = domain
                    .and_then(|domain| self.domain_of(domain))
                    .map_or(0, |domain| domain.share_permille());
                let whatever_its_use = choice.cold(share_permille).is_whatever_their_use();
                self.shared_blocks.cold_in(slot, met.place, whatever_its_use).is_some()
            }
            Owner::Changing | Owner::Nobody => false,
        }
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
        // What a tier that keeps blocks gets of an extent is what goes, unless the copy is to be good for all of it.
        let is_whole = !self.tiering.keeps_blocks() || self.tiering.options().write_through;
        let needed = |candidate: &Candidate<'_>| match is_whole {
            true => Cow::Borrowed(WHOLE),
            false => Cow::Owned(candidate.runs()),
        };
        let unwritten_runs: Vec<_> =
            unwritten.iter().map(|candidate| (&candidate.walk, needed(candidate))).collect();
        let copies = self.write_copies(&unwritten_runs, done);
        drop(unwritten_runs);
        self.put_back(unwritten.split_off(copies.len()));
        // Pages stay in memory as long as they could not be had from the tier.
        if !self.tiering.is_giving() {
            let kept = std::mem::take(&mut written);
            for (candidate, copy) in &kept {
                self.arena.copies.enter(candidate.walk.extent(), *copy);
            }
            self.put_back(kept.into_iter().map(|(candidate, _)| candidate).collect());
            done.blocked = true;
        }
        for (candidate, copy) in written {
            self.move_blocks(candidate, (copy, true), pressed, done);
        }
        for (candidate, copy) in unwritten.into_iter().zip(copies) {
            self.move_blocks(candidate, (copy, is_whole), pressed, done);
        }
        done.written_back_pages > before
    }

    /// Copies extents to the tier that stay in memory. False: there are none without a copy, or the tier takes no more.
    fn copy_extents(&self, done: &mut WriteBack) -> bool {
        if !self.tiering.options().write_through {
            return false;
        }
        let most = self.tiering.places_to_spare().min(MAX_TIER_BATCH);
        let walks: Vec<_> = std::iter::from_fn(|| self.arena.pin_uncopied()).take(most).collect();
        let whole: Vec<_> = walks.iter().map(|walk| (walk, Cow::Borrowed(WHOLE))).collect();
        let copies = self.write_copies(&whole, done);
        drop(whole);
        for (walk, copy) in walks.iter().zip(&copies) {
            self.arena.copies.enter(walk.extent(), *copy);
        }
        let uncopied: Vec<_> = walks.iter().skip(copies.len()).map(Walk::extent).collect();
        drop(walks);
        uncopied.into_iter().for_each(|extent| self.arena.wait_to_be_copied(extent));
        !copies.is_empty()
    }

    /// Writes what is needed of the first of these extents to the tier, as many as it takes, and enters their copies, which stay until they are closed.
    fn write_copies(&self, walks: &[(&Walk<'_>, Cow<'_, [TierRun]>)], done: &mut WriteBack) -> Vec<TierCopy> {
        if walks.is_empty() {
            return Vec::new();
        }
        let mut copies = self.tiering.take_places(walks.len());
        done.blocked = copies.is_empty();
        let writes: Vec<_> = copies
            .iter()
            .zip(walks)
            .filter_map(|(copy, (walk, needed))| {
                // SAFETY: the extents are sealed and pinned by their walks, so nobody writes to them.
                Some(TierWrite { copy: *copy, extent: unsafe { walk.bytes() }?, needed })
            })
            .collect();
        if done.blocked || self.tiering.write(&writes).is_err() {
            copies.drain(..).for_each(|copy| self.tiering.table.put_back(copy));
            done.blocked = true;
        }
        fault_injection::point(Point::WriteBack);
        copies.iter().for_each(|copy| self.tiering.table.enter(*copy));
        done.written_extents += copies.len() as u64;
        copies
    }

    /// Moves the blocks of an extent that are to go to its copy, which may be whole. If room is needed, moves the rest to other extents.
    fn move_blocks(
        &self,
        candidate: Candidate<'_>,
        (copy, is_whole): (TierCopy, bool),
        pressed: bool,
        done: &mut WriteBack,
    ) {
        let Candidate { mut walk, going, .. } = candidate;
        let extent = walk.extent();
        for met in going {
            if self.move_block(&met, extent.offset() as u64, copy) {
                done.written_back_pages += 1;
            }
        }
        // Where nothing can be written, what stays keeps the copy that its extent has, until its turn comes again.
        if pressed && self.tiering.is_taking() {
            let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
            walk.start_again();
            self.empty_into(ExtentUse::Survivors, &mut walk, &mut Compaction::default());
            self.keep_or_close(&walk, copy, is_whole);
            drop(walk); // the extent comes back before the next one takes room
        } else {
            self.keep_or_close(&walk, copy, is_whole);
            drop(walk);
        }
        self.arena.wait_for_its_turn(extent);
        self.arena.wait_to_be_copied(extent);
    }

    /// The whole copy of an extent some of whose blocks stayed is good for them, too, when their turn comes again.
    fn keep_or_close(&self, walk: &Walk<'_>, copy: TierCopy, is_whole: bool) {
        // A tier that keeps blocks keeps those as well.
        let costs_nothing = self.tiering.table.live_bytes(copy) > 0 && !self.tiering.keeps_blocks();
        if is_whole && walk.live_bytes() > 0 && (costs_nothing || self.tiering.options().write_through) {
            self.arena.copies.enter(walk.extent(), copy);
        } else {
            self.tiering.table.close(copy);
        }
    }

    fn move_block(&self, met: &Met<'_>, extent_start: u64, copy: TierCopy) -> bool {
        let tiered = TieredRef {
            place: TierPlace(copy.place),
            start: (met.place.offset.0 - extent_start) as u32,
            block_bytes: met.place.block_bytes,
        };
        let slot = met.header.slot;
        self.tiering.table.refer(tiered, || match self.owner(met.header.pool) {
            Owner::Pool(pool) => {
                // SAFETY: the caller's walk pins the extent, and its blocks are complete.
                let contents = unsafe { self.arena.block(met.place) }.and_then(block::fresh_crc);
                contents.is_some_and(|contents| pool.move_to_tier(slot, met.place, tiered, contents))
            }
            Owner::Shared => self.relocate_shared(slot, Place::Arena(met.place), Place::Tier(tiered)),
            Owner::Changing | Owner::Nobody => false,
        })
    }

    /// Gives extents back whose turn it was, which is next again.
    fn put_back(&self, candidates: Vec<Candidate<'_>>) {
        for Candidate { walk, still_ms, .. } in candidates.into_iter().rev() {
            let extent = walk.extent();
            drop(walk);
            self.arena.give_turn_back(extent, still_ms);
        }
    }
}
