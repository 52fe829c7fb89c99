//! How often a worker may be started again.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

/// The stretch of time in which deaths are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// A worker that died sooner after its start than this is followed by another only after a pause of as long.
const SHORT_LIFE: Duration = Duration::from_millis(200);
/// The most deaths that can be counted.
pub(crate) const MAX_LIMIT: u32 = 1000;

/// What to do about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    StartAgain {
        after: Duration,
    },
    /// It would only die again.
    Hold,
}

/// The deaths of late.
#[derive(Debug)]
pub(crate) struct Restarts {
    limit: u32,
    deaths: ArrayVec<Instant, { MAX_LIMIT as usize }>,
}

impl Restarts {
    /// No more than `limit` deaths in a minute; 0 is any number.
    pub(crate) fn new(limit: u32) -> Restarts {
        Restarts { limit: limit.min(MAX_LIMIT), deaths: ArrayVec::new() }
    }

    /// A worker died `now` that was started at `started`.
    pub(crate) fn after_death(&mut self, started: Instant, now: Instant) -> Verdict {
        self.deaths.retain(|death| now.duration_since(*death) < WINDOW);
        if self.deaths.is_full() {
            self.deaths.remove(0);
        }
        self.deaths.push(now);
        if self.limit > 0 && self.deaths.len() >= self.limit as usize {
            return Verdict::Hold;
        }
        let after = if now.duration_since(started) < SHORT_LIFE { SHORT_LIFE } else { Duration::ZERO };
        Verdict::StartAgain { after }
    }

    /// Somebody has looked into it.
    pub(crate) fn forget(&mut self) {
        self.deaths.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_death_in_a_minute_is_the_last() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut restarts = Restarts::new(5);
        for death in [10, 20, 30, 40] {
            let verdict = restarts.after_death(at(death - 5), at(death));
            assert_eq!(verdict, Verdict::StartAgain { after: Duration::ZERO });
        }
        assert_eq!(restarts.after_death(at(45), at(50)), Verdict::Hold);
        restarts.forget();
        assert_ne!(restarts.after_death(at(55), at(60)), Verdict::Hold);
    }

    #[test]
    fn deaths_that_are_far_apart_do_not_add_up() {
        let start = Instant::now();
        let mut restarts = Restarts::new(5);
        for death in 1..100 {
            let now = start + Duration::from_secs(death * 16);
            assert_ne!(restarts.after_death(start, now), Verdict::Hold, "{death}");
        }
    }

    #[test]
    fn one_that_dies_at_once_is_not_followed_at_once() {
        let now = Instant::now();
        let verdict = Restarts::new(0).after_death(now, now);
        assert_eq!(verdict, Verdict::StartAgain { after: SHORT_LIFE });
    }

    #[test]
    fn without_a_limit_it_goes_on() {
        let mut restarts = Restarts::new(0);
        let now = Instant::now();
        for _ in 0..2 * MAX_LIMIT {
            assert_ne!(restarts.after_death(now, now), Verdict::Hold);
        }
    }
}
