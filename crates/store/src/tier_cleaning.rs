//! Cleaning: what is still needed of mostly dead copies in the tier is written together, so that their places are free again.

use std::time::{Duration, Instant};

use crate::{
    block::{self, BlockHeader},
    engine::{Engine, Owner},
    entry::{Place, TierPlace, TieredRef},
    extents::EXTENT_BYTES,
    tier::{MAX_TIER_BATCH, TierCopy, TierError, TierRun, TierState, TierWrite},
};

/// What a round of cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaning {
    /// Copies that are not needed any more.
    pub emptied_extents: u64,
    /// Pages moved for it.
    pub moved_pages: u64,
}

/// Nothing is cleaned as long as less than half of the tier is in use: its space costs nothing there.
const FULL_PART: u32 = 2;

/// Copies are cleaned as long as more than a quarter of the places in use is dead...
const TOLERATED_DEAD_PART: u64 = 4;

/// ...from a quarter of dead bytes on, each.
const MOST_LIVE_BYTES: u32 = (EXTENT_BYTES - EXTENT_BYTES / 4) as u32;

/// Working memory, found when a tier is first written to or cleaned.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    from: Vec<u8>,
    to: Vec<u8>,
    filled_bytes: usize,
    moves: Vec<Move>,
    sources: Vec<TierCopy>,
}

/// A block that is about to be moved.
#[derive(Debug)]
struct Move {
    header: BlockHeader,
    from: TieredRef,
    /// Where it will start.
    start: u32,
}

/// Why cleaning ends before its time.
enum Stop {
    /// The tier can't be read or written to, or has no place to write to.
    Blocked,
}

/// Does something with each block of a copy. False: one of them is damaged, and those behind it were not found.
fn each_block(
    copy: TierCopy,
    extent: &[u8],
    mut act: impl FnMut(BlockHeader, TieredRef, &[u8]) -> Result<(), Stop>,
) -> Result<bool, Stop> {
    let mut at = 0;
    while !block::is_end(&extent[at..]) {
        let Ok((header, _)) = block::read(&extent[at..]) else { return Ok(false) };
        let block_bytes = block::block_bytes(header.payload_bytes);
        let bytes = &extent[at..(at + usize::from(block_bytes)).min(extent.len())];
        act(header, TieredRef { place: TierPlace(copy.place), start: at as u32, block_bytes }, bytes)?;
        at += bytes.len();
    }
    Ok(true)
}

impl Engine {
    /// Cleans for as long as it pays, and at most about `time`.
    pub(crate) fn clean_tier(&self, time: Duration) -> Cleaning {
        let start = Instant::now();
        let Ok(mut cleaner) = self.tiering.cleaner.try_lock() else { return Cleaning::default() };
        if !self.files.is_detached() {
            self.tiering.forget_unneeded();
        }
        self.clean(&mut cleaner, |_| start.elapsed() < time)
    }

    /// Cleans a full tier for what has to be written to it. False: it is full of what is needed.
    pub(crate) fn clean_for_room(&self, cleaner: &mut Cleaner) -> bool {
        let most = MAX_TIER_BATCH as u64;
        let is_ready = self.tiering.tier().is_some_and(|tier| tier.state() == TierState::Ready);
        is_ready && self.clean(cleaner, |done| done.emptied_extents < most).emptied_extents > 0
    }

    fn clean(&self, cleaner: &mut Cleaner, goes_on: impl Fn(&Cleaning) -> bool) -> Cleaning {
        let mut done = Cleaning::default();
        let mut is_blocked = false;
        while !is_blocked && goes_on(&done) && self.is_worth_cleaning() {
            // Looking at all copies takes a while; so several are emptied before looking again.
            for _ in 0..MAX_TIER_BATCH {
                if self.files.is_detached() || !goes_on(&done) {
                    break;
                }
                let copy = self.tiering.table.pin_emptiest(MOST_LIVE_BYTES);
                is_blocked = copy.is_none_or(|copy| self.gather(copy, cleaner, &mut done).is_err());
                if is_blocked {
                    break;
                }
            }
            is_blocked |= self.files.is_detached();
        }
        is_blocked |= self.write_gathered(cleaner, &mut done).is_err();
        self.tiering.set_cleanable(!is_blocked && done.emptied_extents > 0);
        done
    }

    fn is_worth_cleaning(&self) -> bool {
        let Some(tier) = self.tiering.tier() else { return false };
        if !tier.is_cleaned() || self.tiering.table.used() <= tier.places() / FULL_PART {
            return false;
        }
        let (copies, live_bytes) = self.tiering.table.closed_and_live_bytes();
        let closed_bytes = copies * EXTENT_BYTES as u64;
        closed_bytes.saturating_sub(live_bytes) * TOLERATED_DEAD_PART > closed_bytes
    }

