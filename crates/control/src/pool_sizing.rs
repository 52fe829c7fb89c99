//! How a pool sizes itself: by what the host has left.

use std::time::Duration;

use tmem_store::{MAX_LIMIT_BYTES, MIN_LIMIT_BYTES};

use crate::HostMemory;

/// When some task waited for memory for more than this part of the time, the host is short of it, whatever it calls available: what
/// is in its page cache is in use.
const MOST_STALLED_PART: u32 = 10;

/// So far back that is looked at: a stall shorter than a tenth of it is nothing.
const STALL_WINDOW: Duration = Duration::from_secs(1);

/// So fast may programs take memory: a few threads that touch fresh pages, of real hardware.
const FASTEST_BYTES_PER_S: u64 = 4 << 30;

/// Between two looks at the host they may take this part of what it has available.
const PART_BETWEEN_LOOKS: u64 = 2;

/// A look costs 30 us, so more often than this it takes a noticeable part of a CPU.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(10);

/// When to look at the host again, that a pool has begun to give back before the last of it is taken: after `longest`, or sooner where
/// little is left.
pub fn look_within(host: &HostMemory, longest: Duration) -> Duration {
    let part =
        Duration::from_micros(host.available_bytes / PART_BETWEEN_LOOKS / (FASTEST_BYTES_PER_S / 1_000_000));
    part.max(LOOK_AT_MOST_EVERY).min(longest)
}

/// The rule, and what it remembers of the host.
#[derive(Debug)]
pub struct PoolSizing {
    reserve_bytes: u64,
    ceiling_bytes: u64,
    /// However little the host has, the pool may hold so much.
    floor_bytes: u64,
    /// Stalls so far, and when, at the beginning of the window.
    window: Option<(Duration, Duration)>,
    is_stalled: bool,
}

