//! Putting a page: find room, write the block, publish it; or refuse, and let nothing older be found.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    NO_INDEX_PAGE, Persistence, Pool, PoolState, Refusal,
    entries::{block_charge, charge},
    share::Payload,
};
use crate::{
    arena::Need,
    block::{self, BlockHeader, PayloadCrc},
    budget::Claim,
    codec,
    dedup::IfFull,
    directory::Directory,
    engine::Engine,
    entry::{BlockRef, Entry},
    error::PutError,
    extents::ExtentUse,
    fault_injection::{self, Point},
    ids::{IndexSlot, ObjectId, PageIndex},
    index::{INDEX_PAGE_BYTES, PaidPage},
    page::PageSource,
    stock::Patience,
};

/// How often a put makes room and tries again before it gives up: other threads may take what was made.
const MOST_TRIES: usize = 8;

/// A put waits for the tier no longer than this: on a busy host some writes of a disk take as long.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A page's contents, ready to be stored.
#[derive(Clone, Copy)]
enum Content<'a> {
    SameFilled(u32),
    Payload(Payload<'a>),
}

impl Pool {
    /// Stores a page, replacing what its key held. Errors: it is not stored, and neither is what was there before.
    pub fn put(&self, object: ObjectId, index: PageIndex, page: PageSource<'_>) -> Result<(), PutError> {
        if self.state.get() == PoolState::Frozen {
            return Err(self.refuse_early(object, index, PutError::Frozen));
        }
        // An ephemeral page always gets a block, because what makes room finds ephemeral pages by their blocks.
        if self.persistence == Persistence::Persistent
            && let Some(word) = page.same_filled()
        {
            return self.put_content(object, index, Content::SameFilled(word));
        }
        self.prefetch_old(object, index);
        codec::compress(page, |codec, payload| {
            if payload.len() > self.engine.max_payload_bytes.load(Ordering::Relaxed) as usize {
                return Err(self.refuse_early(object, index, PutError::Incompressible));
            }
            let crc = PayloadCrc::of(payload);
            self.put_content(object, index, Content::Payload(Payload { codec, bytes: payload, crc }))
        })
    }

    /// What the page had before will be forgotten by its contents, for which its block's header is read: it can come into the cache
    /// while the new contents are compressed.
    fn prefetch_old(&self, object: ObjectId, index: PageIndex) {
        if self.domain.is_some()
            && matches!(self.directory, Directory::Flat { .. })
            && let Ok(Some(found)) = self.directory.find(object, index)
            && let Ok(Entry::Block(block)) = self.index.load(found.slot)
        {
            self.engine.arena.prefetch_header(block);
        }
    }

    fn put_content(&self, object: ObjectId, index: PageIndex, content: Content<'_>) -> Result<(), PutError> {
        let is_free = |leaf| self.is_leaf_free(leaf);
        let found = self.directory.find_or_add(object, index, is_free).map_err(|_| PutError::NoSuchPage)?;
        if self.state.get() == PoolState::Destroyed {
            return Err(PutError::Destroyed);
        }
        let (mut index_page, mut patience) = (PaidPage::none(), Patience::default());
        let (mut tries, mut waits_until) = (0, None);
        loop {
            let refusal = match self.try_put(found.slot, content, &mut index_page, &mut waits_until) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            tries += 1;
            let goes_on = match refusal {
                Refusal::NoRoom(need) if tries < MOST_TRIES && self.engine.make_room(need, &mut patience) => {
                    true
                }
                Refusal::NoRoom(need) if self.await_room(need, &mut waits_until) => {
                    tries = 0;
                    true
                }
                // The last resort is to forget what this put replaces.
                Refusal::NoRoom(_) => tries < MOST_TRIES && self.forget_block(found.slot),
                Refusal::NoIndexMemory => self.wait_for_index_page(found.slot, &mut patience),
                Refusal::OverCap | Refusal::Frozen | Refusal::Destroyed => false,
            };
            if goes_on {
                continue;
            }
            self.refuse(found.slot);
            return Err(refusal.into());
        }
    }

    /// Waits until the tier has taken pages, but no longer than until that moment, which is set by the first wait. False: there is no
    /// room.
    pub(super) fn await_room(&self, need: Need, until: &mut Option<Instant>) -> bool {
        let until = *until.get_or_insert_with(|| Instant::now() + LONGEST_WAIT);
        // An ephemeral page is not worth a write.
        self.persistence == Persistence::Persistent && self.engine.await_room(need, until)
    }

