//! The arena's part of the stock: extents whose memory is there before a put takes them.

use super::{Arena, Need};
use crate::{
    extents::{EXTENT_BYTES, Stocking},
    stock::Patience,
};

impl Arena {
    /// Has the OS find memory until the stock is as large as it is to be. What is found is taken off `left_bytes`, beyond which the OS
    /// is not asked. False: it had less than is wanted.
    pub(crate) fn stock_up(&self, left_bytes: &mut u64) -> bool {
        loop {
            match self.extents.stock_one(&self.memory, *left_bytes) {
                Stocking::Stocked => {
                    *left_bytes = left_bytes.saturating_sub(EXTENT_BYTES as u64);
                    self.stock.note_asking();
                }
                Stocking::Enough | Stocking::AtLimit => return true,
                Stocking::NoMemory => return false,
            }
        }
    }

    /// Gives what is more than the stock is to have to the OS.
    pub(crate) fn trim_stock(&self) {
        self.extents.trim_stock(&self.memory);
    }

    /// Extents in the stock.
    #[cfg(test)]
    pub(crate) fn stocked(&self) -> usize {
        self.extents.stocked()
    }

    /// How many extents were taken from the stock since this was last asked.
    pub(crate) fn take_taken(&self) -> u32 {
        self.extents.take_taken()
    }

    /// Where a stock is kept: waits for an extent to come into it. False: none came in time, or none can come.
    pub(crate) fn wait_for_extent(&self, need: Need, patience: &mut Patience) -> bool {
        if !self.can_be_stocked_for(need) {
            return false;
        }
        self.stock.note_shortage();
        let before = self.extents.stocked();
        self.stock.wait(patience, || self.extents.stocked() > before || self.has_room(need))
    }

    /// Whether what is needed may come into the stock: there is room for it under the limit.
    pub(crate) fn can_be_stocked_for(&self, need: Need) -> bool {
        self.stock.is_kept() && matches!(need, Need::Block { .. }) && self.extents.can_be_stocked()
    }

    /// Gives an extent to the OS that was kept to be used again, if what is needed is room under the limit rather than an extent. False:
    /// there is none.
    pub(crate) fn release_spare_for(&self, need: Need) -> bool {
        let is_wanted =
            self.stock.is_kept() && matches!(need, Need::Block { .. }) && self.extents.has_room_for_bytes(0);
        !is_wanted && self.release_spare()
    }
}
