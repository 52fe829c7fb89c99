//! Fetching a page.

use super::{Pool, PoolState};
use crate::{
    block::{self, BlockHeader},
    codec,
    entry::{BlockRef, ContentsTag, DamagedEntry, Entry, TieredRef},
    error::GetError,
    ids::{IndexSlot, ObjectId, PageIndex},
    page::PageTarget,
    prefetch::prefetch,
    tier::TierCopy,
    tier_table::Pinned,
};

/// So many pages at most are fetched from a tier at once: as many as a guest reads ahead.
pub(super) const MOST_TOGETHER: usize = 8;

/// What a get found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// The page, which now stands in the target.
    Page,
    /// Nothing is stored; the target is as it was.
    Nothing,
}

/// Where a page is.
enum Found {
    /// This came of it.
    Done(Result<Got, GetError>),
    /// In the tier. It has to be fetched from there, to unpin it.
    InTier(InTier),
}

/// A page that is in a copy in the tier, which is pinned.
#[derive(Clone, Copy)]
pub(super) struct InTier {
    pub(super) slot: IndexSlot,
    pub(super) entry: Entry,
    pub(super) tiered: TieredRef,
    pub(super) copy: TierCopy,
    /// It was used lately enough to be in memory by now.
    pub(super) is_wanted_in_memory: bool,
}

/// A page that is in the tier, and where it goes to.
pub(super) type Waiting<'t> = (InTier, PageIndex, PageTarget<'t>);

impl Pool {
    /// Fetches a page into `target`.
    pub fn get(
        &self,
        object: ObjectId,
        index: PageIndex,
        mut target: PageTarget<'_>,
    ) -> Result<Got, GetError> {
        match self.find(object, index, &mut target) {
            Found::Done(got) => got,
            Found::InTier(from) => self.get_from_tier(&from, &mut target),
        }
    }

