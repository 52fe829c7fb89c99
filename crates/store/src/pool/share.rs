//! Sharing: a page whose payload is stored already refers to that block, too.

use std::{sync::Arc, time::Instant};

use super::{Pool, PoolState, Refusal};
use crate::{
    arena::{Emptied, Need},
    block::{self, BlockHeader, PayloadCrc},
    codec::{self, Codec},
    dedup::{Domain, IfFull, SHARED_POOL},
    entry::{BlockRef, ContentsTag, Entry, Place, SharedRef},
    extents::ExtentUse,
    ids::{IndexSlot, PoolId},
    index::PaidPage,
    page::PAGE_BYTES,
    tier_table::Pinned,
};

/// A page, compressed.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    pub(super) codec: Codec,
    pub(super) bytes: &'a [u8],
    pub(super) crc: PayloadCrc,
}

/// So many pages of a shared block can be found by its contents; a page put later is compared with one that is still there.
const FINDABLE_PAGES: u32 = 2;

impl Pool {
    /// Enters the pool with its domain, once it has its place in memory.
    pub(crate) fn enter_domain(self: &Arc<Self>) {
        if let Some((domain, numbers)) = &self.domain {
            domain.set_pool(*numbers, Arc::downgrade(self));
        }
    }

    /// Whether its pages may share blocks.
    pub(crate) fn has_domain(&self) -> bool {
        self.domain.is_some()
    }

    /// Finds a page of the domain with that payload and takes a reference to its block, which is shared from now on if it was not.
    /// `None`: the page at `slot` needs a block of its own. No lock is held. Waits for a tier as [`Pool::await_room`] does.
    pub(super) fn share(
        &self,
        slot: IndexSlot,
        payload: &Payload<'_>,
        waits_until: &mut Option<Instant>,
    ) -> Option<SharedRef> {
        let (domain, numbers) = self.domain.as_ref()?;
        let own = Some(numbers.number(slot)?);
        domain.candidates(payload.crc).filter(|number| Some(*number) != own).find_map(|number| {
            let (pool, slot) = domain.page(number)?;
            domain.count_comparison();
            let shared = pool.lend_block(slot, payload, waits_until);
            // A page with other contents is there by its own right: the hint was as good for them.
            if shared.is_none() && pool.payload_crc(slot).is_none() {
                domain.forget(payload.crc, number);
            }
            shared
        })
    }

    /// Publishes a reference that [`Pool::share`] gave.
    pub(super) fn publish_shared(
        &self,
        slot: IndexSlot,
        shared: SharedRef,
        crc: PayloadCrc,
        index_page: &mut PaidPage<'_>,
    ) -> Result<(), Refusal> {
        let published = self.publish(slot, Entry::Shared(shared), index_page);
        if published.is_err() {
            self.engine.arena.settle(self.release_shared(shared));
        } else if self.engine.shared_blocks.pages(shared) <= FINDABLE_PAGES {
            self.remember_contents(crc, slot, IfFull::LeaveOut);
        }
        published
    }

    /// Lends a page's block to one more page with that payload. `None`: the page has another payload, or there is no room to share it.
    fn lend_block(
        &self,
        slot: IndexSlot,
        payload: &Payload<'_>,
        waits_until: &mut Option<Instant>,
    ) -> Option<SharedRef> {
        let (domain, _) = self.domain.as_ref()?;
        let arena = &self.engine.arena;
        let locked = self.lock(slot);
        match self.index.load(slot) {
            Ok(Entry::Block(block)) => {
                arena.pin_block(block.offset);
                drop(locked);
                let stored = self.with_contents((self.id, slot), block, payload);
                let shared = stored.and_then(|stored| {
                    self.make_shared(domain, (slot, block), payload.crc, stored, waits_until)
                });
                arena.commit(block.offset);
                shared
            }
            Ok(Entry::Shared(shared)) if shared.contents == ContentsTag::of(payload.crc) => {
                let block = self.engine.shared_blocks.pin_and_count(shared, domain.id(), arena)?;
                drop(locked);
                let is_equal = self.with_contents((SHARED_POOL, shared.cell), block, payload).is_some();
                arena.commit(block.offset);
                if is_equal {
                    return Some(shared);
                }
                arena.settle(self.release_shared(shared));
                None
            }
            _ => None,
        }
    }

    /// A pinned block of that owner, if it holds the same page as the payload, byte for byte.
    fn with_contents(
        &self,
        owner: (PoolId, IndexSlot),
        block: BlockRef,
        payload: &Payload<'_>,
    ) -> Option<(BlockHeader, &[u8])> {
        // SAFETY: the block was live when its extent was pinned, so it is complete, and the extent stays.
        let bytes = unsafe { self.engine.arena.block(block) }?;
        // The checksum says at once about most others that they are not equal; a damaged block is equal to none.
        if block::fresh_crc(bytes) != Some(payload.crc) {
            return None;
        }
        let (header, stored) = block::read(bytes).ok()?;
        let is_equal = if header.codec == payload.codec {
            stored == payload.bytes
        } else {
            unpacked(header.codec, stored)? == unpacked(payload.codec, payload.bytes)?
        };
        let is_right = (header.pool, header.slot) == owner
            && block::block_bytes(header.payload_bytes) == block.block_bytes;
        (is_right && is_equal).then_some((header, stored))
    }

