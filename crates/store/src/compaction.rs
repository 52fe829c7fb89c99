//! Making room: dropping ephemeral extents, and moving live blocks out of extents that are mostly dead.

use std::{
    sync::{PoisonError, TryLockError, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    arena::{Need, Search},
    block::PayloadCrc,
    budget::Claim,
    engine::{Engine, Owner},
    entry::{BlockRef, Place},
    extents::{EXTENT_BYTES, ExtentUse},
    fault_injection::{self, Point},
    ids::IndexSlot,
    page::PAGE_BYTES,
    patient_lock::{lock_patiently, touch_stack},
    stock::Patience,
    walk::Walk,
};

/// When room is needed at once, an extent is worth emptying for a page's worth of dead bytes. That copies about a hundred blocks,
/// some tens of microseconds: less than the disk write that a refused put would mean.
const LIVE_BYTES_WHEN_FULL: u32 = (EXTENT_BYTES - PAGE_BYTES) as u32;

/// In the background, extents are emptied from a quarter of dead bytes on...
const LIVE_BYTES_IN_BACKGROUND: u32 = (EXTENT_BYTES - EXTENT_BYTES / 4) as u32;

/// ...as long as more than 1/10 of what is held is dead.
const TOLERATED_DEAD_FRACTION: u64 = 10;

/// Bounds what one put does for others: what it gains, other threads may take.
const MOST_EXTENTS_AT_ONCE: usize = 32;

/// What a round of compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Extents emptied and given back.
    pub emptied_extents: u64,
    /// Pages moved for it.
    pub moved_pages: u64,
}

/// How emptying an extent went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emptying {
    Done,
    /// A block of it is damaged. It is not tried again.
    Damaged,
    /// Some of its blocks had to stay for now.
    Partly,
    /// There is no room to move blocks to.
    NoRoom,
}

impl Engine {
    /// Makes room. False: there is nothing to be had. Where a stock is kept, more memory is waited for first; if the OS has none, it is
    /// as if the limit were reached.
    pub(crate) fn make_room(&self, need: Need, patience: &mut Patience) -> bool {
        while !self.arena.has_room(need) {
            if self.arena.wait_for_extent(need, patience)
                || self.arena.release_spare_for(need)
                || self.evict_oldest_ephemeral()
            {
                continue;
            }
            let recompressed = self.recompressed_extents.load(Ordering::Relaxed);
            // Compaction itself needs an extent, which may just be being found.
            if self.compact_until_room(need) {
                return true;
            }
            if self.arena.wait_for_extent(need, patience) {
                continue;
            }
            // All that could be emptied may be in the extent that is just being recompressed.
            return self.let_recompression_pass(recompressed) && self.compact_until_room(need)
                || self.arena.has_room(need);
        }
        true
    }

    /// Waits for the extent that is just being recompressed, which takes a block's time and that of moving the others. False: none was
    /// since so many of them.
    fn let_recompression_pass(&self, recompressed: u64) -> bool {
        self.compaction_wanted.fetch_add(1, Ordering::Relaxed);
        let was_busy = match self.recompressor.try_lock() {
            Err(TryLockError::WouldBlock) => lock_patiently(&self.recompressor).is_some(),
            Ok(_) | Err(TryLockError::Poisoned(_)) => false,
        };
        self.compaction_wanted.fetch_sub(1, Ordering::Relaxed);
        was_busy || self.recompressed_extents.load(Ordering::Relaxed) != recompressed
    }

    /// Drops the blocks of the oldest ephemeral extent. False: there is none, or none of its blocks could be dropped.
    pub(crate) fn evict_oldest_ephemeral(&self) -> bool {
        let Some(mut walk) = self.arena.pin_oldest_ephemeral() else { return false };
        let (mut dropped, mut whole) = (false, true);
        loop {
            match walk.next() {
                Ok(Some(met)) => match self.owner(met.header.pool) {
                    Owner::Pool(pool) => dropped |= pool.evict(met.header.slot, met.place),
                    Owner::Nobody | Owner::Shared => {}
                    Owner::Changing => whole = false,
                },
                Ok(None) if whole => {
                    walk.forget_lost_blocks();
                    return true;
                }
                Ok(None) => {
                    self.arena.put_back_in_order(walk.extent());
                    return dropped;
                }
                // The rest of it goes when its pages are forgotten.
                Err(_) => return dropped,
            }
        }
    }