    fn try_put<'a>(
        &'a self,
        slot: IndexSlot,
        content: Content<'_>,
        index_page: &mut PaidPage<'a>,
        waits_until: &mut Option<Instant>,
    ) -> Result<(), Refusal> {
        // The index page first, and it stays paid while room is made for the block: otherwise each could take the other's.
        if !index_page.is_paid() {
            if self.index.is_page_empty(slot) {
                self.check_share(slot, INDEX_PAGE_BYTES)?;
            }
            *index_page = self.index.pay_for_page(slot).map_err(|_| NO_INDEX_PAGE)?;
        }
        if index_page.is_paid() && !self.index.is_page_there(slot) {
            return Err(Refusal::NoIndexMemory);
        }
        let payload = match content {
            Content::SameFilled(word) => return self.publish(slot, Entry::SameFilled(word), index_page),
            Content::Payload(payload) => payload,
        };
        if let Some(shared) = self.share(slot, &payload, waits_until) {
            return self.publish_shared(slot, shared, payload.crc, index_page);
        }
        let arena = &self.engine.arena;
        let payload_bytes = payload.bytes.len() as u16;
        let block_bytes = block::block_bytes(payload_bytes);
        self.check_share(slot, block_charge(block_bytes))?;
        let place = self.reserve(block_bytes)?;
        // SAFETY: the block was just reserved here and is committed below.
        if let Some(block) = unsafe { arena.block_mut(place) } {
            let header = BlockHeader { pool: self.id, slot, codec: payload.codec, payload_bytes };
            header.write(block, payload.bytes, payload.crc);
        }
        fault_injection::point(Point::Put);
        let published = self.publish(slot, Entry::Block(place), index_page);
        if published.is_err() {
            let _pinned = arena.free(place);
        }
        arena.commit(place.offset);
        if published.is_ok() {
            self.remember_contents(payload.crc, slot, IfFull::Displace);
        }
        published
    }

    /// Errors: the pool is nearly full, and with so many bytes more, less what the page has now, its client would be over its share.
    fn check_share(&self, slot: IndexSlot, bytes: u64) -> Result<(), Refusal> {
        let Engine { budget, shares, .. } = &*self.engine;
        if budget.has_room(0, Claim::BeyondShare) {
            return Ok(()); // which is nearly always so
        }
        let old_bytes = charge(self.index.load(slot));
        let used_bytes = (self.account.used_bytes() + bytes).saturating_sub(old_bytes);
        if bytes <= old_bytes || shares.cover(used_bytes, self.account.weight(), budget.growth_limit_bytes())
        {
            Ok(())
        } else {
            Err(Refusal::NoRoom(Need::Headroom))
        }
    }

    fn wait_for_index_page(&self, slot: IndexSlot, patience: &mut Patience) -> bool {
        self.index.request_page_of(slot);
        self.engine.stock.wait(patience, || self.index.is_page_there(slot))
    }

    pub(super) fn reserve(&self, block_bytes: u16) -> Result<BlockRef, Refusal> {
        let arena = &self.engine.arena;
        let (usage, reserved) = match self.persistence {
            Persistence::Persistent => {
                let usage = ExtentUse::Persistent;
                let reserved = arena.reserve(block_bytes, usage);
                // When no other extent is to be had, what compaction gained may be in the extent it moves blocks to.
                (usage, reserved.or_else(|| arena.reserve_among_survivors(block_bytes)))
            }
            Persistence::Ephemeral => {
                (ExtentUse::Ephemeral, arena.reserve(block_bytes, ExtentUse::Ephemeral))
            }
        };
        reserved.ok_or(Refusal::NoRoom(Need::Block { block_bytes, usage }))
    }

    pub(super) fn publish(
        &self,
        slot: IndexSlot,
        new: Entry,
        index_page: &mut PaidPage<'_>,
    ) -> Result<(), Refusal> {
        let mut counters = self.lock(slot);
        // Whoever changes the state takes every stripe's lock afterwards, so no page slips in behind it.
        match self.state.get() {
            PoolState::Open => {}
            PoolState::Frozen => return Err(Refusal::Frozen),
            PoolState::Destroyed => return Err(Refusal::Destroyed),
        }
        let emptied = self.exchange(&mut counters, slot, new, self.stamp_of_put(), index_page)?;
        self.note_put(&mut counters);
        drop(counters);
        self.engine.arena.settle(emptied);
        Ok(())
    }

    /// What an entry becomes whose contents were lost to a refused put. An ephemeral page may just vanish.
    fn lost(&self) -> Entry {
        match self.persistence {
            Persistence::Persistent => Entry::Refused,
            Persistence::Ephemeral => Entry::Absent,
        }
    }

    /// After a refused put: what was there before must not be found any more.
    fn refuse(&self, slot: IndexSlot) {
        let mut counters = self.lock(slot);
        counters.refused_puts += 1;
        let emptied = match self.index.load(slot) {
            Ok(Entry::Absent) => None,
            _ => self.replace(&mut counters, slot, self.lost()),
        };
        drop(counters);
        self.engine.arena.settle(emptied);
    }

    /// Refuses a put before it is given a place; what has none needs none for that.
    fn refuse_early(&self, object: ObjectId, index: PageIndex, error: PutError) -> PutError {
        match self.directory.find(object, index) {
            Ok(Some(found)) => self.refuse(found.slot),
            Ok(None) => self.note(|counters| counters.refused_puts += 1),
            Err(_) => return PutError::NoSuchPage,
        }
        if error == PutError::Incompressible {
            self.note(|counters| counters.incompressible_puts += 1);
        }
        error
    }

    /// Forgets the block of a page that is about to be overwritten. False: it has none.
    fn forget_block(&self, slot: IndexSlot) -> bool {
        let mut counters = self.lock(slot);
        if !matches!(self.index.load(slot), Ok(Entry::Block(_) | Entry::Shared(_))) {
            return false;
        }
        let emptied = self.replace(&mut counters, slot, self.lost());
        drop(counters);
        self.engine.arena.settle(emptied);
        true
    }
}
