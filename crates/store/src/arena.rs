//! The arena: the memory that holds blocks.
//!
//! Extents are cut into slots of one size class each. An extent that empties goes back to the OS. Ephemeral blocks have extents of
//! their own, so that making room is dropping one whole extent, the oldest.
//!
//! Locks: one per class, then the order of ephemeral extents; no lock is held while the OS finds or takes back memory.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    block,
    budget::Budget,
    classes::{CLASSES, EXTENT_BYTES, SizeClass},
    codec,
    entry::MAX_ARENA_BYTES,
    extents::{ExtentUse, Extents},
    ids::{ArenaOffset, IndexSlot, PoolId},
    memory_file::MemoryFile,
    slots::{ClassSlots, ExtentId, Freed},
};

/// How long a block stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until it is freed.
    Persistent,
    /// Until it is freed or memory is short.
    Ephemeral,
}

/// A class with this many extents or more gets another one rather than using a larger class's slots: half an extent more is then
/// little beside what the class holds.
const EXTENTS_OF_A_LARGE_CLASS: usize = 8;

#[derive(Debug)]
pub(crate) struct Arena {
    memory: MemoryFile,
    extents: Extents,
    persistent: Vec<Mutex<ClassSlots>>,
    ephemeral: Vec<Mutex<ClassSlots>>,
    /// Ephemeral extents in the order they were taken, but for those being emptied. Locked after a class, never before.
    ephemeral_order: Mutex<VecDeque<ExtentId>>,
}

impl Arena {
    /// An arena that can grow as far as offsets reach and the budget allows. Costs address space only, until used.
    pub(crate) fn new(budget: Arc<Budget>) -> io::Result<Self> {
        let count = (MAX_ARENA_BYTES / EXTENT_BYTES as u64) as u32;
        let classes =
            || (0..CLASSES).filter_map(SizeClass::from_index).map(ClassSlots::new).map(Mutex::new).collect();
        Ok(Self {
            memory: MemoryFile::create("tmem-arena", count as usize * EXTENT_BYTES)?,
            extents: Extents::new(count, budget)?,
            persistent: classes(),
            ephemeral: classes(),
            ephemeral_order: Mutex::default(),
        })
    }

    /// Reserves a slot for a block. `None`: there is no room, neither in extents held nor for another extent.
    pub(crate) fn allocate(&self, block_bytes: usize, lifetime: Lifetime) -> Option<ArenaOffset> {
        let class = SizeClass::for_block(block_bytes);
        self.take_good_fit(class, lifetime)
            .or_else(|| self.take_from_new_extent(class, lifetime))
            .or_else(|| class.and_larger().find_map(|class| self.take(class, lifetime)))
    }

    /// A slot of the class; for a small class also one of a slightly larger class.
    fn take_good_fit(&self, class: SizeClass, lifetime: Lifetime) -> Option<ArenaOffset> {
        let mut slots = self.class(class, lifetime);
        if let Some((extent, slot)) = slots.take() {
            return Some(offset(extent, slot, class));
        }
        if slots.extents() >= EXTENTS_OF_A_LARGE_CLASS {
            return None;
        }
        drop(slots);
        let tolerable = class.slot_bytes() + class.slot_bytes() / 16;
        class
            .and_larger()
            .skip(1)
            .take_while(|larger| larger.slot_bytes() <= tolerable)
            .find_map(|larger| self.take(larger, lifetime))
    }

    fn take(&self, class: SizeClass, lifetime: Lifetime) -> Option<ArenaOffset> {
        let (extent, slot) = self.class(class, lifetime).take()?;
        Some(offset(extent, slot, class))
    }

    fn take_from_new_extent(&self, class: SizeClass, lifetime: Lifetime) -> Option<ArenaOffset> {
        let extent = self.extents.acquire(&self.memory)?;
        let mut slots = self.class(class, lifetime);
        self.extents.set_place(extent, slots.add(extent));
        self.extents.set_usage(extent, Some(ExtentUse { class, lifetime }));
        if lifetime == Lifetime::Ephemeral {
            lock(&self.ephemeral_order).push_back(extent);
        }
        slots.take().map(|(extent, slot)| offset(extent, slot, class))
    }

