//! How the tier is, and when it is worth another try.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tmem_store::{TierError, TierState};

/// Between two tries of a tier that does not work: a disk that comes back is found soon, and one that stays away costs next to nothing.
const RETRY: Duration = Duration::from_secs(1);

/// The state that something leads to, and what it was, for people.
pub type Trouble = (TierState, String);

/// The state, and what led to it. Logs its changes.
pub struct Health {
    name: String,
    inner: Mutex<Inner>,
}

struct Inner {
    state: TierState,
    trouble: Option<String>,
    retry_at: Instant,
}

impl Health {
    /// Of a tier that nobody has looked at.
    pub fn new(name: String) -> Self {
        let inner = Inner { state: TierState::Ready, trouble: None, retry_at: Instant::now() };
        Self { name, inner: Mutex::new(inner) }
    }

    /// What people call the tier.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is.
    pub fn state(&self) -> TierState {
        self.lock().state.clone()
    }

    /// What went wrong, if it does not work.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Something went wrong.
    pub fn fail(&self, (state, trouble): Trouble) {
        let mut inner = self.lock();
        if inner.state != state {
            log::warn!("tier {} is {}: {trouble}", self.name, state.as_str());
        }
        // What goes on failing is tried again all the same.
        let retry_at = match inner.state {
            TierState::Ready => Instant::now() + RETRY,
            _ => inner.retry_at,
        };
        *inner = Inner { state, trouble: Some(trouble), retry_at };
    }

    /// It works.
    pub fn recover(&self) {
        let mut inner = self.lock();
        if inner.state != TierState::Ready {
            log::info!("tier {} is ready again", self.name);
        }
        *inner = Inner { state: TierState::Ready, trouble: None, retry_at: Instant::now() };
    }

    /// Whether it does not work and was not tried for a while. Then it counts as tried now.
    pub fn is_due(&self) -> bool {
        let mut inner = self.lock();
        let now = Instant::now();
        let is_due = inner.state != TierState::Ready && inner.retry_at <= now;
        if is_due {
            inner.retry_at = now + RETRY;
        }
        is_due
    }

    /// What to tell somebody who wanted something of it.
    pub fn refusal(&self) -> TierError {
        let inner = self.lock();
        let state = inner.state.as_str();
        let trouble = inner.trouble.as_deref().unwrap_or("try again");
        TierError::Unavailable(format!("the tier {} is {state}: {trouble}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two of its changes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_failing_is_tried_again_all_the_same() {
        let health = Health::new("t".to_owned());
        let trouble = || (TierState::Failing, "it fails".to_owned());
        health.fail(trouble());
        assert!(!health.is_due(), "it has just failed");
        let deadline = Instant::now() + 20 * RETRY;
        while !health.is_due() {
            health.fail(trouble());
            assert!(Instant::now() < deadline, "it is never due");
            std::thread::sleep(Duration::from_millis(20));
        }
        health.recover();
        assert_eq!((health.state(), health.trouble()), (TierState::Ready, None));
    }
}
