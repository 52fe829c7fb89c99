//! When parts of the arena are put into huge pages: where nobody is held up by it.
//!
//! Before the kernel collapses a huge page it has every CPU empty its lists of pages (`lru_add_drain_all`), and holds the lock of the whole address
//! space for that long (seen in `madvise_collapse` of Linux 6.12 and 6.18). On a host whose CPUs are all busy that took up to two seconds.
//! As soon as another thread maps or unmaps anything meanwhile, whoever touches new memory waits as well: first the thread that finds
//! memory for puts, then the puts.

use std::time::{Duration, Instant};

use tmem_store::Store;

/// There have been no puts for so long: who puts may need new memory.
const STILL: Duration = Duration::from_secs(2);

/// One that took so long says that CPUs are busy. On an idle host it is a millisecond.
const SLOW: Duration = Duration::from_millis(20);

/// After a slow one there are none for so long, then twice as long, up to...
const FIRST_REST: Duration = Duration::from_secs(30);
/// ...so long.
const LONGEST_REST: Duration = Duration::from_secs(30 * 60);

/// Keeps apart from huge pages what they would hold up.
#[derive(Debug)]
pub(crate) struct HugePages {
    puts: u64,
    still_since: Instant,
    not_before: Instant,
    rest: Duration,
}

impl HugePages {
    pub(crate) fn new(now: Instant) -> Self {
        Self { puts: 0, still_since: now, not_before: now, rest: FIRST_REST }
    }

    /// Makes a huge page if it is a time for that. True: there may be more to make.
    pub(crate) fn make_one(&mut self, store: &Store) -> bool {
        let now = Instant::now();
        if !self.may(store.clients().iter().map(|client| client.puts).sum(), now) {
            return false;
        }
        let made = store.make_huge_page();
        self.note(now.elapsed(), Instant::now());
        made
    }

    /// Whether it is a time for that, where there have been so many puts.
    fn may(&mut self, puts: u64, now: Instant) -> bool {
        if puts != self.puts {
            (self.puts, self.still_since) = (puts, now);
        }
        now.saturating_duration_since(self.still_since) >= STILL && now >= self.not_before
    }

    /// One took so long.
    fn note(&mut self, took: Duration, now: Instant) {
        if took < SLOW {
            self.rest = FIRST_REST;
            return;
        }
        log::debug!("a huge page took {} ms: none for {} s", took.as_millis(), self.rest.as_secs());
        self.not_before = now + self.rest;
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn none_while_there_are_puts() {
        let start = Instant::now();
        let mut pages = HugePages::new(start);
        assert!(!pages.may(5, start));
        assert!(!pages.may(5, start + SECOND));
        assert!(pages.may(5, start + STILL));
        assert!(!pages.may(6, start + STILL + SECOND), "one put is enough");
        assert!(pages.may(6, start + STILL * 2 + SECOND));
    }

    #[test]
    fn slow_ones_become_rare() {
        let start = Instant::now() + STILL;
        let mut pages = HugePages::new(start - STILL);
        pages.note(SLOW / 2, start);
        assert!(pages.may(0, start));
        pages.note(SLOW, start);
        assert!(!pages.may(0, start + FIRST_REST - SECOND));
        assert!(pages.may(0, start + FIRST_REST));
        pages.note(SLOW, start);
        assert!(!pages.may(0, start + FIRST_REST * 2 - SECOND));
        (0..20).for_each(|_| pages.note(SLOW, start));
        assert!(pages.may(0, start + LONGEST_REST));
        pages.note(SLOW / 2, start);
        pages.note(SLOW, start);
        assert!(pages.may(0, start + FIRST_REST), "a quick one: the host has CPUs again");
    }
}