    /// Frees a block's slot. The block must not be reachable through any index any more.
    pub(crate) fn free(&self, block: ArenaOffset) {
        let Some((extent, usage, slot)) = self.locate(block) else {
            debug_assert!(false, "{block:?} is no block");
            return;
        };
        let mut slots = self.class(usage.class, usage.lifetime);
        let freed = slots.free(self.extents.place(extent), slot);
        debug_assert_ne!(freed, Freed::WasFree, "{block:?} freed twice");
        if let Freed::Empty { moved } = freed {
            if let Some((moved, place)) = moved {
                self.extents.set_place(moved, place);
            }
            self.extents.set_usage(extent, None);
            if usage.lifetime == Lifetime::Ephemeral {
                lock(&self.ephemeral_order).retain(|other| *other != extent);
            }
            drop(slots);
            self.extents.release(&self.memory, extent);
        }
    }

    /// Memory that a block takes, in bytes: its whole slot. `None`: there is no block.
    pub(crate) fn slot_bytes(&self, block: ArenaOffset) -> Option<u64> {
        Some(self.locate(block)?.1.class.slot_bytes() as u64)
    }

    /// A stored block's bytes. `None`: no such place.
    ///
    /// # Safety
    /// For as long as the slice lives nobody frees the block (its page's stripe is locked).
    pub(crate) unsafe fn block(&self, block: ArenaOffset, block_bytes: usize) -> Option<&[u8]> {
        let start = self.memory.at(block.0 as usize, block_bytes)?;
        // SAFETY: the range is inside the mapping; blocks are written before they are published and freed only after they were
        // unpublished, so by the caller's promise nobody writes here.
        Some(unsafe { codec::bytes(start.as_ptr(), block_bytes) })
    }

    /// A reserved slot's bytes, for filling.
    ///
    /// # Safety
    /// The slot was reserved by the caller for at least `block_bytes` and not yet published.
    #[expect(
        clippy::mut_from_ref,
        reason = "the reservation is what makes the slice exclusive, as the contract says"
    )]
    pub(crate) unsafe fn block_mut(&self, block: ArenaOffset, block_bytes: usize) -> Option<&mut [u8]> {
        let mut start = self.memory.at(block.0 as usize, block_bytes)?;
        // SAFETY: the range is inside the mapping and the caller's alone.
        Some(unsafe { std::slice::from_raw_parts_mut(start.as_mut(), block_bytes) })
    }

    /// Closes the oldest ephemeral extent to new blocks and lists its blocks with the owners their headers name. `None`: there is
    /// no ephemeral extent.
    pub(crate) fn retire_oldest_ephemeral(&self) -> Option<Vec<(ArenaOffset, PoolId, IndexSlot)>> {
        loop {
            let extent = lock(&self.ephemeral_order).pop_front()?;
            let Some(usage) = self.extents.usage(extent) else {
                continue; // emptied since
            };
            let mut slots = self.class(usage.class, usage.lifetime);
            if self.extents.usage(extent) != Some(usage) || usage.lifetime != Lifetime::Ephemeral {
                continue; // emptied, and perhaps taken again, between the two looks
            }
            let used = slots.retire(self.extents.place(extent));
            drop(slots);
            let blocks = used.into_iter().map(|slot| offset(extent, slot, usage.class));
            return Some(
                blocks
                    .filter_map(|block| Some((block, self.owner(block)?.0, self.owner(block)?.1)))
                    .collect(),
            );
        }
    }

    fn owner(&self, block: ArenaOffset) -> Option<(PoolId, IndexSlot)> {
        let start = self.memory.at(block.0 as usize, block::HEADER_BYTES)?;
        // SAFETY: inside the mapping. A put may be writing this header now; whoever uses the answer checks it against the index.
        let header = unsafe { start.cast::<[u8; block::HEADER_BYTES]>().read_volatile() };
        Some(block::owner(&header).ok()?.0)
    }

    fn locate(&self, block: ArenaOffset) -> Option<(ExtentId, ExtentUse, u32)> {
        let extent = ExtentId(u32::try_from(block.0 / EXTENT_BYTES as u64).ok()?);
        let usage = self.extents.usage(extent)?;
        let slot = block.0 as usize % EXTENT_BYTES / usage.class.slot_bytes();
        Some((extent, usage, slot as u32))
    }

    fn class(&self, class: SizeClass, lifetime: Lifetime) -> MutexGuard<'_, ClassSlots> {
        lock(match lifetime {
            Lifetime::Persistent => &self.persistent[class.index()],
            Lifetime::Ephemeral => &self.ephemeral[class.index()],
        })
    }

    /// Bytes that the OS holds for the arena.
    #[cfg(test)]
    pub(crate) fn allocated_bytes(&self) -> io::Result<u64> {
        self.memory.allocated_bytes()
    }
}

fn offset(extent: ExtentId, slot: u32, class: SizeClass) -> ArenaOffset {
    ArenaOffset((extent.offset() + slot as usize * class.slot_bytes()) as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
