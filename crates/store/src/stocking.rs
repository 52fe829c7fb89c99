//! Stocking up: finding memory ahead of the puts that need it. See [`crate::stock`].

use std::sync::PoisonError;

use crate::{engine::Engine, extents::EXTENT_BYTES};

impl Engine {
    /// Finds what the next puts will need, or gives back what they did not. False: more is wanted than `available_bytes`, or than the
    /// OS has.
    pub(crate) fn stock_up(&self, available_bytes: u64) -> bool {
        let _one_at_a_time = self.stocking.lock().unwrap_or_else(PoisonError::into_inner);
        // Another process may have the memory of a store that was detached.
        if self.files.is_detached() || !self.stock.is_kept() {
            return true;
        }
        let (limit_bytes, taken) = (self.budget.limit_bytes(), self.arena.take_taken());
        if self.stock.set_target(limit_bytes, EXTENT_BYTES as u64, taken, self.has_pools()) {
            self.arena.trim_stock();
        }
        let mut left_bytes = available_bytes;
        let is_stocked = self.arena.stock_up(&mut left_bytes);
        self.stock.set_starved(!is_stocked);
        is_stocked
    }

    /// Lets puts find memory themselves again, and gives back what was found for them.
    pub(crate) fn end_stock(&self) {
        self.stock.set_kept(false);
        let _nobody_stocks_up = self.stocking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.is_detached() {
            self.arena.trim_stock();
        }
    }
}
