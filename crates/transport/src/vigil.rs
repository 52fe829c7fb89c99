//! Knows since when each thread of the data plane has been at the same request, so that one that hangs is noticed.
//!
//! Time is counted in ticks of whoever watches: a thread that begins notes the tick, which costs it two stores and no look at a clock.

use std::{
    cell::OnceCell,
    marker::PhantomData,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a thread that is at nothing has noted. Ticks begin at 1.
const IDLE: u64 = 0;

static TICK: AtomicU64 = AtomicU64::new(1);
static THREADS: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: OnceCell<Arc<Thread>> = const { OnceCell::new() };
}

#[derive(Debug)]
struct Thread {
    id: libc::pid_t,
    since: AtomicU64,
}

/// A thread is at a request for as long as this lives.
#[derive(Debug)]
pub struct AtWork(PhantomData<*const ()>);

/// A thread waits for its client for as long as this lives: that is no fault of its own.
#[derive(Debug)]
pub struct Waiting {
    was_at_work: bool,
    _of_this_thread: PhantomData<*const ()>,
}

/// A thread that has been at the same request for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its id.
    pub thread: i32,
    /// For how many whole ticks.
    pub ticks: u64,
}

/// Has the calling thread watched. It is watched from its first request anyway; this is for those that must not ask for memory then.
pub fn enter() {
    with_own(|_| {});
}

/// The calling thread begins with a request. One that it is at already goes on.
pub fn begin() -> AtWork {
    with_own(|own| own.since.store(TICK.load(Ordering::Relaxed), Ordering::Relaxed));
    AtWork(PhantomData)
}

/// The calling thread begins to wait for its client, in the middle of a request or not.
pub fn wait() -> Waiting {
    let mut was_at_work = false;
    with_own(|own| was_at_work = own.since.swap(IDLE, Ordering::Relaxed) != IDLE);
    Waiting { was_at_work, _of_this_thread: PhantomData }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.was_at_work {
            with_own(|own| own.since.store(TICK.load(Ordering::Relaxed), Ordering::Relaxed));
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        with_own(|own| own.since.store(IDLE, Ordering::Relaxed));
    }
}

/// Lets a tick pass. Gives the thread that has been at a request for the longest time, if it was for a whole tick.
pub fn tick() -> Option<Stuck> {
    let now = TICK.fetch_add(1, Ordering::Relaxed);
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut longest: Option<Stuck> = None;
    threads.retain(|thread| {
        let Some(thread) = thread.upgrade() else { return false };
        let since = thread.since.load(Ordering::Relaxed);
        let ticks = now.saturating_sub(since);
        if since != IDLE && ticks > longest.map_or(0, |longest| longest.ticks) {
            longest = Some(Stuck { thread: thread.id, ticks });
        }
        true
    });
    longest
}

/// Nothing happens in a thread that is ending.
fn with_own(act: impl FnOnce(&Thread)) {
    let _ending = OWN.try_with(|own| {
        act(own.get_or_init(|| {
            // SAFETY: takes nothing and cannot fail.
            let own = Arc::new(Thread { id: unsafe { libc::gettid() }, since: AtomicU64::new(IDLE) });
            THREADS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&own));
            own
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// One test, because there is one clock.
    #[test]
    fn a_thread_that_stays_at_a_request_is_found_and_no_other() {
        assert_eq!(tick(), None);
        let (go, turn) = mpsc::channel::<()>();
        let (here, there) = mpsc::channel();
        let stuck = std::thread::spawn(move || {
            let at_work = begin();
            // SAFETY: takes nothing and cannot fail.
            here.send(unsafe { libc::gettid() }).unwrap();
            turn.recv().unwrap();
            drop(at_work);
            here.send(0).unwrap();
            turn.recv().unwrap();
        });
        let thread = there.recv().unwrap();
        assert_eq!(tick(), None, "not a whole tick yet");
        for ticks in 1..4 {
            let at_work = begin();
            drop(wait());
            let waiting = wait();
            drop(at_work);
            drop(waiting);
            drop(begin());
            assert_eq!(tick(), Some(Stuck { thread, ticks }));
        }
        go.send(()).unwrap();
        there.recv().unwrap();
        assert_eq!(tick(), None);
        go.send(()).unwrap();
        stuck.join().unwrap();
        tick();
        let left = THREADS.lock().unwrap().iter().filter(|thread| thread.upgrade().is_some()).count();
        assert_eq!(left, 1, "threads that have ended are forgotten");
    }
}
