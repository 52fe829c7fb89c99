//! The thread that moves pages to the tier and keeps the tier in order.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tmem_store::{Store, TierState, TierUsage, WriteBack};

use crate::{join::join, tiers::TendedTier};

/// How often the thread looks for pages that are old enough, cleans, and asks a tier that failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// While less than an eighth of the limit is free, it looks more often: puts should not have to wait for it.
const LOOK_OFTEN: Duration = Duration::from_millis(10);
const OFTEN_PART: u64 = 8;

/// After a round that gained nothing though somebody wants room.
const RETRY_AFTER: Duration = Duration::from_millis(2);

/// It works for so long before it looks at what else is to be done.
const WORK: Duration = Duration::from_millis(500);
const CLEANING: Duration = Duration::from_millis(100);

/// The running thread. Dropping it ends the thread.
pub(crate) struct WriteBackThread {
    store: Arc<Store>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBackThread {
    pub(crate) fn start(store: Arc<Store>, tiers: Vec<Arc<dyn TendedTier>>) -> io::Result<Self> {
        let ends = Arc::<AtomicBool>::default();
        let (there, ends_there) = (Arc::clone(&store), Arc::clone(&ends));
        let thread = thread::Builder::new().name("write-back".to_owned()).spawn(move || {
            run(&there, &tiers, &ends_there);
            there.end_write_back();
        })?;
        Ok(Self { store, ends, thread: Some(thread) })
    }
}

fn run(store: &Store, tiers: &[Arc<dyn TendedTier>], ends: &AtomicBool) {
    let mut log = StateLog::default();
    let (mut wait, mut looked) = (Duration::ZERO, Instant::now());
    while !ends.load(Ordering::Acquire) {
        let wanted = store.wait_until_write_back_is_wanted(wait);
        let done = store.write_back(WORK);
        note(&done);
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            tiers.iter().for_each(|tier| tier.probe());
            let cleaning = store.clean_tier(CLEANING);
            if cleaning.moved_pages > 0 {
                log::debug!(
                    "tier: {} pages moved, {} extents emptied",
                    cleaning.moved_pages,
                    cleaning.emptied_extents
                );
            }
            log.look(store.tier_usage());
        }
        wait = pause(store, &done, wanted);
    }
}

fn note(done: &WriteBack) {
    if done.written_back_pages > 0 {
        log::debug!("write-back: {} pages, {} extents", done.written_back_pages, done.written_extents);
    }
}

/// How long to wait before the next round, if nobody wants room before.
fn pause(store: &Store, done: &WriteBack, wanted: bool) -> Duration {
    if wanted && done.written_back_pages == 0 {
        // Whoever waits was told that there is no room. It has yet to get a CPU to hear of it.
        thread::sleep(RETRY_AFTER);
    }
    if done.blocked {
        return LOOK_EVERY;
    }
    let limit_bytes = store.limit_bytes();
    let is_filling = store.held_bytes() + limit_bytes / OFTEN_PART > limit_bytes;
    if done.more {
        Duration::ZERO
    } else if is_filling {
        LOOK_OFTEN
    } else {
        LOOK_EVERY
    }
}

/// Says once what becomes of the tier.
#[derive(Default)]
struct StateLog {
    last: Option<TierState>,
}

impl StateLog {
    fn look(&mut self, usage: Option<TierUsage>) {
        let Some(usage) = usage.filter(|usage| self.last.as_ref() != Some(&usage.state)) else { return };
        let (name, state) = (&usage.name, usage.state.as_str());
        let trouble = usage.trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        match usage.state {
            TierState::Ready => log::info!("tier {name} is ready"),
            TierState::Full => log::warn!(
                "tier {name} is full{trouble}; puts are refused while the pool is full: give the tier more space or remove disks"
            ),
            TierState::ReadOnly | TierState::Missing | TierState::Failing => {
                log::error!(
                    "tier {name} is {state}{trouble}; no pages go there until that changes, and those in it may not come back"
                );
            }
        }
        self.last = Some(usage.state);
    }
}

impl Drop for WriteBackThread {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.store.wake_write_back();
        join(&mut self.thread, "write-back");
    }
}
