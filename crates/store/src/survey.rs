//! Opening a store: what the extents' table says, checked against what index entries refer to.
//!
//! An extent that the table calls complete is taken as it is: its blocks lie without gaps, up to an end, and an entry counts for what
//! it says. So nothing of it is read, which is what makes opening fast. All others (those that were open, or were being written to,
//! or whose cell is damaged) are few: there an entry only counts if its block proves to be whole and the page's own.

use std::collections::HashMap;

use crate::{
    arena::Arena,
    block,
    entry::BlockRef,
    extents::{EXTENT_BYTES, ExtentId, ExtentUse},
    ids::{IndexSlot, PoolId},
    pool::Persistence,
};

#[derive(Debug)]
pub(crate) struct Survey {
    /// By extent: its use, if it is complete, above its live bytes.
    complete: Vec<u32>,
    unfinished: HashMap<ExtentId, Unfinished>,
}

/// An extent whose blocks have to be looked at.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) usage: ExtentUse,
    pub(crate) live_bytes: u32,
    /// In the order of the index.
    pub(crate) blocks: Vec<BlockRef>,
}

/// What is known of an extent once all indexes were read.
#[derive(Debug)]
pub(crate) enum Surveyed {
    /// Nothing in it is live.
    Unused,
    Complete {
        usage: ExtentUse,
        live_bytes: u32,
    },
    Unfinished(Unfinished),
}

const USE_SHIFT: u32 = 24;
const LIVE_MASK: u32 = (1 << USE_SHIFT) - 1;

impl Survey {
    /// `cells` are those of all extents that the table knows, in order: their use and whether they are complete.
    pub(crate) fn new(cells: impl Iterator<Item = Option<(ExtentUse, bool)>>) -> Self {
        let complete = cells.map(|cell| match cell {
            Some((usage, true)) => (usage as u32) << USE_SHIFT,
            Some((_, false)) | None => 0,
        });
        Self { complete: complete.collect(), unfinished: HashMap::new() }
    }

    /// Enters a block that an index entry refers to. False: the entry is wrong.
    #[must_use]
    pub(crate) fn admit(
        &mut self,
        arena: &Arena,
        block: BlockRef,
        owner: (PoolId, IndexSlot),
        persistence: Persistence,
    ) -> bool {
        let (number, start) =
            (block.offset.0 / EXTENT_BYTES as u64, (block.offset.0 % EXTENT_BYTES as u64) as u32);
        let bytes = u32::from(block.block_bytes);
        if start + bytes > EXTENT_BYTES as u32 {
            return false;
        }
        if let Some(word) = self.complete.get_mut(number as usize)
            && let Some(usage) = ExtentUse::from_number((*word >> USE_SHIFT) as u16)
        {
            // Blocks that take more than there is overlap: then one has to be looked at to tell whether it is the wrong one.
            let fits = usage.is_for(persistence)
                && ((*word & LIVE_MASK) + bytes <= EXTENT_BYTES as u32 || proves_right(arena, block, owner));
            *word += if fits { bytes } else { 0 };
            return fits;
        }
        proves_right(arena, block, owner)
            && self.admit_unfinished(ExtentId(number as u32), block, persistence)
    }

    fn admit_unfinished(&mut self, extent: ExtentId, block: BlockRef, persistence: Persistence) -> bool {
        let usage = match persistence {
            Persistence::Persistent => ExtentUse::Persistent,
            Persistence::Ephemeral => ExtentUse::Ephemeral,
        };
        let found = self.unfinished.entry(extent).or_insert_with(|| Unfinished {
            usage,
            live_bytes: 0,
            blocks: Vec::new(),
        });
        let bytes = u32::from(block.block_bytes);
        let fits = found.usage == usage && found.live_bytes + bytes <= EXTENT_BYTES as u32;
        if fits {
            found.live_bytes += bytes;
            found.blocks.push(block);
        }
        fits
    }

    /// What was found of each extent, in order; all after these are unused.
    pub(crate) fn into_extents(mut self) -> impl Iterator<Item = (ExtentId, Surveyed)> {
        let beyond = self.unfinished.keys().map(|extent| extent.0 + 1).max().unwrap_or(0);
        let count = beyond.max(self.complete.len() as u32);
        (0..count).map(ExtentId).map(move |extent| {
            let word = self.complete.get(extent.0 as usize).copied().unwrap_or(0);
            let live_bytes = word & LIVE_MASK;
            let surveyed = match ExtentUse::from_number((word >> USE_SHIFT) as u16) {
                Some(usage) if live_bytes > 0 => Surveyed::Complete { usage, live_bytes },
                Some(_) => Surveyed::Unused,
                None => self.unfinished.remove(&extent).map_or(Surveyed::Unused, Surveyed::Unfinished),
            };
            (extent, surveyed)
        })
    }
}

/// Whether a block is whole, of that size, and that page's.
fn proves_right(arena: &Arena, block: BlockRef, owner: (PoolId, IndexSlot)) -> bool {
    // SAFETY: the store is just being opened: nobody puts or frees anything.
    let Some(bytes) = (unsafe { arena.block(block) }) else { return false };
    block::read(bytes).is_ok_and(|(header, _)| {
        (header.pool, header.slot) == owner && block::block_bytes(header.payload_bytes) == block.block_bytes
    })
}
