//! The stock: memory that was found before a put needs it.
//!
//! Some thread of the caller's finds the memory of extents, of index pages and of tables ahead, and puts take what is there. They never
//! ask the OS themselves: a put that finds nothing wakes the thread and waits for it, for as long as a disk write might take, and only
//! as long as the OS gives anything. A store without such a thread has the OS find memory as puts need it.

use std::{
    collections::VecDeque,
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::{
    ids::PoolId,
    sync::{AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, fence},
};

/// How long a put waits while the thread gets nothing of the OS. A disk with a full queue takes as long for a write. Where there is memory
/// an extent is found in a thousandth of it, but on a busy host the thread may lose its CPU for tens of milliseconds. Only the first put
/// waits: those that come later know.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long it waits in all: where everybody waits for a CPU, the thread has to get one, too.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// With so many extents found ahead a put takes one while the next are found: waking the thread takes as long as zeroing an extent,
/// some 60 us each, and the quickest writer fills one in 100.
pub(crate) const LEAST_EXTENTS: u32 = 4;

/// 8 MiB: what the quickest writers of eight CPUs use while the thread is woken and waits for a CPU for a millisecond.
const MOST_EXTENTS: u32 = 64;

/// The stock is at most this part of the limit, and two extents.
const PART_OF_LIMIT: u64 = 64;

/// Where puts have it refilled more often than that it is doubled: on a busy host the thread takes the CPU of the put that wakes it, so
/// it had better do so rarely. With four extents a put in a hundred waited for it.
const REFILL_AFTER: Duration = Duration::from_millis(20);

/// While puts take nothing for so long the stock is halved.
const SHRINK_EVERY: Duration = Duration::from_secs(1);

/// While the OS has nothing to give it is asked again so often.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Requests for pages that are remembered at one time; who is forgotten asks again.
const MOST_REQUESTS: usize = 1024;

/// How much is to be found ahead, and who waits for it.
#[derive(Debug)]
pub(crate) struct Stock {
    /// Whether a thread finds memory. Without one, puts have it found as they need it.
    is_kept: AtomicBool,
    /// The OS had none the last time, or did not find it in time. Nobody waits for it then.
    is_starved: AtomicBool,
    is_wanted: AtomicBool,
    /// A put had to wait for an extent since the target was last set.
    ran_out: AtomicBool,
    waiting: AtomicU32,
    /// Extents that are to be there.
    target: AtomicU32,
    /// Since when the thread has been asking the OS without getting anything, in microseconds since `born`; 0: it is not.
    asking_since_us: AtomicU64,
    born: Instant,
    /// How long puts wait in all, in microseconds.
    longest_wait_us: AtomicU32,
    state: Mutex<State>,
    wanted: Condvar,
    arrived: Condvar,
}

#[derive(Debug)]
struct State {
    requests: VecDeque<Request>,
    /// How often something came that puts waited for.
    arrivals: u64,
    last_taken: Instant,
    last_filled: Instant,
}

/// Pages that somebody needs or will need soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Of the index of a pool, or of the cells of shared blocks, from this one on.
    IndexPages { pool: PoolId, first: u32 },
    /// Of the tables of dedup domains.
    Tables,
}

/// How long a put goes on waiting. Begins when it first has to.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    until: Option<Instant>,
}

impl Stock {
    pub(crate) fn new() -> Self {
        Self {
            is_kept: AtomicBool::new(false),
            is_starved: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
            ran_out: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            target: AtomicU32::new(0),
            asking_since_us: AtomicU64::new(0),
            born: Instant::now(),
            longest_wait_us: AtomicU32::new(LONGEST_WAIT.as_micros() as u32),
            state: Mutex::new(State {
                requests: VecDeque::with_capacity(MOST_REQUESTS),
                arrivals: 0,
                last_taken: Instant::now(),
                last_filled: Instant::now(),
            }),
            wanted: Condvar::new(),
            arrived: Condvar::new(),
        }
    }

