//! Stocking up: finding memory ahead of the puts that need it. See [`crate::stock`].

use std::sync::PoisonError;

use crate::{
    dedup::SHARED_POOL,
    engine::{Engine, Owner},
    extents::EXTENT_BYTES,
    index::INDEX_PAGE_BYTES,
    stock::Request,
};

/// What a request takes at most, in bytes: some pages.
const MOST_BYTES_PER_REQUEST: u64 = 8 * INDEX_PAGE_BYTES;

impl Engine {
    /// Has puts leave finding memory to whoever stocks up from now on.
    pub(crate) fn begin_stock(&self) {
        self.stock.set_kept(true);
        self.pools().iter().for_each(|pool| pool.request_first_index_page());
    }

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
        let is_stocked = self.find_requested(&mut left_bytes) & self.arena.stock_up(&mut left_bytes);
        self.stock.set_starved(!is_stocked);
        self.stock.note_round();
        is_stocked
    }

    /// Finds pages that were asked for. False: there was less memory than that takes.
    fn find_requested(&self, left_bytes: &mut u64) -> bool {
        let mut all = true;
        while let Some(request) = self.stock.next_request() {
            // A page is worth more than an extent: without it, puts to a part of a disk are refused that has none. What the extent gives
            // back to the OS others may take.
            if *left_bytes < MOST_BYTES_PER_REQUEST && self.arena.release_spare() {
                *left_bytes += EXTENT_BYTES as u64;
            }
            all &= match request {
                Request::IndexPages { pool: SHARED_POOL, first } => {
                    self.shared_blocks.find_pages(first, left_bytes)
                }
                Request::IndexPages { pool, first } => match self.owner(pool) {
                    Owner::Pool(pool) => pool.find_index_pages(first, left_bytes),
                    Owner::Shared | Owner::Changing | Owner::Nobody => true,
                },
                Request::Tables => self.domains().iter().all(|domain| domain.find_table_page(left_bytes)),
            };
        }
        all
    }

    /// Lets puts find memory themselves again, and gives back what was found for them.
    pub(crate) fn end_stock(&self) {
        self.stock.set_kept(false);
        let _nobody_stocks_up = self.stocking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.files.is_detached() {
            self.arena.trim_stock();
            self.shared_blocks.release_found_pages();
            self.pools().iter().for_each(|pool| pool.release_found_index_pages());
        }
    }
}