    /// Copies what is needed of a pinned copy to the working memory, which is written when it is full. The copy stays pinned until then.
    fn gather(&self, copy: TierCopy, cleaner: &mut Cleaner, done: &mut Cleaning) -> Result<(), Stop> {
        cleaner.from.resize(EXTENT_BYTES, 0);
        cleaner.to.resize(EXTENT_BYTES, 0);
        let mut from = std::mem::take(&mut cleaner.from);
        let gathered = match self.tiering.read_at(copy, 0, &mut from) {
            Ok(()) => self.gather_blocks(copy, &from, cleaner, done),
            Err(TierError::Damaged) => {
                // Those of its blocks that are whole can still be read one by one.
                self.tiering.table.mark_damaged(copy);
                Ok(())
            }
            Err(TierError::Unavailable(_)) => Err(Stop::Blocked),
        };
        cleaner.from = from;
        cleaner.sources.push(copy);
        gathered
    }

    fn gather_blocks(
        &self,
        copy: TierCopy,
        from: &[u8],
        cleaner: &mut Cleaner,
        done: &mut Cleaning,
    ) -> Result<(), Stop> {
        let is_whole = each_block(copy, from, |header, tiered, bytes| {
            if !self.is_needed(header, tiered) {
                return Ok(());
            }
            if cleaner.filled_bytes + bytes.len() > EXTENT_BYTES {
                self.write_gathered(cleaner, done)?;
            }
            let start = cleaner.filled_bytes;
            cleaner.to[start..start + bytes.len()].copy_from_slice(bytes);
            cleaner.filled_bytes += bytes.len();
            cleaner.moves.push(Move { header, from: tiered, start: start as u32 });
            Ok(())
        })?;
        if !is_whole {
            self.tiering.table.mark_damaged(copy);
        }
        Ok(())
    }

    /// Which blocks of a copy, of which the bytes are given, are needed, now or later. Of one that is damaged: none, as far as anybody can say.
    pub(crate) fn needed_of(&self, copy: TierCopy, extent: &[u8]) -> Vec<TierRun> {
        let mut needed = Vec::new();
        // Before it is closed any of its blocks may yet be referred to there: the extent is in memory.
        let Some(is_closed) = self.tiering.table.is_closed(copy) else { return needed };
        let whole = each_block(copy, extent, |header, tiered, bytes| {
            if self.files.is_detached() {
                return Err(Stop::Blocked);
            }
            let is_changing = matches!(self.owner(header.pool), Owner::Changing);
            if !is_closed || is_changing || self.is_needed(header, tiered) {
                needed.push(TierRun { start: tiered.start, bytes: bytes.len() as u32 });
            }
            Ok(())
        });
        if matches!(whole, Ok(true)) { needed } else { Vec::new() }
    }

    fn is_needed(&self, header: BlockHeader, tiered: TieredRef) -> bool {
        match self.owner(header.pool) {
            Owner::Pool(pool) => pool.is_tiered_at(header.slot, tiered),
            Owner::Shared => self.shared_blocks.domain_at(header.slot, Place::Tier(tiered)).is_some(),
            Owner::Changing | Owner::Nobody => false,
        }
    }

    /// Writes what was gathered as one copy and has the index refer to it.
    fn write_gathered(&self, cleaner: &mut Cleaner, done: &mut Cleaning) -> Result<(), Stop> {
        let written = self.write_copy(cleaner, done);
        cleaner.moves.clear();
        cleaner.filled_bytes = 0;
        for source in cleaner.sources.drain(..) {
            done.emptied_extents += u64::from(self.tiering.table.live_bytes(source) == 0);
            self.tiering.table.unpin(TierPlace(source.place));
        }
        written
    }

    fn write_copy(&self, cleaner: &mut Cleaner, done: &mut Cleaning) -> Result<(), Stop> {
        if cleaner.moves.is_empty() {
            return Ok(());
        }
        block::write_end(&mut cleaner.to[cleaner.filled_bytes..]);
        let copy = self.tiering.take_last_place().ok_or(Stop::Blocked)?;
        let needed = [TierRun { start: 0, bytes: cleaner.filled_bytes as u32 }];
        let write = match self.tiering.keeps_blocks() {
            true => TierWrite { copy, extent: &cleaner.to, needed: &needed },
            false => TierWrite::whole(copy, &cleaner.to),
        };
        if self.tiering.write(&[write]).is_err() {
            self.tiering.table.put_back(copy);
            return Err(Stop::Blocked);
        }
        self.tiering.table.enter(copy);
        for Move { header, from, start } in &cleaner.moves {
            let to = TieredRef { place: TierPlace(copy.place), start: *start, block_bytes: from.block_bytes };
            let moved = self.tiering.table.refer(to, || match self.owner(header.pool) {
                Owner::Pool(pool) => pool.move_in_tier(header.slot, *from, to),
                Owner::Shared => self.relocate_shared(header.slot, Place::Tier(*from), Place::Tier(to)),
                Owner::Changing | Owner::Nobody => false,
            });
            done.moved_pages += u64::from(moved);
        }
        self.tiering.table.close(copy);
        Ok(())
    }
}