    /// Whether puts leave finding memory to a thread.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// From now on puts leave finding memory to a thread, or do it themselves again.
    pub(crate) fn set_kept(&self, is_kept: bool) {
        if self.is_kept.swap(is_kept, Ordering::SeqCst) != is_kept {
            let _state = self.lock();
            self.target.store(0, Ordering::Relaxed);
            self.is_starved.store(false, Ordering::Relaxed);
            self.is_wanted.store(true, Ordering::Relaxed);
            self.wanted.notify_all();
            self.arrived.notify_all();
        }
    }

    /// Extents that are to be there.
    pub(crate) fn target(&self) -> u32 {
        self.target.load(Ordering::Relaxed)
    }

    /// Sets how many extents are to be there, by what happened since this was last called: more if puts had to wait or take
    /// much, fewer if nothing was taken for a while. True: it may be time to give some back.
    pub(crate) fn set_target(
        &self,
        limit_bytes: u64,
        extent_bytes: u64,
        taken: u32,
        is_in_use: bool,
    ) -> bool {
        if !is_in_use {
            self.target.store(0, Ordering::Relaxed);
            return true;
        }
        let most = (limit_bytes / PART_OF_LIMIT / extent_bytes).clamp(2, u64::from(MOST_EXTENTS)) as u32;
        let least = LEAST_EXTENTS.min(most);
        let (mut state, mut target) = (self.lock(), self.target());
        let is_idle = taken == 0 && state.last_taken.elapsed() >= SHRINK_EVERY;
        let is_busy = taken > 0 && state.last_filled.elapsed() < REFILL_AFTER;
        state.last_filled = Instant::now();
        if self.ran_out.swap(false, Ordering::Relaxed) || is_busy {
            target = target.saturating_mul(2);
        } else if is_idle {
            target /= 2;
            state.last_taken = Instant::now();
        }
        if taken > 0 {
            state.last_taken = Instant::now();
        }
        self.target.store(target.clamp(least, most), Ordering::Relaxed);
        is_idle
    }

    /// Says that a put found no extent, so that more are found ahead from now on.
    pub(crate) fn note_shortage(&self) {
        self.ran_out.store(true, Ordering::Relaxed);
    }

    /// Wakes the thread: the stock is low.
    pub(crate) fn want(&self) {
        if self.is_kept() && !self.is_wanted.swap(true, Ordering::AcqRel) {
            let _state = self.lock();
            self.wanted.notify_one();
        }
    }

