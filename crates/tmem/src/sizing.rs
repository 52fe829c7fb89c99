//! The thread that keeps the pool as large as the host can spare.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tmem_control::{HostMemory, Knobs, PoolSizing, look_within};
use tmem_store::Store;

use crate::{join::join, maintenance::Waker, own_swap::OwnSwap};

/// While a pool that holds next to nothing stays as it is, there is nothing to give back; nor is there while its size is fixed. The host
/// is looked at no more often than this then.
const LOOK_EVERY_IDLE: Duration = Duration::from_secs(1);
const NEXT_TO_NOTHING_BYTES: u64 = 16 << 20;

/// The running thread. Dropping it ends the thread.
pub(crate) struct Sizing {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sizing {
    /// Starts the thread, which has the waker's thread make room when the pool is to give something back. As long as the pool's size is
    /// fixed it does nothing. A pool that is the host's own swap may take half of the host whatever is available.
    pub(crate) fn start(
        store: Arc<Store>,
        knobs: Arc<Knobs>,
        mut rule: PoolSizing,
        own_swap: OwnSwap,
        waker: Waker,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("sizing".to_owned()).spawn(move || {
            let (start, mut can_see, mut wait, mut held_before) = (Instant::now(), true, knobs.reaction(), 0);
            let mut is_fixed = false;
            let mut asked: Option<Instant> = None;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let held_bytes = store.held_bytes();
                let reaction = knobs.reaction();
                wait = reaction;
                match HostMemory::read() {
                    Ok(host) => {
                        rule.set_own_swap(own_swap.is_possible(), &host);
                        let limit_bytes = knobs.size_pool(&mut rule, &host, start.elapsed());
                        is_fixed = limit_bytes.is_none();
                        let is_over = !is_fixed && store.is_over_limit();
                        // Those who were asked go on by themselves as long as there is something to gain.
                        if is_over && asked.is_none_or(|asked| asked.elapsed() >= reaction) {
                            asked = Some(Instant::now());
                            waker.wake();
                            store.wake_write_back();
                        } else if !is_over {
                            asked = None;
                        }
                        wait = look_within(&host, reaction);
                        can_see = true;
                    }
                    // Without knowing the host the limit stays; once is enough to say so.
                    Err(error) if can_see => {
                        log::error!("the pool keeps its size: {error}");
                        can_see = false;
                    }
                    Err(_) => {}
                }
                let is_idle = held_bytes == held_before && held_bytes <= NEXT_TO_NOTHING_BYTES;
                wait = if is_idle || is_fixed { reaction.max(LOOK_EVERY_IDLE) } else { wait };
                held_before = held_bytes;
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sizing {
    fn drop(&mut self) {
        drop(self.stop.take());
        join(&mut self.thread, "sizing");
    }
}
