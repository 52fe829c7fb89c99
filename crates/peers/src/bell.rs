//! Something to sleep by that others can ring.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Rung by those who have work for a thread, heard by that thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    is_rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.is_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Sleeps until it rings, so long at most. If it has rung since the last time, not at all.
    pub(crate) fn sleep(&self, most: Duration) {
        let is_rung = self.is_rung.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.heard.wait_timeout_while(is_rung, most, |is_rung| !*is_rung);
        *slept.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}
