//! What goes wrong on purpose, in builds with the feature `fault-injection`: the plan in `TMEM_FAULTS`, and threads that damage pages.

use std::{
    env, io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use tmem_faults::{Armed, Plan};
use tmem_store::{Store, fault_injection::Flip};

const VARIABLE: &str = "TMEM_FAULTS";

/// The plan that this daemon was given. Without one nothing goes wrong.
pub(crate) fn plan() -> Result<Option<Plan>> {
    let Some(text) = env::var_os(VARIABLE) else { return Ok(None) };
    let text = text.to_str().with_context(|| format!("{VARIABLE} is no text"))?;
    Ok(Some(text.parse().with_context(|| format!("{VARIABLE}={text}"))?))
}

/// From here on things go wrong. What, depends on how many workers died before this one.
pub(crate) fn arm(deaths: u32) -> Result<()> {
    if let Some(plan) = plan()? {
        log::warn!("this daemon damages data on purpose: {VARIABLE}={plan}, after {deaths} deaths");
        Armed::arm(plan, deaths);
    }
    Ok(())
}

/// The threads that turn bits over. Dropping it ends them.
pub(crate) struct Damage {
    threads: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Damage {
    pub(crate) fn start(store: &Arc<Store>) -> io::Result<Self> {
        let (arena, index) = tmem_faults::flips();
        let mut threads = Vec::new();
        for (flip, name, every) in [(Flip::Arena, "flip-arena", arena), (Flip::Index, "flip-index", index)] {
            let Some(every) = every else { continue };
            let (end, ends) = mpsc::channel();
            let store = Arc::clone(store);
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
                while ends.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    flip_one(&store, flip, name);
                }
            })?;
            threads.push((end, thread));
        }
        Ok(Self { threads })
    }
}

fn flip_one(store: &Store, flip: Flip, name: &str) {
    store.flip(flip, tmem_faults::random, |pool, page| {
        tmem_faults::say(format_args!("{name}: pool={} page={}", pool.0, page.0));
    });
}

impl Drop for Damage {
    fn drop(&mut self) {
        for (end, thread) in self.threads.drain(..) {
            drop(end);
            let _ = thread.join(); // it has nothing to leave behind
        }
    }
}
