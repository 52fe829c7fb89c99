//! A head: the open extent that new blocks of one use are appended to.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    extents::{EXTENT_BYTES, ExtentId},
    ids::ArenaOffset,
};

#[derive(Debug, Default)]
pub(crate) struct Head {
    open: Mutex<Option<OpenExtent>>,
}

/// Where nobody finds memory ahead, the OS finds an extent's piece by piece, as it fills: 16 KiB take some 6 us, once in a dozen puts,
/// where all of it at once made every hundredth put wait for 60.
const PIECE_BYTES: u32 = 16 << 10;

/// An extent and how far it is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenExtent {
    pub(crate) extent: ExtentId,
    pub(crate) filled_bytes: u32,
    /// So far the OS has found its memory.
    populated_bytes: u32,
}

impl Head {
    /// Blocks are only reserved, and the open extent only changed, under this lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<OpenExtent>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenExtent {
    /// An empty one, whose memory is all there already if it is `populated`.
    pub(crate) fn empty(extent: ExtentId, populated: bool) -> Self {
        Self { extent, filled_bytes: 0, populated_bytes: if populated { EXTENT_BYTES as u32 } else { 0 } }
    }

    pub(crate) fn has_room(&self, block_bytes: u16) -> bool {
        self.filled_bytes as usize + usize::from(block_bytes) <= EXTENT_BYTES
    }

    /// The piece of the extent whose memory has to be found before such a block can be written, in bytes from its start.
    pub(crate) fn missing(&self, block_bytes: u16) -> Option<Range<u32>> {
        let start = self.populated_bytes;
        let is_missing = self.filled_bytes + u32::from(block_bytes) > start;
        is_missing.then(|| start..(start + PIECE_BYTES).min(EXTENT_BYTES as u32))
    }

    /// Says that the OS has found the extent's memory as far as that.
    pub(crate) fn set_populated(&mut self, end: u32) {
        self.populated_bytes = self.populated_bytes.max(end);
    }

    /// Where the next block goes. There is room for it, and memory.
    pub(crate) fn append(&mut self, block_bytes: u16) -> ArenaOffset {
        let offset = self.extent.offset() + self.filled_bytes as usize;
        self.filled_bytes += u32::from(block_bytes);
        ArenaOffset(offset as u64)
    }
}
