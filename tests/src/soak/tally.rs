//! What clients saw.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// So many lines are printed of what went wrong.
const SHOWN: u64 = 40;

/// Counts of all clients of a daemon.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) compared_pages: AtomicU64,
    pub(super) written_pages: AtomicU64,
    pub(super) refused_puts: AtomicU64,
    pub(super) reconnects: AtomicU64,
    /// Errors that were told: bits, torn copies, a disk that failed once.
    pub(super) flipped: AtomicU64,
    pub(super) torn: AtomicU64,
    pub(super) unavailable: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) wrong: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Tally {
    /// A write is not there any more.
    pub(super) fn lost(&self, what: &str) {
        add(&self.lost);
        self.complain(what);
    }

    /// Bytes are not those that were written.
    pub(super) fn wrong(&self, what: &str) {
        add(&self.wrong);
        self.complain(what);
    }

    fn complain(&self, what: &str) {
        if self.lost.load(Relaxed) + self.wrong.load(Relaxed) <= SHOWN {
            println!("!!! {what}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        write!(
            f,
            "{} pages compared, {} written, {} puts refused, {} connections lost; errors expected: {} flipped, {} torn, {} failed reads; \
             {} lost, {} wrong",
            of(&self.compared_pages),
            of(&self.written_pages),
            of(&self.refused_puts),
            of(&self.reconnects),
            of(&self.flipped),
            of(&self.torn),
            of(&self.unavailable),
            of(&self.lost),
            of(&self.wrong),
        )
    }
}
