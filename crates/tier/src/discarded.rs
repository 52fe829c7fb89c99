//! Places whose copy nobody needs, so that the file system can have them back.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A bit a place.
pub(crate) struct Discarded {
    bits: Box<[AtomicU64]>,
}

impl Discarded {
    pub(crate) fn new(places: u32) -> Self {
        Self { bits: (0..places.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Nobody needs what is there.
    pub(crate) fn insert(&self, place: u32) {
        if let Some((bits, bit)) = self.bit(place) {
            bits.fetch_or(bit, Relaxed);
        }
    }

    /// Somebody does, or it is gone.
    pub(crate) fn remove(&self, place: u32) {
        if let Some((bits, bit)) = self.bit(place) {
            bits.fetch_and(!bit, Relaxed);
        }
    }

    /// The next run of at least `min` places from `from` on, cut to `max`. 64 places that are all needed take one step.
    pub(crate) fn run_from(&self, from: u32, min: u32, max: u32) -> Option<Range<u32>> {
        let end = self.bits.len() as u32 * 64;
        let mut start = from;
        while start < end {
            if start.is_multiple_of(64) && self.bits[start as usize / 64].load(Relaxed) == 0 {
                start += 64;
                continue;
            }
            let len =
                (start..end).take(max as usize).take_while(|&place| self.contains(place)).count() as u32;
            if len >= min {
                return Some(start..start + len);
            }
            start += len + 1;
        }
        None
    }

    fn contains(&self, place: u32) -> bool {
        self.bit(place).is_some_and(|(bits, bit)| bits.load(Relaxed) & bit != 0)
    }

    fn bit(&self, place: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.bits.get(place as usize / 64)?, 1 << (place % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_and_no_place_that_is_needed() {
        let discarded = Discarded::new(1000);
        assert_eq!(discarded.run_from(0, 1, 100), None);
        for place in (5..9).chain(300..340).chain(990..1000) {
            discarded.insert(place);
        }
        discarded.remove(310);
        assert_eq!(discarded.run_from(0, 1, 100), Some(5..9));
        assert_eq!(discarded.run_from(0, 8, 100), Some(300..310));
        assert_eq!(discarded.run_from(310, 8, 16), Some(311..327));
        assert_eq!(discarded.run_from(335, 8, 100), Some(990..1000));
        assert_eq!(discarded.run_from(993, 8, 100), None);
        discarded.insert(5000);
        assert_eq!(discarded.run_from(995, 1, 100), Some(995..1000));
    }
}
