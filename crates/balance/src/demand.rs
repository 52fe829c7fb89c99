//! How often a subject wanted a page back, and how much more memory would have saved it that.

use serde::{Deserialize, Serialize};
use tmem_store::{PAGE_BYTES, ReuseDistances};

/// Swap-ins by reuse distance, counted from some moment on: the difference of two is what happened in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Swap-ins whose distance is below the first number, in pages, and not below that of the entry before.
    buckets: Vec<(u64, u64)>,
    /// Swap-ins of pages that are older than anybody keeps account of.
    older: u64,
}

impl From<&ReuseDistances> for Demand {
    fn from(distances: &ReuseDistances) -> Demand {
        let counted = distances.buckets().filter(|(_, gets)| *gets > 0);
        Demand::new(counted, distances.older_gets())
    }
}

impl Demand {
    /// From swap-ins by the end of their distances' range, in pages.
    pub fn new(buckets: impl IntoIterator<Item = (u64, u64)>, older: u64) -> Demand {
        Demand { buckets: buckets.into_iter().collect(), older }
    }

    /// Swap-ins of whatever distance.
    pub fn swap_ins(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum::<u64>() + self.older
    }

    /// What was counted since an earlier reading. A client that was made anew counts from 0.
    pub fn since(&self, earlier: &Demand) -> Demand {
        if self.swap_ins() < earlier.swap_ins() {
            return self.clone();
        }
        let before = |end| earlier.buckets.iter().find(|(at, _)| *at == end).map_or(0, |(_, count)| *count);
        let buckets = self.buckets.iter().map(|(end, count)| (*end, count.saturating_sub(before(*end))));
        Demand::new(buckets.filter(|(_, count)| *count > 0), self.older.saturating_sub(earlier.older))
    }
}

/// Swap-ins per second, and those that more memory would save.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    buckets: Vec<(u64, f64)>,
    older: f64,
}

impl Rates {
    /// Mixes in what was counted in the last `seconds`; what was before counts by `memory`, 0 to 1.
    pub(crate) fn take_in(&mut self, counted: &Demand, seconds: f64, memory: f64) {
        let new = (1.0 - memory) / seconds.max(1e-3);
        self.buckets.iter_mut().for_each(|(_, rate)| *rate *= memory);
        for (end, count) in &counted.buckets {
            let add = *count as f64 * new;
            match self.buckets.binary_search_by_key(end, |(end, _)| *end) {
                Ok(at) => self.buckets[at].1 += add,
                Err(at) => self.buckets.insert(at, (*end, add)),
            }
        }
        self.older = self.older * memory + counted.older as f64 * new;
        self.buckets.retain(|(_, rate)| *rate > 1e-6);
    }

    /// Swap-ins per second.
    #[cfg(test)]
    fn total(&self) -> f64 {
        self.buckets.iter().map(|(_, rate)| rate).sum::<f64>() + self.older
    }

    /// Those per second that so much more memory would save.
    pub(crate) fn saved_by(&self, more_bytes: u64) -> f64 {
        let more_pages = more_bytes / PAGE_BYTES as u64;
        self.buckets.iter().take_while(|(end, _)| *end <= more_pages).map(|(_, rate)| rate).sum()
    }

    /// Amounts of memory at which another part of them is saved, in bytes, with what is saved then per second: rising in both.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.buckets.iter().scan(0.0, |sum, (end, rate)| {
            *sum += rate;
            Some((end * PAGE_BYTES as u64, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_in_between_is_the_difference() {
        let before = Demand::new([(64, 5), (256, 7)], 1);
        let after = Demand::new([(64, 5), (128, 2), (256, 17)], 4);
        let since = after.since(&before);
        assert_eq!(since, Demand::new([(128, 2), (256, 10)], 3));
        assert_eq!(before.since(&after), before, "counted anew");
        let mut rates = Rates::default();
        rates.take_in(&since, 5.0, 0.0);
        assert!((rates.total() - 3.0).abs() < 1e-9);
        assert!((rates.saved_by(128 * 4096) - 0.4).abs() < 1e-9 && rates.saved_by(127 * 4096) == 0.0);
        let steps: Vec<_> = rates.steps().collect();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[1].0, (steps[1].1 - 2.4).abs() < 1e-9), (256 * 4096, true));
        rates.take_in(&Demand::default(), 5.0, 0.5);
        assert!((rates.total() - 1.5).abs() < 1e-9);
    }
}
