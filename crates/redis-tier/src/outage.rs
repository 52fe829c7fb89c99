//! For how long a server that does not answer is waited for.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The first pause of a reader that waits, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Once nobody waits any more, so often a read is tried all the same.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Since when, if at all, reads fail.
pub(crate) struct Outage {
    patience: Duration,
    inner: Mutex<Option<Since>>,
}

#[derive(Clone, Copy)]
struct Since {
    first: Instant,
    last_try: Instant,
}

impl Outage {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, inner: Mutex::new(None) }
    }

    /// Whether a read is worth trying.
    pub(crate) fn may_try(&self) -> bool {
        match &mut *self.lock() {
            Some(since) if since.first.elapsed() >= self.patience => {
                let may = since.last_try.elapsed() >= TRY_EVERY;
                if may {
                    since.last_try = Instant::now();
                }
                may
            }
            _ => true,
        }
    }

    /// A read failed for the `tries`th time. How long to wait before the next; `None`: the patience is at an end.
    pub(crate) fn pause(&self, tries: u32) -> Option<Duration> {
        let now = Instant::now();
        let mut inner = self.lock();
        let since = inner.get_or_insert(Since { first: now, last_try: now });
        since.last_try = now;
        let pause = FIRST_PAUSE.saturating_mul(1 << tries.min(10)).min(LONGEST_PAUSE);
        (since.first.elapsed() + pause <= self.patience).then_some(pause)
    }

    /// A read came back.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Since>> {
        // One value.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wait_first_and_fail_at_once_later() {
        let patient = Outage::new(Duration::from_secs(1000));
        assert!(patient.may_try());
        assert_eq!(patient.pause(0), Some(FIRST_PAUSE));
        assert_eq!(patient.pause(30), Some(LONGEST_PAUSE));
        assert!(patient.may_try());
        let impatient = Outage::new(Duration::ZERO);
        assert!(impatient.may_try());
        assert_eq!(impatient.pause(0), None);
        assert!(!impatient.may_try(), "somebody has just tried");
        impatient.end();
        assert!(impatient.may_try());
    }
}
