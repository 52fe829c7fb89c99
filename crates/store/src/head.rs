//! A head: the open extent that new blocks of one use are appended to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{
    extents::{EXTENT_BYTES, ExtentId},
    ids::ArenaOffset,
};

#[derive(Debug, Default)]
pub(crate) struct Head {
    open: Mutex<Option<OpenExtent>>,
}

/// An extent and how far it is filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenExtent {
    pub(crate) extent: ExtentId,
    pub(crate) filled_bytes: u32,
}

impl Head {
    /// Blocks are only reserved, and the open extent only changed, under this lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<OpenExtent>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenExtent {
    pub(crate) fn empty(extent: ExtentId) -> Self {
        Self { extent, filled_bytes: 0 }
    }

    pub(crate) fn has_room(&self, block_bytes: u16) -> bool {
        self.filled_bytes as usize + usize::from(block_bytes) <= EXTENT_BYTES
    }

    /// Where the next block goes. There is room for it.
    pub(crate) fn append(&mut self, block_bytes: u16) -> ArenaOffset {
        let offset = self.extent.offset() + self.filled_bytes as usize;
        self.filled_bytes += u32::from(block_bytes);
        ArenaOffset(offset as u64)
    }
}
