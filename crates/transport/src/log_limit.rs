//! Keeps a peer from filling the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One line per this time and kind of event.
const INTERVAL: Duration = Duration::from_secs(5);

/// Lets one event through per interval and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    hidden: u64,
}

impl LogLimit {
    /// Whether this event may be logged; if so, how many before it were not.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        // The state is two plain values: it is whole even if another thread died holding the lock.
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.hidden += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_with_the_number_left_out() {
        let limit = LogLimit::default();
        let start = Instant::now();
        assert_eq!(limit.admit(start), Some(0));
        for _ in 0..3 {
            assert_eq!(limit.admit(start + INTERVAL / 2), None);
        }
        assert_eq!(limit.admit(start + INTERVAL), Some(3));
        assert_eq!(limit.admit(start + 2 * INTERVAL), Some(0));
    }
}
