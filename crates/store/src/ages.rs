//! A client's ages: its clock, and the epochs by which index entries say when a page was put or last fetched.
//!
//! The clock counts the client's puts. An epoch ends when it has seen so many puts that about 64 of them span the client's stored
//! pages, or, so that the pages of an idle client get old, too, when it has lasted a while. A table says at which clock and time each
//! of the last 127 epochs began, so epochs may be of any length, and nothing needs to be rescaled when that changes.
//!
//! A stamp is an epoch's number modulo 127. Before a number comes round again, no entry may carry it any more: a sweep makes stamps
//! that are more than [`RANGE`] epochs back say "older". Where it does not come in time, the running epoch just gets longer.
//!
//! Stamps are read and written under the lock of their page's stripe. Clock and epochs are entered in a table in shared memory as they
//! change, so that stamps still mean something when the store is opened again; opening is a sweep, too.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    age_table::{AgeTable, Beginning, Milliseconds, Running},
    reuse::{ReuseDistances, ReuseHistogram},
    stamp::{EPOCHS, Stamp},
};

/// Stored pages are spanned by so many epochs: the resolution of a distance is a 64th of what is stored.
const EPOCHS_PER_STORED_PAGES: u64 = 64;

/// The shortest epoch, in puts: as fine as reuse distances are told.
const MIN_EPOCH_PUTS: u64 = 64;

/// Older than so many epochs is "older": one and a half times what is stored. What is left of the 127 is the time that sweeps have.
const RANGE: u64 = 96;

/// A sweep is due so many epochs after the one before, half of the time it has.
const SWEEP_AFTER_EPOCHS: u64 = (EPOCHS - RANGE) / 2;

/// The most puts that a stripe counts before the clock learns of them, so that stripes seldom meet there.
const MAX_BATCH_PUTS: u64 = 32;

#[derive(Debug)]
pub(crate) struct Ages {
    table: AgeTable,
    /// The epoch that was running when the store was opened. `None`: the client is new, or its table was damaged.
    opened_in: Option<u64>,
    /// Puts, but for those that stripes have not reported yet.
    clock: AtomicU64,
    /// The running epoch's number.
    epoch: AtomicU64,
    /// The clock at which it ends.
    epoch_ends: AtomicU64,
    /// A stripe reports when its count of puts is a multiple of this power of two.
    batch_puts: AtomicU64,
    /// When the last 127 epochs began, by their number modulo 127.
    began: [Began; EPOCHS as usize],
    /// No page that is "older" was put or fetched after this.
    older_since_ms: AtomicU64,
    keeper: Mutex<Keeper>,
    reuse: ReuseHistogram,
}

#[derive(Debug, Default)]
struct Began {
    clock: AtomicU64,
    time_ms: AtomicU64,
}

/// What only those need who end epochs or sweep.
#[derive(Debug)]
struct Keeper {
    /// The last epoch that may begin before another sweep is done: the one before the number of an entry comes round.
    last_allowed: u64,
    /// The clock and epoch when the last sweep began.
    sweep_began_clock: u64,
    sweep_began_epoch: u64,
    /// Puts between the last two sweeps.
    puts_between_sweeps: u64,
    /// What the client had done when the epoch was last ended by time.
    traffic: u64,
}

/// Which pages are cold: those that were not used for so long, as seen at one moment. The clock is read once for many pages: on hosts whose
/// clock takes a system call it costs more than looking at a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cold {
    /// 0: all are.
    pub(crate) age_ms: Milliseconds,
    pub(crate) now_ms: Milliseconds,
    /// Whether "older" is enough, too: the client has put one and a half times as many pages since as it has stored. When memory is filled
    /// quickly, that may be less than a second ago.
    pub(crate) older_is_cold: bool,
}

impl Cold {
    /// Those, and what is older than that for its client.
    pub(crate) fn after(age_ms: Milliseconds) -> Self {
        Self { age_ms, now_ms: now_ms(), older_is_cold: true }
    }

    /// Only those.
    pub(crate) fn by_time(age_ms: Milliseconds) -> Self {
        Self { older_is_cold: false, ..Self::after(age_ms) }
    }

    /// Whether no page is too young.
    pub(crate) fn is_whatever_their_use(self) -> bool {
        self.age_ms == 0
    }
}

