//! Tells the keeper every second that this worker is alive: that its threads get CPU, and that none has been at the same request for a while. It says
//! nothing as long as one has; how long the keeper puts up with that is its business.

use std::{
    fs, io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tmem_keeper::Estate;
use tmem_transport::vigil;

use crate::join::join;

const BEAT: Duration = Duration::from_secs(1);
/// A request that takes longer than this many beats is worth a line in the log, and worth the keeper's attention.
const SLOW_BEATS: u64 = 5;

/// The running thread. Dropping it ends it.
pub(crate) struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts the thread.
    pub(crate) fn start(estate: Arc<Estate>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
            let mut is_told = false;
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let Some(keeper) = estate.keeper() else { return };
                let slow = vigil::tick().filter(|stuck| stuck.ticks >= SLOW_BEATS);
                match slow {
                    // The socket is full or the keeper gone; whichever it is, it will be seen elsewhere.
                    None => drop(keeper.beat()),
                    Some(stuck) if !is_told => {
                        let name = fs::read_to_string(format!("/proc/self/task/{}/comm", stuck.thread));
                        let name = name.as_deref().unwrap_or("?").trim();
                        log::warn!("thread {name} has been at one request for {} seconds", stuck.ticks);
                    }
                    Some(_) => {}
                }
                is_told = slow.is_some();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        join(&mut self.thread, "heartbeat");
    }
}