    fn compact_until_room(&self, need: Need) -> bool {
        self.compaction_wanted.fetch_add(1, Ordering::Relaxed);
        let one_at_a_time = lock_patiently(&self.compacting);
        self.compaction_wanted.fetch_sub(1, Ordering::Relaxed);
        let Some(one_at_a_time) = one_at_a_time else { return false };
        let mut done = Compaction::default();
        // Headroom can be far away, and it is others that wait for memory.
        let most_extents = if need == Need::Headroom { 1 } else { MOST_EXTENTS_AT_ONCE };
        for _ in 0..most_extents {
            self.arena.seal_full(need);
            while !self.arena.has_room(need) && self.arena.release_spare_for(need) {}
            if self.arena.has_room(need) {
                return true;
            }
            let Some(walk) = self.arena.pin_emptiest(LIVE_BYTES_WHEN_FULL, Search::Brief, |_| true) else {
                return false;
            };
            if self.empty(walk, &mut done) == Emptying::NoRoom {
                return false;
            }
        }
        drop(one_at_a_time);
        self.arena.has_room(need)
    }

    /// Empties extents for as long as it pays, and at most about `time`.
    pub(crate) fn compact_in_background(&self, time: Duration) -> Compaction {
        let start = Instant::now();
        touch_stack();
        let mut done = Compaction::default();
        while !self.files.is_detached()
            && self.budget.is_exceeded()
            && (self.arena.release_spare() || self.evict_oldest_ephemeral())
        {}
        loop {
            let (live, held) = self.arena.live_and_held_bytes();
            if (held - live.min(held)) * TOLERATED_DEAD_FRACTION <= held {
                return done;
            }
            // Looking at all extents takes a while; so empty several before looking again.
            for _ in 0..MOST_EXTENTS_AT_ONCE {
                // A put that needs room does not wait for more than one extent.
                if start.elapsed() >= time || self.compaction_wanted.load(Ordering::Relaxed) > 0 {
                    return done;
                }
                let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
                if self.files.is_detached() {
                    return done; // another process may have the memory by now
                }
                let Some(walk) = self.arena.pin_emptiest(LIVE_BYTES_IN_BACKGROUND, Search::Whole, |_| true)
                else {
                    return done;
                };
                if matches!(self.empty(walk, &mut done), Emptying::Partly | Emptying::NoRoom) {
                    return done;
                }
            }
        }
    }

    /// Empties an extent a good part of which is dead, and that does not have a copy in the tier already. False: none was found, or it could not be emptied.
    pub(crate) fn compact_an_extent(&self) -> bool {
        // A put that needs room compacts for itself, and goes first.
        if self.compaction_wanted.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.files.is_detached() {
            return false;
        }
        let is_uncopied = |extent| !self.arena.copies.has(extent);
        let emptiest = self.arena.pin_emptiest(LIVE_BYTES_IN_BACKGROUND, Search::Brief, is_uncopied);
        emptiest.is_some_and(|walk| self.empty(walk, &mut Compaction::default()) == Emptying::Done)
    }

    /// Moves every block that is still referred to out of an extent.
    fn empty(&self, mut walk: Walk<'_>, done: &mut Compaction) -> Emptying {
        let to_usage = self.arena.moves_to(walk.extent());
        self.empty_into(to_usage, &mut walk, done)
    }

    /// Moves every block that is still referred to out of an extent, to where such blocks go. Called by whoever compacts.
    pub(crate) fn empty_into(
        &self,
        to_usage: ExtentUse,
        walk: &mut Walk<'_>,
        done: &mut Compaction,
    ) -> Emptying {
        let mut whole = true;
        loop {
            let met = match walk.next() {
                Ok(Some(met)) => met,
                Ok(None) => break,
                Err(_) => return Emptying::Damaged,
            };
            let (header, from) = (met.header, met.place);
            let owner = self.owner(header.pool);
            let is_live = match &owner {
                Owner::Pool(pool) => pool.refers_to(header.slot, from),
                Owner::Shared => self.shared_blocks.refers_to(header.slot, from),
                Owner::Nobody => false,
                Owner::Changing => {
                    whole = false;
                    false
                }
            };
            if !is_live {
                continue;
            }
            let Some(to) = self.arena.reserve_claiming(from.block_bytes, to_usage, Claim::Compaction) else {
                return Emptying::NoRoom;
            };
            // SAFETY: the block was just reserved here.
            if let Some(block) = unsafe { self.arena.block_mut(to) } {
                header.write(block, met.payload, PayloadCrc::of(met.payload));
            }
            if self.relocate(&owner, header.slot, from, to) {
                done.moved_pages += 1;
            } else {
                let _pinned = self.arena.free(to); // forgotten meanwhile
            }
            self.arena.commit(to.offset);
        }
        if !whole {
            return Emptying::Partly;
        }
        walk.forget_lost_blocks();
        done.emptied_extents += 1;
        Emptying::Done
    }

    /// Makes whoever refers to a block refer to a copy of it. False: nobody does any more.
    fn relocate(&self, owner: &Owner, slot: IndexSlot, from: BlockRef, to: BlockRef) -> bool {
        fault_injection::point(Point::Compaction);
        match owner {
            Owner::Pool(pool) => pool.relocate(slot, from, to),
            Owner::Shared => self.exchange_shared(slot, Place::Arena(from), Place::Arena(to)),
            Owner::Changing | Owner::Nobody => false,
        }
    }
}
