//! When a thread polls and when it sleeps.
//!
//! The idea is that of the halt polling of Linux KVM: the gap between two requests that was just seen tells
//! how long it is worth looking for the next. Gaps shorter than the limit make the window grow at once to a
//! multiple of the gap. Gaps longer than the limit, which no window could have covered, shrink it quickly,
//! so that a guest which asks rarely costs no CPU beyond its requests.
//!
//! A window that passed in vain never makes the next one longer. On a busy machine the guest may be waiting
//! for the very CPU that the thread polls on. The gap is then as long as the window, and growing with it
//! would soon have the thread poll for the whole limit before each request.

/// The window is this many times the gap: gaps vary, and a miss costs a wake-up.
const GROWTH: u32 = 4;
/// A gap beyond the limit divides the window by this.
const SHRINK: u32 = 4;
/// A window that passed in vain, though the gap was within the limit, is divided by this.
const VAIN_SHRINK: u32 = 2;
/// Windows below this are not worth the bookkeeping, in microseconds.
const MIN_WINDOW_US: u32 = 20;
/// A window far wider than the gaps narrows by this fraction per request.
const DECAY: u32 = 16;

/// The polling window of one thread.
#[derive(Debug, Default)]
pub struct PollPolicy {
    window_us: u32,
}

impl PollPolicy {
    /// How long to poll now, in microseconds. 0 = sleep at once.
    pub fn window_us(&self, limit_us: u32) -> u32 {
        self.window_us.min(limit_us)
    }

    /// A request came `gap_us` after the queue had run empty, whether the thread was polling or asleep.
    /// `in_vain`: it had polled, and given up before the request came.
    pub fn request_after(&mut self, gap_us: u32, in_vain: bool, limit_us: u32) {
        if gap_us > limit_us {
            self.shrink(SHRINK);
        } else if in_vain {
            self.shrink(VAIN_SHRINK);
        } else {
            let wanted_us = gap_us.saturating_mul(GROWTH).max(MIN_WINDOW_US).min(limit_us);
            self.window_us = wanted_us.max(self.window_us - self.window_us / DECAY);
        }
    }

    fn shrink(&mut self, divisor: u32) {
        self.window_us /= divisor;
        if self.window_us < MIN_WINDOW_US {
            self.window_us = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_US: u32 = 1000;

    #[test]
    fn sleeps_at_first_and_polls_after_a_short_gap() {
        let mut policy = PollPolicy::default();
        assert_eq!(policy.window_us(LIMIT_US), 0);
        policy.request_after(100, false, LIMIT_US);
        assert_eq!(policy.window_us(LIMIT_US), 400);
    }

    #[test]
    fn never_polls_longer_than_the_limit_of_the_moment() {
        let mut policy = PollPolicy::default();
        policy.request_after(900, false, LIMIT_US);
        assert_eq!(policy.window_us(LIMIT_US), LIMIT_US);
        assert_eq!(policy.window_us(50), 50);
        assert_eq!(policy.window_us(0), 0);
    }

    #[test]
    fn limit_zero_never_polls() {
        let mut policy = PollPolicy::default();
        for gap_us in [0, 1, 10, 1000] {
            policy.request_after(gap_us, false, 0);
            assert_eq!(policy.window_us(0), 0);
        }
    }

    #[test]
    fn rare_requests_end_polling_within_a_few() {
        let mut policy = PollPolicy::default();
        policy.request_after(900, false, LIMIT_US);
        let mut polled_us = 0;
        for _ in 0..10 {
            polled_us += policy.window_us(LIMIT_US);
            policy.request_after(50_000, false, LIMIT_US);
        }
        assert_eq!(policy.window_us(LIMIT_US), 0);
        assert!(polled_us < 2 * LIMIT_US, "{polled_us} us were polled in vain");
    }

    #[test]
    fn a_burst_after_a_pause_polls_again_at_its_second_gap() {
        let mut policy = PollPolicy::default();
        for _ in 0..10 {
            policy.request_after(50_000, false, LIMIT_US);
        }
        policy.request_after(30, false, LIMIT_US);
        assert_eq!(policy.window_us(LIMIT_US), 120);
    }

    /// The guest waits for the CPU that the thread polls on: each gap is the window and a little more.
    #[test]
    fn polling_in_the_guests_way_does_not_feed_itself() {
        let mut policy = PollPolicy::default();
        policy.request_after(100, false, LIMIT_US);
        let mut polled_us = 0;
        for _ in 0..100 {
            let window_us = policy.window_us(LIMIT_US);
            polled_us += window_us;
            policy.request_after(window_us + 10, window_us > 0, LIMIT_US);
        }
        assert!(polled_us < 100 * 30, "{polled_us} us were polled before 100 requests");
    }

    #[test]
    fn the_window_narrows_with_the_gaps() {
        let mut policy = PollPolicy::default();
        policy.request_after(250, false, LIMIT_US);
        assert_eq!(policy.window_us(LIMIT_US), 1000);
        for _ in 0..100 {
            policy.request_after(2, false, LIMIT_US);
        }
        assert_eq!(policy.window_us(LIMIT_US), MIN_WINDOW_US);
    }
}