    /// Puts a copy of a page's block where it can be shared, and makes the page refer to that; the caller gets a reference as well.
    fn make_shared(
        &self,
        domain: &Domain,
        (slot, block): (IndexSlot, BlockRef),
        crc: PayloadCrc,
        (header, payload): (BlockHeader, &[u8]),
        waits_until: &mut Option<Instant>,
    ) -> Option<SharedRef> {
        let arena = &self.engine.arena;
        let cell = self.engine.shared_blocks.new_cell()?;
        let need = Need::Block { block_bytes: block.block_bytes, usage: ExtentUse::Persistent };
        let copy = arena.reserve(block.block_bytes, ExtentUse::Persistent).or_else(|| {
            // Where pages go to a tier all the time there is never room to spare; the page that is put would wait for as much for itself.
            if self.await_room(need, waits_until) { self.reserve(block.block_bytes).ok() } else { None }
        })?;
        let header = BlockHeader { pool: SHARED_POOL, slot: cell.number()?, ..header };
        // SAFETY: the block was just reserved here and is committed below.
        if let Some(bytes) = unsafe { arena.block_mut(copy) } {
            header.write(bytes, payload, PayloadCrc::of(payload));
        }
        let shared = cell.publish(domain, copy, ContentsTag::of(crc), 2).ok();
        if shared.is_none() {
            let _pinned = arena.free(copy);
        }
        arena.commit(copy.offset);
        let shared = shared?;
        domain.count_new_block(shared.block_bytes);
        if !self.use_shared(slot, block, shared) {
            arena.settle(self.release_shared(shared)); // the page is another by now
        }
        Some(shared)
    }

    /// Makes a page refer to a shared block with its contents, instead of one of its own. False: it is not in that block any more.
    fn use_shared(&self, slot: IndexSlot, block: BlockRef, shared: SharedRef) -> bool {
        self.state.get() != PoolState::Destroyed
            && self.move_page(slot, Entry::Block(block), Entry::Shared(shared), |_| {})
    }

    /// Pins a shared block that an entry refers to, whose lock the caller holds.
    pub(super) fn pin_shared(&self, shared: SharedRef) -> Option<Pinned> {
        let (domain, _) = self.domain.as_ref()?;
        self.engine.shared_blocks.pin(shared, domain.id(), self.engine.homes())
    }

    /// Gives a reference to a shared block back.
    pub(super) fn release_shared(&self, shared: SharedRef) -> Option<Emptied> {
        let (domain, _) = self.domain.as_ref()?;
        let released = self.engine.shared_blocks.release(shared, domain.id(), self.engine.homes());
        match released.gone {
            Some(Place::Arena(block)) => domain.count_lost_block(block.block_bytes),
            Some(Place::Tier(tiered)) => self.engine.tiering.count_shared(-1, tiered),
            None => {}
        }
        released.emptied
    }

    /// Who the header of the block names that an entry at `slot` refers to.
    pub(super) fn owner_of(&self, entry: Entry, slot: IndexSlot) -> (PoolId, IndexSlot) {
        match entry {
            Entry::Shared(shared) => (SHARED_POOL, shared.cell),
            _ => (self.id, slot),
        }
    }

    /// The checksum by which a page is found, if it is in a block.
    pub(crate) fn payload_crc(&self, slot: IndexSlot) -> Option<PayloadCrc> {
        if u64::from(slot.0) >= self.index.slots() {
            return None;
        }
        let _locked = self.lock(slot);
        self.crc_locked(self.index.load(slot).ok()?)
    }

    /// The checksum by which the page of an entry is found, whose lock the caller holds. A page in a tier is not found.
    pub(super) fn crc_locked(&self, entry: Entry) -> Option<PayloadCrc> {
        self.domain.as_ref()?;
        let (block, pinned) = match entry {
            Entry::Block(block) => (block, false),
            Entry::Shared(shared) => match self.pin_shared(shared)? {
                Pinned::Arena(block) => (block, true),
                Pinned::Tier(tiered, _) => {
                    self.engine.tiering.table.unpin(tiered.place);
                    return None;
                }
            },
            _ => return None,
        };
        // SAFETY: the block is live: as long as the lock is held, or its extent is pinned.
        let crc = unsafe { self.engine.arena.block(block) }.and_then(block::fresh_crc);
        if pinned {
            self.engine.arena.commit(block.offset);
        }
        crc
    }

    /// Lets a page be found by its contents. No lock is held.
    pub(super) fn remember_contents(&self, crc: PayloadCrc, slot: IndexSlot, if_full: IfFull) {
        if let Some((domain, numbers)) = &self.domain
            && let Some(number) = numbers.number(slot)
        {
            domain.remember(crc, number, if_full);
        }
    }

    /// Lets a page not be found any more by contents that were replaced.
    pub(super) fn forget_contents(&self, crc: PayloadCrc, slot: IndexSlot) {
        if let Some((domain, numbers)) = &self.domain
            && let Some(number) = numbers.number(slot)
        {
            domain.forget(crc, number);
        }
    }
}

/// The page of a payload. `None`: it is damaged.
fn unpacked(codec: Codec, payload: &[u8]) -> Option<[u8; PAGE_BYTES]> {
    let mut page = [0; PAGE_BYTES];
    codec::decompress(codec, payload, &mut (&mut page).into()).ok()?;
    Some(page)
}
