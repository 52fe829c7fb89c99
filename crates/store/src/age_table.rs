//! A client's clock and epochs in the catalog's file, so that ages outlive the process.
//!
//! ```text
//! | running epoch + 1, 0 = none yet (8) | clock (8) | by epoch modulo 127: clock (8) and time (8) at which it began | not used |
//! ```
//!
//! A copy of what [`crate::ages`] goes by, written as it changes and read when a store is opened. Damage to it makes ages wrong, and
//! nothing else.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    fault_injection::{self, Point},
    memory_file::MemoryFile,
    stamp::EPOCHS,
};

/// What one client's table takes, in words of 8 bytes.
pub(crate) const AGE_TABLE_WORDS: usize = 256;

const EPOCH_AT: usize = 0;
const CLOCK_AT: usize = 1;
const BEGAN_AT: usize = 2;

/// A clock or an epoch beyond this was not reached by counting.
const MOST: u64 = 1 << 56;

/// Milliseconds of the host's monotonic clock, which goes on when a process ends.
pub(crate) type Milliseconds = u64;

/// Where an epoch began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beginning {
    pub(crate) clock: u64,
    pub(crate) time_ms: Milliseconds,
}

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) epoch: u64,
    pub(crate) clock: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct AgeTable {
    file: Arc<MemoryFile>,
    first_word: usize,
}

impl AgeTable {
    /// The table that starts at a word of the file.
    pub(crate) fn over(file: Arc<MemoryFile>, first_word: usize) -> Self {
        Self { file, first_word }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        fault_injection::point(Point::Ages);
        self.cells()[EPOCH_AT].store(0, Ordering::Release);
    }

    /// The running epoch and the clock. `None`: there is none, or it can't be right: the last `epochs` of them did not begin one after
    /// the other, up to now.
    pub(crate) fn running(&self, epochs: u64, now_ms: Milliseconds) -> Option<Running> {
        let epoch = self.cells()[EPOCH_AT].load(Ordering::Acquire).checked_sub(1)?;
        // A thread that was late with an earlier clock may have been the last to enter one.
        let clock = self.cells()[CLOCK_AT].load(Ordering::Relaxed).max(self.beginning(epoch).clock);
        let last: RangeInclusive<u64> = epoch.saturating_sub(epochs)..=epoch;
        let in_order = |a: Beginning, b: Beginning| a.clock <= b.clock && a.time_ms <= b.time_ms;
        let beginnings = || last.clone().map(|epoch| self.beginning(epoch));
        let fits = epoch < MOST
            && clock < MOST
            && beginnings().zip(beginnings().skip(1)).all(|(a, b)| in_order(a, b))
            && in_order(self.beginning(epoch), Beginning { clock, time_ms: now_ms });
        fits.then_some(Running { epoch, clock })
    }

    /// When an epoch of the last 127 began.
    pub(crate) fn beginning(&self, epoch: u64) -> Beginning {
        let [clock, time_ms] = self.beginning_cells(epoch);
        Beginning { clock: clock.load(Ordering::Relaxed), time_ms: time_ms.load(Ordering::Relaxed) }
    }

    /// Enters the epoch that runs from now on. Before this no entry is stamped with it.
    pub(crate) fn begin(&self, epoch: u64, beginning: Beginning) {
        let [clock, time_ms] = self.beginning_cells(epoch);
        fault_injection::point(Point::Ages);
        clock.store(beginning.clock, Ordering::Relaxed);
        fault_injection::point(Point::Ages);
        time_ms.store(beginning.time_ms, Ordering::Relaxed);
        self.set_clock(beginning.clock);
        fault_injection::point(Point::Ages);
        self.cells()[EPOCH_AT].store(epoch + 1, Ordering::Release);
    }

    /// Enters the clock. Of threads that do so at the same time any may come last.
    pub(crate) fn set_clock(&self, clock: u64) {
        fault_injection::point(Point::Ages);
        self.cells()[CLOCK_AT].store(clock, Ordering::Relaxed);
    }

    fn beginning_cells(&self, epoch: u64) -> &[AtomicU64; 2] {
        let (beginnings, _) = self.cells()[BEGAN_AT..].as_chunks();
        &beginnings[(epoch % EPOCHS) as usize]
    }

    fn cells(&self) -> &[AtomicU64] {
        &self.file.as_u64s()[self.first_word..][..AGE_TABLE_WORDS]
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    pub(crate) fn table() -> AgeTable {
        AgeTable::over(Arc::new(MemoryFile::create("ages", 1 << 16).unwrap()), AGE_TABLE_WORDS)
    }

    fn at(n: u64) -> Beginning {
        Beginning { clock: n * 100, time_ms: n * 10 }
    }

    #[test]
    fn what_was_entered_is_found_unless_it_cannot_be() {
        let table = table();
        assert_eq!(table.running(96, u64::MAX), None);
        (0..1000).for_each(|epoch| table.begin(epoch, at(epoch)));
        table.set_clock(99_950);
        let running = Some(Running { epoch: 999, clock: 99_950 });
        assert_eq!(table.running(96, 9990), running);
        assert_eq!(table.running(96, 9989), None, "it began after now");
        assert_eq!(table.beginning(999 - 96), at(999 - 96));
        // The next epoch's place, which held the oldest, is written before the epoch is entered.
        table.beginning_cells(1000)[0].store(100_000, Ordering::Relaxed);
        assert_eq!(table.running(96, 9990), running);
        table.set_clock(7);
        assert_eq!(table.running(96, 9990).map(|running| running.clock), Some(99_900), "a thread was late");
        table.beginning_cells(950)[1].store(u64::MAX, Ordering::Relaxed);
        assert_eq!(table.running(96, 9990), None, "one of the last began after the next");
        table.clear();
        assert_eq!(table.running(96, u64::MAX), None);
    }

    #[test]
    fn any_single_flipped_bit_is_survived() {
        let table = table();
        (0..1000).for_each(|epoch| table.begin(epoch, at(epoch)));
        for bit in 0..(BEGAN_AT + EPOCHS as usize * 2) * 64 {
            table.cells()[bit / 64].fetch_xor(1 << (bit % 64), Ordering::Relaxed);
            if let Some(running) = table.running(96, 1 << 40) {
                table.begin(running.epoch + 1, Beginning { clock: running.clock, time_ms: 1 << 40 });
            }
            (0..1000).for_each(|epoch| table.begin(epoch, at(epoch)));
        }
    }
}
