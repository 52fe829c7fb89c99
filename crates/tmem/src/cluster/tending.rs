//! What is done once a second: lending is told of the reserve, which is a knob, and those who know who is in the cluster of how much is lent.

use std::{
    io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tmem_control::Knobs;
use tmem_membership::Running;
use tmem_peers::LendingServer;

use super::idle_memory;
use crate::join::join;

const EVERY: Duration = Duration::from_secs(1);

/// Membership, and the thread.
pub(super) struct Tending {
    /// `None`: it has left.
    membership: Arc<Mutex<Option<Running>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tending {
    pub(super) fn start(
        membership: Running,
        lending: Arc<OnceLock<LendingServer>>,
        knobs: Arc<Knobs>,
    ) -> io::Result<Self> {
        let membership = Arc::new(Mutex::new(Some(membership)));
        let mut tending = Self { membership: Arc::clone(&membership), stop: None, thread: None };
        let (stop, stopped) = mpsc::channel::<()>();
        tending.stop = Some(stop);
        tending.thread = Some(thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Some(lending) = lending.get() {
                    if let Some(bytes) = idle_memory::reserve_bytes(&knobs) {
                        lending.set_reserve_bytes(bytes);
                    }
                    if let Some(running) = &*membership.lock().unwrap_or_else(PoisonError::into_inner) {
                        running.set_free_bytes(lending.free_bytes());
                    }
                }
            }
        })?);
        Ok(tending)
    }

    /// Others are told how much is lent.
    pub(super) fn set_free_bytes(&self, bytes: u64) {
        if let Some(running) = &*self.membership.lock().unwrap_or_else(PoisonError::into_inner) {
            running.set_free_bytes(bytes);
        }
    }

    /// What is wrong with membership at present.
    pub(super) fn trouble(&self) -> Option<String> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.trouble()
    }

    /// The node is in the cluster no more.
    pub(super) fn leave(&self) {
        let running = self.membership.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.leave();
        }
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        drop(self.stop.take());
        join(&mut self.thread, "cluster");
    }
}
