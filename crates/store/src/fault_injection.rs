//! Crashes on demand: only in tests and with the feature `fault-injection`.
//!
//! Everywhere in the store a call of `point` stands before each store to shared memory. Armed for its n-th call on this thread, it
//! leaves the operation by unwinding, as if the process had died there: whatever runs while the stack unwinds leaves shared memory
//! as it is. So a test can stop an operation between any two of its stores, open the files anew and see what is found. In a process
//! that is armed with a plan (`tmem_faults`), the whole process dies there instead.

pub(crate) use tmem_faults::Point;

/// Whether any of this is compiled in. Where not, what is written in parts for its sake is written at once.
pub(crate) const IS_ENABLED: bool = cfg!(any(test, feature = "fault-injection"));

/// A place where a process may die: the next thing done is a store to shared memory.
#[inline(always)]
pub(crate) fn point(at: Point) {
    tmem_faults::pass(at);
    #[cfg(any(test, feature = "fault-injection"))]
    armed::point();
}

/// Whether this thread is unwinding out of a crash. Destructors leave shared memory alone then.
#[inline(always)]
pub(crate) fn is_crashed() -> bool {
    #[cfg(any(test, feature = "fault-injection"))]
    return armed::is_crashed();
    #[cfg(not(any(test, feature = "fault-injection")))]
    false
}

#[cfg(any(test, feature = "fault-injection"))]
pub use armed::{Outcome, crash_at};

/// Where a bit is turned over.
#[cfg(any(test, feature = "fault-injection"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// In the block of a page that is in memory.
    Arena,
    /// In the index entry of a page.
    Index,
}

#[cfg(any(test, feature = "fault-injection"))]
mod armed {
    use std::{
        cell::Cell,
        panic::{self, AssertUnwindSafe},
    };

    /// How some work ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Outcome<R> {
        /// It ran to its end, past so many places where it could have been stopped.
        Finished(R, u64),
        /// It was stopped.
        Crashed,
    }

    /// What the stack is unwound with.
    struct Crash;

    thread_local! {
        static POINTS: Cell<u64> = const { Cell::new(0) };
        static CRASH_AT: Cell<u64> = const { Cell::new(u64::MAX) };
        static CRASHED: Cell<bool> = const { Cell::new(false) };
    }

    /// Does some work on this thread and stops it before its store number `n`, counted from 0. All that would die with a process
    /// (the store, its clients and pools) has to be moved into `work`, so that it is dropped while the stack unwinds.
    pub fn crash_at<R>(n: u64, work: impl FnOnce() -> R) -> Outcome<R> {
        POINTS.set(0);
        CRASH_AT.set(n);
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        CRASH_AT.set(u64::MAX);
        CRASHED.set(false);
        match result {
            Ok(result) => Outcome::Finished(result, POINTS.get()),
            Err(payload) if payload.is::<Crash>() => Outcome::Crashed,
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    pub(super) fn point() {
        let n = POINTS.get();
        POINTS.set(n + 1);
        if n == CRASH_AT.get() {
            CRASHED.set(true);
            panic::resume_unwind(Box::new(Crash));
        }
    }

    pub(super) fn is_crashed() -> bool {
        CRASHED.get()
    }
}
