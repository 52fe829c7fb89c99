//! The orders in which extents have their turn: to be recompressed, and to be written to the tier.

use super::Arena;
use crate::{
    extents::{ExtentId, ExtentUse},
    walk::Walk,
};

impl Arena {
    /// An extent begins to wait for whatever is done with such extents next.
    pub(crate) fn wait_for_its_turn(&self, extent: ExtentId) {
        self.wait_to_be_recompressed(extent);
        let seen = self.extents.state(extent).see();
        let is_cold = |extent| self.extents.usage(extent) == Some(ExtentUse::Cold);
        if is_cold(extent) && seen.live_bytes > 0 && !seen.damaged {
            self.cold_order.push(extent, self.now_ms(), is_cold);
        }
    }

    /// How many extents wait for their turn, or a few more.
    pub(crate) fn waiting_for_their_turn(&self) -> usize {
        self.cold_order.len() + self.recompression_order.len()
    }

    /// It is an extent's turn again, which has been still for so long.
    pub(crate) fn give_turn_back(&self, extent: ExtentId, still_ms: u64) {
        let order = match self.extents.usage(extent) {
            Some(ExtentUse::Cold) => &self.cold_order,
            Some(usage) if usage.is_recompressible() => &self.recompression_order,
            Some(_) | None => return,
        };
        order.put_back(extent, self.now_ms().saturating_sub(still_ms));
    }

    /// Pins the extent of persistent blocks that has been still for longest: a cold one, as long as there are any. Gives also for how long.
    /// `None`: there is none.
    pub(crate) fn pin_oldest(&self) -> Option<(Walk<'_>, u64)> {
        self.pin_still_for(0).or_else(|| {
            let wanted = ExtentUse::is_recompressible;
            self.pin_first_of(&self.recompression_order, 0, wanted, |extent| self.wait_for_its_turn(extent))
        })
    }

    /// As [`Arena::pin_oldest`], among the extents that have copies in the tier.
    pub(crate) fn pin_oldest_copied(&self) -> Option<(Walk<'_>, u64)> {
        for _ in 0..self.copies.count() {
            let mut orders = [&self.cold_order, &self.recompression_order].into_iter();
            let (extent, since_ms) =
                orders.find_map(|order| order.take_first(|extent| self.copies.has(extent)))?;
            if let Some(walk) = self.pin(extent, ExtentUse::is_persistent) {
                return Some((walk, self.now_ms().saturating_sub(since_ms)));
            }
            self.wait_for_its_turn(extent);
        }
        None
    }

    /// Pins the cold extent that has been still for longest, if it has been for so long.
    pub(crate) fn pin_still_for(&self, age_ms: u64) -> Option<(Walk<'_>, u64)> {
        let wanted = |usage| usage == ExtentUse::Cold;
        self.pin_first_of(&self.cold_order, age_ms, wanted, |extent| self.wait_for_its_turn(extent))
    }
}
