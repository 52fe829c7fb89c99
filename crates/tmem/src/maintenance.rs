//! The background thread: compaction, then huge pages, within a fifth of one CPU.
//!
//! It runs at the priority of everything else: a put that needs room waits for the extent that is just being emptied, and with a lower
//! priority that took tens of milliseconds on a busy host instead of tens of microseconds.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tmem_store::Store;

/// How often the thread looks whether there is something to gain. Looking takes some microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Work and pause alternate as long as there is something to gain.
const WORK: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The running thread. Dropping it ends the thread.
pub(crate) struct Maintenance {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts the thread.
    pub(crate) fn start(store: Arc<Store>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("maintenance".to_owned()).spawn(move || {
            let mut wait = LOOK_EVERY;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let done = store.compact(WORK);
                let busy = done.emptied_extents > 0 || store.make_huge_page();
                wait = if busy { PAUSE } else { LOOK_EVERY };
                if done.emptied_extents > 0 {
                    log::debug!(
                        "compaction: {} pages moved, {} extents emptied",
                        done.moved_pages,
                        done.emptied_extents
                    );
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the maintenance thread panicked");
        }
    }
}
