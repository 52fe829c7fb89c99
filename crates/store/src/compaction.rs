//! Making room: dropping ephemeral extents, and moving live blocks out of extents that are mostly dead.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{
    engine::{Engine, Owner},
    entry::BlockRef,
    extents::{EXTENT_BYTES, ExtentUse},
    page::PAGE_BYTES,
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

impl Engine {
    /// Makes room for a block. False: there is nothing to be had.
    pub(crate) fn make_room(&self, payload_bytes: u16) -> bool {
        self.evict_oldest_ephemeral() || self.compact_until_room(payload_bytes)
    }

    /// Drops every block of the oldest ephemeral extent.
    fn evict_oldest_ephemeral(&self) -> bool {
        let Some(mut walk) = self.arena.pin_oldest_ephemeral() else { return false };
        loop {
            match walk.next() {
                Ok(Some(met)) => match self.owner(met.header.pool) {
                    Owner::Pool(pool) => pool.evict(met.header.slot, met.place),
                    Owner::Nobody => {}
                    Owner::Changing => return true,
                },
                Ok(None) => {
                    walk.forget_lost_blocks();
                    return true;
                }
                Err(_) => return true,
            }
        }
    }

    fn compact_until_room(&self, payload_bytes: u16) -> bool {
        let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = Compaction::default();
        for _ in 0..MOST_EXTENTS_AT_ONCE {
            self.arena.seal_full(payload_bytes);
            if self.arena.has_room(payload_bytes) {
                return true;
            }
            let Some(walk) = self.arena.pin_emptiest(LIVE_BYTES_WHEN_FULL) else { return false };
            if !self.empty(walk, &mut done) {
                return false;
            }
        }
        self.arena.has_room(payload_bytes)
    }

    /// Empties extents for as long as it pays, and at most about `time`.
    pub(crate) fn compact_in_background(&self, time: Duration) -> Compaction {
        let start = Instant::now();
        let mut done = Compaction::default();
        loop {
            let (live, held) = self.arena.live_and_held_bytes();
            if (held - live.min(held)) * TOLERATED_DEAD_FRACTION <= held {
                return done;
            }
            // Looking at all extents takes a while; so empty several before looking again.
            for _ in 0..MOST_EXTENTS_AT_ONCE {
                let _one_at_a_time = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
                if start.elapsed() >= time {
                    return done;
                }
                let Some(walk) = self.arena.pin_emptiest(LIVE_BYTES_IN_BACKGROUND) else { return done };
                if !self.empty(walk, &mut done) {
                    return done;
                }
            }
        }
    }

    /// Moves every block that is still referred to out of an extent. False: there is no room to move them to.
    fn empty(&self, mut walk: Walk<'_>, done: &mut Compaction) -> bool {
        loop {
            let met = match walk.next() {
                Ok(Some(met)) => met,
                Ok(None) => break,
                Err(_) => return true, // the extent stays as it is; there may be others
            };
            let (header, from) = (met.header, met.place);
            let pool = match self.owner(header.pool) {
                Owner::Pool(pool) if pool.refers_to(header.slot, from) => pool,
                Owner::Pool(_) | Owner::Nobody => continue,
                Owner::Changing => return true, // leave it alone for now
            };
            let Some(offset) = self.arena.reserve(header.payload_bytes, ExtentUse::Survivors) else {
                return false;
            };
            let to = BlockRef { offset, payload_bytes: header.payload_bytes };
            // SAFETY: the block was just reserved here.
            if let Some(block) = unsafe { self.arena.block_mut(to) } {
                header.write(block, met.payload);
            }
            if pool.relocate(header.slot, from, to) {
                done.moved_pages += 1;
            } else {
                let _pinned = self.arena.free(to); // forgotten meanwhile
            }
            self.arena.commit(offset);
        }
        walk.forget_lost_blocks();
        done.emptied_extents += 1;
        true
    }
}