    /// Fetches pages, each as [`Self::get`] does, and says of each what came of it, in any order. Those that are in a tier that is far away come
    /// from there together.
    pub fn get_many<'t>(
        &self,
        object: ObjectId,
        wanted: impl Iterator<Item = (PageIndex, PageTarget<'t>)>,
        mut each: impl FnMut(PageIndex, PageTarget<'t>, Result<Got, GetError>),
    ) {
        let is_together = self.engine.tiering.reads_together();
        let mut waiting = [const { None }; MOST_TOGETHER];
        let mut count = 0;
        for (index, mut target) in wanted {
            match self.find(object, index, &mut target) {
                Found::Done(got) => each(index, target, got),
                Found::InTier(from) if !is_together => {
                    let got = self.get_from_tier(&from, &mut target);
                    each(index, target, got);
                }
                Found::InTier(from) => {
                    waiting[count] = Some((from, index, target));
                    count += 1;
                    if count == MOST_TOGETHER {
                        self.get_together_from_tier(&mut waiting, &mut each);
                        count = 0;
                    }
                }
            }
        }
        // One alone is not worth a list, nor room for all.
        if count > 1 {
            self.get_together_from_tier(&mut waiting, &mut each);
        } else if let Some((from, index, mut target)) = waiting[0].take() {
            let got = self.get_from_tier(&from, &mut target);
            each(index, target, got);
        }
    }

    /// Fetches a page if it is in memory, or says where it is in the tier.
    fn find(&self, object: ObjectId, index: PageIndex, target: &mut PageTarget<'_>) -> Found {
        let found = match self.directory.find(object, index) {
            Ok(Some(found)) => found,
            Ok(None) => return Found::Done(Ok(Got::Nothing)),
            Err(_) => return Found::Done(Err(GetError::NoSuchPage)),
        };
        // What is found is unpacked after the lock is given back: the target may be a guest's memory, and that may itself have to
        // come from a disk.
        let (entry, pinned, is_wanted_in_memory) = {
            let mut counters = self.lock(found.slot);
            counters.gets += 1;
            let entry = self.index.load(found.slot);
            let distance_pages = self.note_get(found.slot, entry);
            let pinned = match entry {
                Ok(Entry::Block(block)) => {
                    self.engine.arena.pin_block(block.offset);
                    Some(Pinned::Arena(block))
                }
                Ok(Entry::Shared(shared)) => self.pin_shared(shared),
                Ok(Entry::Tiered(tiered)) => self.engine.tiering.table.pin(tiered),
                _ => None,
            };
            let is_wanted = matches!(pinned, Some(Pinned::Tier(..)))
                && distance_pages.is_some_and(|distance| self.would_reach(&counters, distance));
            (entry, pinned, is_wanted)
        };
        let got = match (entry, pinned) {
            (Ok(Entry::Absent), _) if self.state.get() == PoolState::Destroyed => Err(GetError::Destroyed),
            (Ok(Entry::Absent), _) => Ok(Got::Nothing),
            (Ok(Entry::Refused), _) => Err(GetError::Refused),
            (Ok(Entry::SameFilled(word)), _) => {
                target.fill(word);
                Ok(Got::Page)
            }
            (Ok(entry), Some(Pinned::Arena(block))) => {
                let got = self.read_block(found.slot, entry, block, target);
                self.engine.arena.commit(block.offset);
                got
            }
            (Ok(entry), Some(Pinned::Tier(tiered, copy))) => {
                return Found::InTier(InTier { slot: found.slot, entry, tiered, copy, is_wanted_in_memory });
            }
            (Ok(Entry::Block(_) | Entry::Shared(_) | Entry::Tiered(_)), None) | (Err(DamagedEntry), _) => {
                Err(GetError::Damaged)
            }
        };
        Found::Done(self.count_damage(found.slot, got))
    }

    pub(super) fn count_damage(&self, slot: IndexSlot, got: Result<Got, GetError>) -> Result<Got, GetError> {
        if got == Err(GetError::Damaged) {
            self.lock(slot).checksum_errors += 1;
        }
        got
    }

    /// Checks and unpacks the block that an entry leads to, whose extent the caller has pinned.
    fn read_block(
        &self,
        slot: IndexSlot,
        entry: Entry,
        block: BlockRef,
        target: &mut PageTarget<'_>,
    ) -> Result<Got, GetError> {
        // SAFETY: the block was live when its extent was pinned under the stripe's lock, so it is complete, and the extent stays.
        let bytes = unsafe { self.engine.arena.block(block) }.ok_or(GetError::Damaged)?;
        prefetch_block(bytes);
        self.unpack(slot, entry, bytes, block.block_bytes, target)?;
        Ok(Got::Page)
    }

    /// Checks and unpacks the block that an entry leads to, which takes so many bytes; gives what it is.
    pub(super) fn unpack<'a>(
        &self,
        slot: IndexSlot,
        entry: Entry,
        bytes: &'a [u8],
        block_bytes: u16,
        target: &mut PageTarget<'_>,
    ) -> Result<(BlockHeader, &'a [u8]), GetError> {
        let (header, payload) = block::read(bytes).map_err(|_| GetError::Damaged)?;
        let is_right = (header.pool, header.slot) == self.owner_of(entry, slot)
            && block::block_bytes(header.payload_bytes) == block_bytes;
        let has_contents = match entry {
            Entry::Shared(shared) => {
                block::fresh_crc(bytes).is_some_and(|crc| ContentsTag::of(crc) == shared.contents)
            }
            _ => true, // its owner says enough
        };
        if !is_right || !has_contents {
            return Err(GetError::Damaged);
        }
        // The block is in the cache by now, and the target comes while the block is unpacked.
        target.prefetch();
        codec::decompress(header.codec, payload, target).map_err(|_| GetError::Damaged)?;
        Ok((header, payload))
    }
}

/// Has the CPU load all of a block at once, rather than each part when the one before it was read: a block that was not used for a
/// while is in none of its caches. Takes 0.1 us of 2.4 off a random get.
fn prefetch_block(block: &[u8]) {
    block.chunks(64).for_each(|line| prefetch(line.as_ptr()));
}
