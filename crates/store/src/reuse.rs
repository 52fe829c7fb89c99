//! Reuse distance: how many pages a client swapped out between a page's own swap-out, or last swap-in, and the swap-in that wanted it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Distances below this share the first bucket, in pages.
const FIRST_PAGES: u64 = 64;
const FIRST_BITS: u32 = FIRST_PAGES.ilog2();

/// From there on each doubling has so many buckets: a distance is known to within a quarter, as finely as epochs can tell it for
/// most pages.
const BUCKETS_PER_DOUBLING: usize = 4;

/// Up to 2^26 pages, 256 GiB.
const LAST_BITS: u32 = 26;

/// Buckets, without the one for what is older.
const BUCKETS: usize = 1 + (LAST_BITS - FIRST_BITS) as usize * BUCKETS_PER_DOUBLING;

/// Counters of different stripes are on different cache lines, up to so many: gets on several threads seldom meet.
const SHARDS: usize = 8;

/// A client's histogram, counted into by all its pools.
#[derive(Debug, Default)]
pub(crate) struct ReuseHistogram([Shard; SHARDS]);

#[derive(Debug)]
#[repr(align(128))]
struct Shard([AtomicU64; BUCKETS + 1]);

impl Default for Shard {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS + 1])
    }
}

impl ReuseHistogram {
    /// Counts a get. `None`: the page is older than the range of ages.
    pub(crate) fn count(&self, stripe: usize, distance_pages: Option<u64>) {
        let bucket = distance_pages.map_or(BUCKETS, bucket_of);
        self.0[stripe % SHARDS].0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> ReuseDistances {
        let mut sum = ReuseDistances::default();
        for shard in &self.0 {
            for (bucket, count) in shard.0[..BUCKETS].iter().enumerate() {
                sum.gets[bucket] += count.load(Ordering::Relaxed);
            }
            sum.older_gets += shard.0[BUCKETS].load(Ordering::Relaxed);
        }
        sum
    }
}

/// The bucket of a distance; [`BUCKETS`] where it is beyond the last.
fn bucket_of(distance_pages: u64) -> usize {
    if distance_pages < FIRST_PAGES {
        return 0;
    }
    let doubling = distance_pages.ilog2();
    let within = (distance_pages >> (doubling - 2)) as usize % BUCKETS_PER_DOUBLING;
    (1 + (doubling - FIRST_BITS) as usize * BUCKETS_PER_DOUBLING + within).min(BUCKETS)
}

/// The distances of a bucket are below this, in pages.
fn end_of(bucket: usize) -> u64 {
    let (doubling, within) = (bucket / BUCKETS_PER_DOUBLING, bucket % BUCKETS_PER_DOUBLING);
    (FIRST_PAGES << doubling) / BUCKETS_PER_DOUBLING as u64 * (BUCKETS_PER_DOUBLING + within) as u64
}

/// How far back a client's gets reached: for each get that found a page, how many pages the client had put since that page was put
/// or last fetched.
///
/// Why this matters: a client swaps out the pages that it has not used for longest. A page that was swapped out, and wanted again
/// when the client had swapped out D other pages since, would still be in its memory if that had been D pages larger: this is the
/// stack property of LRU (R. L. Mattson, J. Gecsei, D. R. Slutz and I. L. Traiger, "Evaluation techniques for storage hierarchies",
/// IBM Systems Journal 9(2), 1970). So [`ReuseDistances::avoidable_gets`] says how many swap-ins so much more memory would have saved.
///
/// Its limits: a client's kernel only approximates LRU; pages that are put twice between two gets of another count twice towards
/// its distance; read-ahead fetches pages that nobody asked for. A distance is known to within one epoch, and is never stated too
/// small by more than the few puts that are not yet counted; beyond the range of ages (about one and a half times what the client
/// has stored, or an hour of little traffic) it is only known to be older.
///
/// Counts only grow: the difference of two readings is what happened in between.
#[derive(Clone, PartialEq, Eq)]
pub struct ReuseDistances {
    gets: [u64; BUCKETS],
    older_gets: u64,
}

impl Default for ReuseDistances {
    fn default() -> Self {
        Self { gets: [0; BUCKETS], older_gets: 0 }
    }
}

impl ReuseDistances {
    /// Gets counted, of whatever distance.
    pub fn gets(&self) -> u64 {
        self.gets.iter().sum::<u64>() + self.older_gets
    }

    /// Gets of a page older than the range of ages, or beyond the last bucket.
    pub fn older_gets(&self) -> u64 {
        self.older_gets
    }

    /// Gets that would not have been needed with `more_pages` more pages of memory: those whose distance was surely not larger.
    pub fn avoidable_gets(&self, more_pages: u64) -> u64 {
        self.buckets().take_while(|(end_pages, _)| *end_pages <= more_pages).map(|(_, gets)| gets).sum()
    }

    /// Where each bucket ends, in pages, with the gets in it: distances below its end and not below the end of the one before. The ends
    /// are always the same: 64 pages, then four for each doubling up to 2^26 pages.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.gets.iter().enumerate().map(|(bucket, gets)| (end_of(bucket), *gets))
    }

    /// The gets since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.gets.iter_mut().zip(earlier.gets).for_each(|(now, then)| *now = now.saturating_sub(then));
        since.older_gets = since.older_gets.saturating_sub(earlier.older_gets);
        since
    }
}

impl std::fmt::Debug for ReuseDistances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = self.buckets().filter(|(_, gets)| *gets > 0);
        f.debug_map().entries(counted).entry(&"older", &self.older_gets).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_distance_is_in_the_bucket_that_ends_next() {
        let ends: Vec<u64> = ReuseDistances::default().buckets().map(|(end, _)| end).collect();
        assert_eq!(ends[..6], [64, 80, 96, 112, 128, 160]);
        assert_eq!(ends.last(), Some(&(1 << LAST_BITS)));
        for distance in (0..5000).chain([(1 << 26) - 1]) {
            let bucket = bucket_of(distance);
            assert!(distance < ends[bucket] && (bucket == 0 || distance >= ends[bucket - 1]), "{distance}");
        }
        assert_eq!((bucket_of(1 << 26), bucket_of(u64::MAX)), (BUCKETS, BUCKETS));
    }

    #[test]
    fn more_memory_avoids_the_gets_that_did_not_reach_farther() {
        let histogram = ReuseHistogram::default();
        for (stripe, distance) in [Some(10), Some(63), Some(200), Some(100_000), None].into_iter().enumerate()
        {
            histogram.count(stripe, distance);
        }
        let before = histogram.read();
        let avoidable = [0, 63, 64, 223, 224, 1 << 26].map(|pages| before.avoidable_gets(pages));
        assert_eq!(avoidable, [0, 0, 2, 2, 3, 4]);
        assert_eq!((before.gets(), before.older_gets()), (5, 1));
        histogram.count(99, Some(10));
        histogram.count(7, None);
        let since = histogram.read().since(&before);
        assert_eq!((since.gets(), since.older_gets(), since.avoidable_gets(64)), (2, 1, 1));
    }
}
