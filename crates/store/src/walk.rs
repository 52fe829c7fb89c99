//! Walking the blocks of an extent, one after the other.

use crate::{
    arena::Arena,
    block::{self, BlockHeader, DamagedBlock},
    entry::BlockRef,
    extent_state::ExtentState,
    extents::{EXTENT_BYTES, ExtentId},
    fault_injection,
    ids::ArenaOffset,
};

/// A sealed extent that stays while its blocks are looked at.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    arena: &'a Arena,
    state: &'a ExtentState,
    extent: ExtentId,
    at_bytes: usize,
}

/// A block met on a walk; some index entry may or may not still refer to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met<'a> {
    pub(crate) place: BlockRef,
    pub(crate) header: BlockHeader,
    pub(crate) payload: &'a [u8],
}

impl<'a> Walk<'a> {
    /// The extent was pinned for this.
    pub(crate) fn new(arena: &'a Arena, state: &'a ExtentState, extent: ExtentId) -> Self {
        Self { arena, state, extent, at_bytes: 0 }
    }

    /// The next block. `None`: there are no more. Errors: a block is damaged and those behind it cannot be found; the extent is
    /// left alone from now on.
    pub(crate) fn next(&mut self) -> Result<Option<Met<'a>>, DamagedBlock> {
        let offset = ArenaOffset((self.extent.offset() + self.at_bytes) as u64);
        // SAFETY: the extent is sealed and pinned, so nobody writes to it while self lives; what is returned is used no longer.
        let rest = unsafe { self.arena.bytes(offset, EXTENT_BYTES - self.at_bytes) }.unwrap_or_default();
        if block::is_end(rest) {
            return Ok(None);
        }
        let (header, payload) = block::read(rest).inspect_err(|_| self.state.mark_damaged())?;
        let block_bytes = block::block_bytes(header.payload_bytes);
        self.at_bytes += usize::from(block_bytes);
        let place = BlockRef { offset, block_bytes };
        Ok(Some(Met { place, header, payload }))
    }

    /// Goes back to the first block.
    pub(crate) fn start_again(&mut self) {
        self.at_bytes = 0;
    }

    /// The whole extent, blocks and all.
    ///
    /// # Safety
    /// The slice is not used any more when the walk is dropped.
    pub(crate) unsafe fn bytes(&self) -> Option<&'a [u8]> {
        // SAFETY: the extent is sealed and pinned, so nobody writes to it; it stays as long as the walk by the caller's promise.
        unsafe { self.arena.bytes(ArenaOffset(self.extent.offset() as u64), EXTENT_BYTES) }
    }

    /// Live bytes of the extent at this moment.
    pub(crate) fn live_bytes(&self) -> u32 {
        self.state.see().live_bytes
    }

    /// Which extent it is.
    pub(crate) fn extent(&self) -> ExtentId {
        self.extent
    }

    /// After every block was met and every one that an entry refers to was freed: what still counts as live belonged to index
    /// entries that were damaged. Nothing can reach it any more, so it is taken out of the books.
    pub(crate) fn forget_lost_blocks(&self) {
        let seen = self.state.see();
        if seen.live_bytes > 0 && seen.recovered {
            // An index entry that stands for these bytes may be whole, and wrong: when it goes, so do they. Taking them twice would
            // take them from somebody else.
            self.state.mark_damaged();
        } else if seen.live_bytes > 0 {
            let _pinned = self.state.free(seen.live_bytes);
        }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        if !fault_injection::is_crashed() {
            self.arena.unpin(self.extent);
        }
    }
}