    /// Asks the thread for pages.
    pub(crate) fn request(&self, request: Request) {
        if !self.is_kept() {
            return;
        }
        let mut state = self.lock();
        if state.requests.len() < MOST_REQUESTS && !state.requests.contains(&request) {
            state.requests.push_back(request);
        }
        self.is_wanted.store(true, Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// What was asked for longest ago.
    pub(crate) fn next_request(&self) -> Option<Request> {
        self.lock().requests.pop_front()
    }

    /// Returns when something is wanted, or after `time`. While the OS has nothing to give it is no use to be asked, so it takes all
    /// of `time` then.
    pub(crate) fn wait_for_want(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while self.is_kept() {
            let can_give = !self.is_starved();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || can_give && self.is_wanted.load(Ordering::Relaxed) {
                break;
            }
            if !can_give && left > ASK_AGAIN_AFTER {
                // A put gave up waiting. Whether the OS has none is only known when it was asked again.
                drop(
                    self.wanted.wait_timeout(state, ASK_AGAIN_AFTER).unwrap_or_else(PoisonError::into_inner),
                );
                break;
            }
            let waited = self.wanted.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    /// Says that the thread begins to ask the OS for memory, or goes on with that.
    pub(crate) fn note_asking(&self) {
        self.asking_since_us.store(self.now_us().max(1), Ordering::Relaxed);
    }

    /// Says that the thread is not asking any more.
    pub(crate) fn note_asked(&self) {
        self.asking_since_us.store(0, Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        self.born.elapsed().as_micros() as u64
    }

    /// How long it makes sense to wait for the thread yet, as far as is known. Zero: it is stuck.
    fn patience(&self) -> Duration {
        match self.asking_since_us.load(Ordering::Relaxed) {
            0 => PATIENCE, // it has yet to get a CPU
            since_us => {
                PATIENCE.saturating_sub(Duration::from_micros(self.now_us().saturating_sub(since_us)))
            }
        }
    }

    /// Says that something was found or has become free.
    pub(crate) fn note_arrival(&self) {
        // Either whoever waits sees what arrived, or this sees that somebody waits.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.lock().arrivals += 1;
            self.arrived.notify_all();
        }
    }

    /// Says that the thread has looked at all that was wanted: who waits for what there is no room for learns that nothing will come.
    pub(crate) fn note_round(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            let _state = self.lock();
            self.arrived.notify_all();
        }
    }

    /// Whether the OS has nothing to give.
    pub(crate) fn is_starved(&self) -> bool {
        self.is_starved.load(Ordering::Relaxed)
    }

    pub(crate) fn set_starved(&self, is_starved: bool) {
        if self.is_starved.swap(is_starved, Ordering::Relaxed) != is_starved && is_starved {
            let _state = self.lock();
            self.arrived.notify_all();
        }
    }

    /// Waits until something is there, for as long as the put has patience. False: it is not, and a put does without.
    pub(crate) fn wait(&self, patience: &mut Patience, is_there: impl Fn() -> bool) -> bool {
        let longest_wait = Duration::from_micros(self.longest_wait_us.load(Ordering::Relaxed).into());
        let now = Instant::now();
        let until = *patience.until.get_or_insert(now + longest_wait);
        if now > until {
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.want();
        let mut state = self.lock();
        let arrivals = state.arrivals;
        let came = loop {
            if is_there() {
                break true;
            }
            if self.is_starved() || !self.is_kept() {
                break false;
            }
            let left = until.saturating_duration_since(Instant::now()).min(self.patience());
            if left.is_zero() {
                // If nothing came at all, others need not wait in vain as well, until the thread has found something.
                if state.arrivals == arrivals {
                    self.is_starved.store(true, Ordering::Relaxed);
                    self.arrived.notify_all();
                }
                break false;
            }
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(state);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        came
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has puts not wait at all.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn forgo_waiting(&self) {
        self.longest_wait_us.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    /// A stock whose thread has nothing to do just now. Nobody's time runs out.
    fn stock() -> Arc<Stock> {
        let stock = Stock::new();
        stock.longest_wait_us.store(u32::MAX, Ordering::Relaxed);
        stock.set_kept(true);
        stock.wait_for_want(Duration::ZERO);
        Arc::new(stock)
    }

    const LONG: Duration = Duration::from_secs(3600);

    /// The thread finds what a put waits for: nobody sleeps through it, or for ever.
    #[test]
    fn r5_puts_and_the_thread_wake_each_other() {
        loom::model(|| {
            let stock = stock();
            let found = Arc::new(AtomicU32::new(0));
            let put = {
                let (stock, found) = (stock.clone(), found.clone());
                thread::spawn(move || {
                    assert!(stock.wait(&mut Patience::default(), || found.load(Ordering::Acquire) == 1));
                })
            };
            let finder = {
                let (stock, found) = (stock.clone(), found.clone());
                thread::spawn(move || {
                    stock.wait_for_want(LONG);
                    found.store(1, Ordering::Release);
                    stock.note_arrival();
                })
            };
            put.join().unwrap();
            finder.join().unwrap();
        });
    }

    /// The keeper ends while a put waits: the put and the thread both go on.
    #[test]
    fn r5_nobody_waits_for_a_thread_that_has_ended() {
        loom::model(|| {
            let stock = stock();
            let put = {
                let stock = stock.clone();
                thread::spawn(move || assert!(!stock.wait(&mut Patience::default(), || false)))
            };
            stock.set_kept(false);
            stock.wait_for_want(LONG);
            put.join().unwrap();
        });
    }
}
