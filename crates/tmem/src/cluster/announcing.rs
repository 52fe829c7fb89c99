//! Tells those who know who is in the cluster how much this host lends.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tmem_membership::Running;
use tmem_peers::LendingServer;

use crate::join::join;

/// It is for people: nodes that are connected say so to each other.
const EVERY: Duration = Duration::from_secs(5);

/// Membership that is told of it.
pub(super) struct Announcing {
    /// `None`: it has left.
    membership: Arc<Mutex<Option<Running>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Announcing {
    pub(super) fn start(membership: Running, lending: Option<Arc<LendingServer>>) -> io::Result<Self> {
        let membership = Arc::new(Mutex::new(Some(membership)));
        let mut announcing = Self { membership: Arc::clone(&membership), stop: None, thread: None };
        if let Some(lending) = lending {
            let (stop, stopped) = mpsc::channel::<()>();
            announcing.stop = Some(stop);
            announcing.thread =
                Some(thread::Builder::new().name("announcing".to_owned()).spawn(move || {
                    while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                        if let Some(running) = &*membership.lock().unwrap_or_else(PoisonError::into_inner) {
                            running.set_free_bytes(lending.free_bytes());
                        }
                    }
                })?);
        }
        Ok(announcing)
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

impl Drop for Announcing {
    fn drop(&mut self) {
        drop(self.stop.take());
        join(&mut self.thread, "announcing");
    }
}
