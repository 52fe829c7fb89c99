//! Shares of the limit: a client's part by its weight among all clients'.
//!
//! As long as there is plenty, anybody may have it. When the pool is nearly full, what is left (see [`Claim::BeyondShare`]) is for clients
//! that have not had their share. A client alone has all of the limit as its share and is never beyond it. Against its share a page
//! counts for what it counts against a cap, and a 32nd more; so when all clients have their shares, the limit is not yet reached.
//!
//! [`Claim::BeyondShare`]: crate::budget::Claim::BeyondShare

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::weight::Weight;

/// Ends of extents that no block fits into are up to a 36th of what raw pages take, and less of others.
const UNFILLED_PART: u64 = 32;

/// The clients of a store, as far as shares go. They change when clients come, go or change weight.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    clients: AtomicU32,
    /// Of all of them.
    weight: AtomicU64,
}

impl Shares {
    pub(crate) fn join(&self, weight: Weight) {
        self.weight.fetch_add(u64::from(weight.get()), Ordering::Relaxed);
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self, weight: Weight) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
        self.weight.fetch_sub(u64::from(weight.get()), Ordering::Relaxed);
    }

    pub(crate) fn change(&self, from: Weight, to: Weight) {
        self.weight.fetch_add(u64::from(to.get()), Ordering::Relaxed);
        self.weight.fetch_sub(u64::from(from.get()), Ordering::Relaxed);
    }

    /// Whether there is anybody to share with.
    pub(crate) fn are_needed(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 1
    }

    /// The part of a client with that weight, in bytes. All clients' together are the limit, but for a byte each.
    pub(crate) fn bytes(&self, weight: Weight, limit_bytes: u64) -> u64 {
        let own = u128::from(weight.get());
        let all = u128::from(self.weight.load(Ordering::Relaxed)).max(own);
        (u128::from(limit_bytes) * own / all) as u64
    }

    /// Whether so many bytes of pages are within the share of a client with that weight.
    pub(crate) fn cover(&self, used_bytes: u64, weight: Weight, limit_bytes: u64) -> bool {
        !self.are_needed() || used_bytes + used_bytes / UNFILLED_PART <= self.bytes(weight, limit_bytes)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_are_the_limit_together_and_in_proportion(
            weights in proptest::collection::vec(Weight::RANGE, 1..50),
            leaving in 0..50usize,
            limit in 1u64 << 20..=1 << 40,
        ) {
            let mut weights: Vec<_> = weights.into_iter().map(|weight| Weight::new(weight).unwrap()).collect();
            let shares = Shares::default();
            weights.iter().for_each(|weight| shares.join(*weight));
            if weights.len() > 1 {
                shares.leave(weights.swap_remove(leaving % weights.len()));
            }
            let heavier = Weight::new(weights[0].get().midpoint(10_000)).unwrap();
            shares.change(weights[0], heavier);
            weights[0] = heavier;
            let parts: Vec<_> = weights.iter().map(|weight| shares.bytes(*weight, limit)).collect();
            let sum: u64 = parts.iter().sum();
            prop_assert!(sum <= limit && limit - sum <= weights.len() as u64);
            let heaviest = weights.iter().max().unwrap();
            prop_assert!(parts.iter().all(|part| *part <= shares.bytes(*heaviest, limit)));
        }
    }

    #[test]
    fn a_client_alone_is_never_beyond_its_share() {
        let shares = Shares::default();
        let weight = Weight::new(1).unwrap();
        shares.join(weight);
        assert_eq!(shares.bytes(weight, 1 << 30), 1 << 30);
        assert!(shares.cover(1 << 50, weight, 1 << 30));
        shares.join(Weight::new(3).unwrap());
        let most = (1 << 28) / 33 * 32;
        assert!(shares.cover(most, weight, 1 << 30) && !shares.cover(most + 64, weight, 1 << 30));
    }
}