impl PoolSizing {
    /// A pool that leaves so much to the host.
    pub fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, ceiling_bytes: u64::MAX, floor_bytes: 0, window: None, is_stalled: false }
    }

    /// Changes what is left to the host.
    pub fn set_reserve_bytes(&mut self, reserve_bytes: u64) {
        self.reserve_bytes = reserve_bytes;
    }

    /// Changes how far the pool may grow, whatever the host has.
    pub fn set_ceiling_bytes(&mut self, ceiling_bytes: u64) {
        self.ceiling_bytes = ceiling_bytes;
    }

    /// The pool is the host's own swap, or is not any more. If it is, it may take half of the host's memory whatever is available: it is
    /// just when nothing is that the host swaps, and a page that is swapped out frees more than it takes.
    pub fn set_own_swap(&mut self, is_own_swap: bool, host: &HostMemory) {
        self.floor_bytes = if is_own_swap { host.total_bytes / 2 } else { 0 };
    }

    /// The limit of a pool that holds so much, on a host that is so at `now` (of any clock that only goes forward).
    ///
    /// What the host has available beyond the reserve the pool may take; what the reserve lacks it is to give back. While the host's
    /// tasks wait for memory the pool does not grow.
    pub fn limit_bytes(&mut self, host: &HostMemory, held_bytes: u64, now: Duration) -> u64 {
        self.note_stalls(host.stalled, now);
        let limit = (held_bytes + host.available_bytes).saturating_sub(self.reserve_bytes);
        let limit = if self.is_stalled { limit.min(held_bytes) } else { limit };
        limit.max(self.floor_bytes).min(self.ceiling_bytes).clamp(MIN_LIMIT_BYTES, MAX_LIMIT_BYTES)
    }

    fn note_stalls(&mut self, stalled: Option<Duration>, now: Duration) {
        let Some(stalled) = stalled else { return };
        let (stalled_then, then) = *self.window.get_or_insert((stalled, now));
        let (waited, passed) = (stalled.saturating_sub(stalled_then), now.saturating_sub(then));
        if waited * MOST_STALLED_PART > STALL_WINDOW {
            self.is_stalled = true;
        } else if passed >= STALL_WINDOW {
            self.is_stalled = false;
        }
        if passed >= STALL_WINDOW {
            self.window = Some((stalled, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn host(available_mib: u64, stalled_ms: u64) -> HostMemory {
        HostMemory {
            total_bytes: 4096 * MIB,
            available_bytes: available_mib * MIB,
            stalled: Some(Duration::from_millis(stalled_ms)),
        }
    }

    #[test]
    fn what_is_idle_may_be_taken_and_what_the_reserve_lacks_is_given_back() {
        let mut sizing = PoolSizing::new(256 * MIB);
        let mut limit =
            |available, held| sizing.limit_bytes(&host(available, 0), held * MIB, Duration::ZERO) / MIB;
        assert_eq!(limit(3000, 0), 2744);
        assert_eq!(limit(1000, 2000), 2744, "what the pool took is not available any more");
        assert_eq!(limit(256, 2744), 2744);
        assert_eq!(limit(200, 2744), 2688, "somebody else wants memory");
        assert_eq!(limit(0, 100), 1, "never less than a store can have");
    }

    #[test]
    fn where_little_is_left_the_host_is_looked_at_more_often() {
        let wait = |available_mib, longest_ms| {
            look_within(&host(available_mib, 0), Duration::from_millis(longest_ms)).as_millis()
        };
        assert_eq!((wait(4000, 100), wait(256, 100), wait(64, 100), wait(0, 100)), (100, 31, 10, 10));
        assert_eq!((wait(4000, 10), wait(0, 10), wait(4000, 10_000)), (10, 10, 488));
    }

    #[test]
    fn the_ceiling_holds_however_much_is_idle() {
        let mut sizing = PoolSizing::new(256 * MIB);
        sizing.set_ceiling_bytes(500 * MIB);
        let mut limit = |available| sizing.limit_bytes(&host(available, 0), 0, Duration::ZERO) / MIB;
        assert_eq!((limit(3000), limit(700), limit(0)), (500, 444, 1));
    }

    #[test]
    fn the_hosts_own_swap_may_take_half_of_it() {
        let mut sizing = PoolSizing::new(256 * MIB);
        let host = host(100, 0);
        sizing.set_own_swap(true, &host);
        assert_eq!(sizing.limit_bytes(&host, 1000 * MIB, Duration::ZERO) / MIB, 2048);
        assert_eq!(sizing.limit_bytes(&host, 3000 * MIB, Duration::ZERO) / MIB, 2844);
        sizing.set_own_swap(false, &host);
        assert_eq!(sizing.limit_bytes(&host, 1000 * MIB, Duration::ZERO) / MIB, 844);
    }

    #[test]
    fn while_tasks_wait_for_memory_the_pool_does_not_grow() {
        let mut sizing = PoolSizing::new(256 * MIB);
        let mut limit = |stalled_ms, now_ms| {
            sizing.limit_bytes(&host(1256, stalled_ms), 1000 * MIB, Duration::from_millis(now_ms)) / MIB
        };
        assert_eq!(limit(5000, 0), 2000, "what was before does not count");
        assert_eq!(limit(5090, 500), 2000);
        assert_eq!(limit(5150, 600), 1000);
        assert_eq!(limit(5150, 1000), 1000);
        assert_eq!(limit(5160, 2000), 2000, "a second without much of it");
        assert_eq!(limit(5200, 2100), 2000);
    }

    proptest! {
        #[test]
        fn the_limit_never_takes_from_the_reserve(
            held in 0..1u64 << 42, available in 0..1u64 << 42, reserve in 0..1u64 << 42, stalled in 0..10_000u64,
        ) {
            let host = HostMemory { total_bytes: 1 << 42, available_bytes: available, stalled: Some(Duration::from_millis(stalled)) };
            let mut sizing = PoolSizing::new(reserve);
            for now in 0..3 {
                let limit = sizing.limit_bytes(&host, held, Duration::from_secs(now));
                prop_assert!((MIN_LIMIT_BYTES..=MAX_LIMIT_BYTES).contains(&limit));
                let grows_by = limit.saturating_sub(held.max(MIN_LIMIT_BYTES));
                prop_assert!(grows_by <= available.saturating_sub(reserve));
            }
        }
    }
}
