//! Whether what a guest said is of now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Statistics that are older say nothing of the guest as it is: it is asked every two seconds.
const STALE: Duration = Duration::from_secs(15);

/// Knows what was there before.
#[derive(Default)]
pub(crate) struct Freshness {
    last: Duration,
    not_before: Duration,
}

impl Freshness {
    /// From here on the guest is asked. What it said before, when it was started perhaps, is old.
    pub(crate) fn begin(&mut self) {
        // Statistics have whole seconds.
        self.not_before = Duration::from_secs(now().as_secs());
    }

    /// Whether statistics of that moment, since 1970 by the host's clock, are others than before, and of now.
    pub(crate) fn is_new(&mut self, at: Duration) -> bool {
        // A clock that was set back makes nothing old.
        self.not_before = self.not_before.min(now());
        let is_new = at != self.last && at >= self.not_before && now().saturating_sub(at) < STALE;
        self.last = at;
        is_new
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_and_of_now_counts() {
        let now = now();
        let mut freshness = Freshness::default();
        assert!(!freshness.is_new(Duration::ZERO), "there were none yet");
        assert!(!freshness.is_new(now - Duration::from_secs(60)));
        assert!(freshness.is_new(now) && !freshness.is_new(now));
        assert!(freshness.is_new(now + Duration::from_secs(2)));
        assert!(
            freshness.is_new(Duration::from_secs(u64::MAX)),
            "a clock that is wrong is no reason to fail"
        );
    }
}
