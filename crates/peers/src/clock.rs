//! A clock that nobody sets.

use std::time::{Duration, Instant};

/// Milliseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long ago that was.
    pub(crate) fn since_ms(self, then_ms: u64) -> Duration {
        self.0.elapsed().saturating_sub(Duration::from_millis(then_ms))
    }
}
