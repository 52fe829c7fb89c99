//! The arena's extents: which are held from the OS, and for blocks of which class.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

use crate::{
    arena::Lifetime,
    budget::Budget,
    classes::{EXTENT_BYTES, SizeClass},
    memory_file::MemoryFile,
    slots::{ExtentId, Place},
    zeroed::zeroed,
};

/// What an extent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExtentUse {
    pub(crate) class: SizeClass,
    pub(crate) lifetime: Lifetime,
}

/// All extents. The use of each stands in a memory file, because a daemon that takes the arena over needs it to find the slots.
#[derive(Debug)]
pub(crate) struct Extents {
    /// One 16-bit cell an extent: 0 = free, else class + 1, with the top bit for ephemeral ones.
    table: MemoryFile,
    /// Where an extent stands in its class's list; guarded by the class's lock.
    places: Box<[AtomicU32]>,
    free: Mutex<FreeExtents>,
    count: u32,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct FreeExtents {
    /// Given back; the lowest is used first, so that the arena stays short.
    returned: BinaryHeap<Reverse<u32>>,
    /// From here on none was ever used.
    untouched_from: u32,
}

const EPHEMERAL_BIT: u16 = 1 << 15;

impl Extents {
    pub(crate) fn new(count: u32, budget: Arc<Budget>) -> io::Result<Self> {
        let table_bytes = (count as usize * 2).next_multiple_of(4096);
        Ok(Self {
            table: MemoryFile::create("tmem-extents", table_bytes)?,
            places: zeroed(count as usize),
            free: Mutex::default(),
            count,
            budget,
        })
    }

    /// Takes a free extent and the OS's memory for it. `None`: the limit is reached or the OS has nothing left.
    pub(crate) fn acquire(&self, memory: &MemoryFile) -> Option<ExtentId> {
        if !self.budget.try_reserve(EXTENT_BYTES as u64) {
            return None;
        }
        let Some(extent) = self.pop_free() else {
            self.budget.release(EXTENT_BYTES as u64);
            return None;
        };
        if memory.populate(extent.offset(), EXTENT_BYTES).is_err() {
            self.release(memory, extent);
            return None;
        }
        Some(extent)
    }

    /// Gives an empty extent back to the OS.
    pub(crate) fn release(&self, memory: &MemoryFile, extent: ExtentId) {
        // Punching a hole in a memory file only fails for lack of kernel memory. The extent then stays usable and is
        // given back the next time it empties.
        let _ = memory.give_back(extent.offset(), EXTENT_BYTES);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.returned.push(Reverse(extent.0));
        drop(free);
        self.budget.release(EXTENT_BYTES as u64);
    }

    /// Says what an extent is used for. Called under the class's lock, when the extent joins or leaves the class.
    pub(crate) fn set_usage(&self, extent: ExtentId, usage: Option<ExtentUse>) {
        self.cell(extent).store(usage.map_or(0, ExtentUse::encode), Ordering::Release);
    }

    /// What an extent is used for. `None`: it is free, or there is none of that number.
    pub(crate) fn usage(&self, extent: ExtentId) -> Option<ExtentUse> {
        if extent.0 >= self.count {
            return None;
        }
        ExtentUse::decode(self.cell(extent).load(Ordering::Acquire))
    }

    pub(crate) fn place(&self, extent: ExtentId) -> Place {
        Place(self.places[extent.0 as usize].load(Ordering::Relaxed))
    }

    pub(crate) fn set_place(&self, extent: ExtentId, place: Place) {
        self.places[extent.0 as usize].store(place.0, Ordering::Relaxed);
    }

    fn cell(&self, extent: ExtentId) -> &AtomicU16 {
        &self.table.as_u16s()[extent.0 as usize]
    }

    fn pop_free(&self) -> Option<ExtentId> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reverse(extent)) = free.returned.pop() {
            return Some(ExtentId(extent));
        }
        if free.untouched_from == self.count {
            return None;
        }
        free.untouched_from += 1;
        Some(ExtentId(free.untouched_from - 1))
    }
}

impl ExtentId {
    pub(crate) fn offset(self) -> usize {
        self.0 as usize * EXTENT_BYTES
    }
}

impl ExtentUse {
    fn encode(self) -> u16 {
        let ephemeral = if self.lifetime == Lifetime::Ephemeral { EPHEMERAL_BIT } else { 0 };
        (u16::from(self.class.0) + 1) | ephemeral
    }

    fn decode(cell: u16) -> Option<Self> {
        let class = SizeClass::from_index(usize::from(cell & !EPHEMERAL_BIT).checked_sub(1)?)?;
        let lifetime = if cell & EPHEMERAL_BIT == 0 { Lifetime::Persistent } else { Lifetime::Ephemeral };
        Some(Self { class, lifetime })
    }
}