/// The host's monotonic time.
pub(crate) fn now_ms() -> Milliseconds {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

impl Ages {
    /// Goes on from what the table holds; begins anew where that is nothing that can be.
    pub(crate) fn over(table: AgeTable, now_ms: Milliseconds) -> Self {
        let found = table.running(RANGE, now_ms);
        let Running { epoch, clock } = found.unwrap_or(Running { epoch: 0, clock: 0 });
        if found.is_none() {
            table.begin(0, Beginning { clock: 0, time_ms: now_ms });
        }
        let began =
            [const { Began { clock: AtomicU64::new(0), time_ms: AtomicU64::new(0) } }; EPOCHS as usize];
        for epoch in epoch.saturating_sub(RANGE)..=epoch {
            let beginning = table.beginning(epoch);
            began[(epoch % EPOCHS) as usize].set(beginning);
        }
        let keeper = Keeper {
            last_allowed: last_allowed(epoch),
            sweep_began_clock: clock,
            sweep_began_epoch: epoch,
            puts_between_sweeps: 0,
            // What was done before is not known; the epoch that was running has to end even if nothing is done any more.
            traffic: if found.is_some() { u64::MAX } else { 0 },
        };
        Self {
            table,
            opened_in: found.map(|found| found.epoch),
            clock: AtomicU64::new(clock),
            epoch: AtomicU64::new(epoch),
            epoch_ends: AtomicU64::new(clock + MIN_EPOCH_PUTS),
            batch_puts: AtomicU64::new(1),
            began,
            // Those that a store was opened with may be of any age.
            older_since_ms: AtomicU64::new(0),
            keeper: Mutex::new(keeper),
            reuse: ReuseHistogram::default(),
        }
    }

    /// What a stamp becomes that is found when the store is opened. Every entry's is asked for before anything else happens.
    pub(crate) fn adopt(&self, stamp: Stamp) -> Stamp {
        let Some(epoch) = self.opened_in else { return Stamp::OLD };
        Sweep { epoch, clock: 0 }.sweep(stamp, Stamp::of_epoch(epoch))
    }

    /// What a page is stamped with that is put or fetched now. The caller holds its stripe's lock.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::of_epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Counts a put, after which the stripe has counted `stripe_puts`. `look` says how many pages the client has stored, and the time.
    pub(crate) fn count_put(&self, stripe_puts: u64, look: impl FnOnce() -> (u64, Milliseconds)) {
        let batch = self.batch_puts.load(Ordering::Relaxed);
        if stripe_puts & (batch - 1) == 0 {
            let clock = self.clock.fetch_add(batch, Ordering::Relaxed) + batch;
            self.table.set_clock(clock);
            if clock >= self.epoch_ends.load(Ordering::Relaxed)
                && let Ok(mut keeper) = self.keeper.try_lock()
            {
                let (stored_pages, now_ms) = look();
                self.begin_epoch(&mut keeper, stored_pages, now_ms);
            }
        }
    }

    /// Counts a get that found a page with that stamp; gives its reuse distance. `None`: older than the range.
    pub(crate) fn count_get(&self, stripe: usize, stamp: Stamp) -> Option<u64> {
        let distance_pages = self.distance_pages(stamp);
        self.reuse.count(stripe, distance_pages);
        distance_pages
    }

    /// Puts since the epoch of a stamp began: at most an epoch more than since the page was put or fetched. `None`: older than the
    /// range.
    fn distance_pages(&self, stamp: Stamp) -> Option<u64> {
        let began = self.began[stamp.epoch()?].clock.load(Ordering::Relaxed);
        Some(self.clock.load(Ordering::Relaxed).saturating_sub(began))
    }

    /// Whether a page with that stamp is cold.
    pub(crate) fn is_cold(&self, stamp: Stamp, Cold { age_ms, now_ms, older_is_cold }: Cold) -> bool {
        let (is_running, ended_ms) = match stamp.epoch() {
            None if older_is_cold => return true,
            None => (false, self.older_since_ms.load(Ordering::Relaxed)),
            Some(epoch) => (
                Stamp::of_epoch(self.epoch.load(Ordering::Acquire)) == stamp,
                self.began[(epoch + 1) % EPOCHS as usize].time_ms.load(Ordering::Relaxed),
            ),
        };
        age_ms == 0 || !is_running && ended_ms.saturating_add(age_ms) <= now_ms
    }

    pub(crate) fn reuse_distances(&self) -> ReuseDistances {
        self.reuse.read()
    }

    /// Ends an epoch that has lasted so long, if anything happened since one was last ended so: `traffic` counts what the client
    /// ever did. So what an idle client has stored is in an epoch that has ended, and no more epochs are spent on it.
    pub(crate) fn end_long_epoch(
        &self,
        traffic: u64,
        stored_pages: u64,
        most: Duration,
        now_ms: Milliseconds,
    ) {
        let mut keeper = self.keeper();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let began_ms = self.began[(epoch % EPOCHS) as usize].time_ms.load(Ordering::Relaxed);
        if traffic != keeper.traffic && now_ms.saturating_sub(began_ms) >= most.as_millis() as Milliseconds {
            self.begin_epoch(&mut keeper, stored_pages, now_ms);
            // If a sweep is to come first, it is tried again.
            if self.epoch.load(Ordering::Relaxed) != epoch {
                keeper.traffic = traffic;
            }
        }
    }

    fn begin_epoch(&self, keeper: &mut Keeper, stored_pages: u64, now_ms: Milliseconds) {
        let clock = self.clock.load(Ordering::Relaxed);
        // Between two sweeps should be no more epochs than sweeps allow, however quickly the puts come.
        let puts = (stored_pages / EPOCHS_PER_STORED_PAGES)
            .max(keeper.puts_between_sweeps / SWEEP_AFTER_EPOCHS)
            .max(MIN_EPOCH_PUTS);
        self.epoch_ends.store(clock + puts, Ordering::Relaxed);
        let next = self.epoch.load(Ordering::Relaxed) + 1;
        if next > keeper.last_allowed {
            return;
        }
        // All of a client's stripes together stay within an epoch of the clock.
        let batch = (1 << (puts / EPOCHS_PER_STORED_PAGES).ilog2()).min(MAX_BATCH_PUTS);
        self.batch_puts.store(batch, Ordering::Relaxed);
        let beginning = Beginning { clock, time_ms: now_ms };
        self.table.begin(next, beginning);
        self.began[(next % EPOCHS) as usize].set(beginning);
        self.epoch.store(next, Ordering::Release);
    }

    /// Begins a sweep, if one is due: whoever gets one sees to it that each entry of the client is met by [`Sweep::sweep`], under its
    /// lock, and then calls [`Ages::end_sweep`].
    pub(crate) fn begin_sweep(&self) -> Option<Sweep> {
        let keeper = self.keeper();
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch < keeper.sweep_began_epoch + SWEEP_AFTER_EPOCHS {
            return None;
        }
        if let Some(oldest) = epoch.checked_sub(RANGE) {
            let began_ms = self.began[(oldest % EPOCHS) as usize].time_ms.load(Ordering::Relaxed);
            self.older_since_ms.store(began_ms, Ordering::Relaxed);
        }
        Some(Sweep { epoch, clock: self.clock.load(Ordering::Relaxed) })
    }

    pub(crate) fn end_sweep(&self, sweep: &Sweep) {
        let mut keeper = self.keeper();
        keeper.puts_between_sweeps = sweep.clock - keeper.sweep_began_clock;
        (keeper.sweep_began_clock, keeper.sweep_began_epoch) = (sweep.clock, sweep.epoch);
        keeper.last_allowed = keeper.last_allowed.max(last_allowed(sweep.epoch));
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Began {
    fn set(&self, beginning: Beginning) {
        self.clock.store(beginning.clock, Ordering::Relaxed);
        self.time_ms.store(beginning.time_ms, Ordering::Relaxed);
    }
}

/// The last epoch that may begin when no entry is of one before `epoch - RANGE`: the next one gets that number again.
fn last_allowed(epoch: u64) -> u64 {
    epoch.saturating_sub(RANGE) + EPOCHS - 1
}

/// A sweep over a client's entries.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    epoch: u64,
    clock: u64,
}

impl Sweep {
    /// What a stamp found by the sweep, of an epoch up to now, becomes. `now` is the running epoch's.
    pub(crate) fn sweep(&self, stamp: Stamp, now: Stamp) -> Stamp {
        let (Some(epoch), Some(now)) = (stamp.epoch(), now.epoch()) else { return stamp };
        let epochs = EPOCHS as usize;
        let back = (now + epochs - epoch) % epochs;
        // Epochs may have begun since the sweep did; they are not what makes a stamp too old for it.
        let since = (now + epochs - (self.epoch % EPOCHS) as usize) % epochs;
        if back > RANGE as usize + since { Stamp::OLD } else { stamp }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
