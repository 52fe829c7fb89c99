//! Which pages to take when not all are wanted.

/// The longest stretch of neighbours that is taken or left as one: 1 MiB, about what a kernel swaps out in one go.
const STRETCH_PAGES: u64 = 256;

/// A limit on pages, met by taking stretches that are spread evenly over all there are.
pub(super) struct Share {
    total_pages: u64,
    limit_pages: u64,
    seen_pages: u64,
    taken_pages: u64,
}

impl Share {
    /// At most `limit_pages` of `total_pages`.
    pub(super) fn new(total_pages: u64, limit_pages: Option<u64>) -> Self {
        let limit_pages = limit_pages.unwrap_or(u64::MAX);
        Self { total_pages, limit_pages, seen_pages: 0, taken_pages: 0 }
    }

    /// How long a stretch may be. A small limit takes shorter ones, so that there are some.
    pub(super) fn stretch_pages(&self) -> u64 {
        (self.limit_pages / 16).clamp(1, STRETCH_PAGES)
    }

    /// How many pages of the next stretch to take, from its start: all when what was taken has fallen behind its share.
    pub(super) fn take(&mut self, stretch_pages: u64) -> u64 {
        self.seen_pages += stretch_pages;
        let share = (self.limit_pages as f64 / self.total_pages.max(1) as f64).min(1.0);
        let due = (self.seen_pages as f64 * share).ceil() as u64;
        let behind = due.saturating_sub(self.taken_pages);
        if behind * 2 < stretch_pages {
            return 0;
        }
        let take = stretch_pages.min(self.limit_pages - self.taken_pages);
        self.taken_pages += take;
        take
    }

    /// How far it is, 0 to 1.
    pub(super) fn done(&self) -> f64 {
        self.seen_pages as f64 / self.total_pages.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_all_is_taken() {
        let mut share = Share::new(1000, None);
        assert_eq!([256, 256, 256, 232].map(|stretch| share.take(stretch)), [256, 256, 256, 232]);
        assert_eq!(share.done(), 1.0);
    }

    #[test]
    fn a_limit_is_kept_nearly_reached_and_spread() {
        for (total, limit) in [(100_000, 10_000), (100_000, 99_999), (5000, 10), (300, 1), (10, 50)] {
            let mut share = Share::new(total, Some(limit));
            let stretch = share.stretch_pages();
            let (mut taken, mut taken_in_first_half, mut seen) = (0, 0, 0);
            while seen < total {
                let pages = stretch.min(total - seen);
                seen += pages;
                taken += share.take(pages);
                if seen <= total / 2 {
                    taken_in_first_half = taken;
                }
            }
            let reachable = limit.min(total);
            assert!(taken <= reachable, "{taken} of {limit}");
            assert!(taken >= reachable - stretch / 2, "{taken} of {limit}");
            assert!(taken_in_first_half.abs_diff(taken / 2) <= stretch, "{taken_in_first_half} of {taken}");
        }
    }
}
