//! How fast a peer answers.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// How many round trips are remembered.
const REMEMBERED: usize = 256;

/// The last round trips, and what is usual: an average that forgets (an eighth of each new one).
#[derive(Debug)]
pub(super) struct RoundTrips {
    /// In microseconds; 0: none yet.
    last: [AtomicU32; REMEMBERED],
    next: AtomicU32,
    usual_us: AtomicU32,
}

impl Default for RoundTrips {
    fn default() -> Self {
        Self {
            last: std::array::from_fn(|_| AtomicU32::new(0)),
            next: AtomicU32::new(0),
            usual_us: AtomicU32::new(0),
        }
    }
}

impl RoundTrips {
    /// One took so long. When several threads say so at once, one of them may be left out of the average.
    pub(super) fn note(&self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let at = self.next.fetch_add(1, Relaxed) as usize % REMEMBERED;
        self.last[at].store(us, Relaxed);
        let usual = match self.usual_us.load(Relaxed) {
            0 => us,
            usual => usual - usual / 8 + us / 8,
        };
        self.usual_us.store(usual.max(1), Relaxed);
    }

    /// A ping took so long. Reads say better what a read takes, where there are any; but a peer that was once slow, and is not asked since, is
    /// given another chance when its pings are fast.
    pub(super) fn note_ping(&self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        match self.usual_us() {
            0 => self.note(took),
            usual => self.usual_us.store(usual.min(us), Relaxed),
        }
    }

    /// What is usual, in microseconds. 0: nobody knows.
    pub(super) fn usual_us(&self) -> u32 {
        self.usual_us.load(Relaxed)
    }

    /// The round trip that so many of a thousand were not longer than, in microseconds. 0: there was none.
    pub(super) fn permille_us(&self, permille: usize) -> u32 {
        let mut sorted: Vec<u32> = self.last.iter().map(|us| us.load(Relaxed)).filter(|us| *us > 0).collect();
        sorted.sort_unstable();
        let at = (sorted.len() * permille).div_ceil(1000).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_end_are_found_and_old_ones_forgotten() {
        let trips = RoundTrips::default();
        assert_eq!((trips.permille_us(500), trips.usual_us()), (0, 0));
        (0..1000).for_each(|_| trips.note(Duration::from_secs(1)));
        (1..=256).for_each(|us| trips.note(Duration::from_micros(us)));
        assert_eq!(
            (trips.permille_us(500), trips.permille_us(990), trips.permille_us(1000)),
            (128, 254, 256)
        );
        assert!(trips.usual_us() < 1000, "{}", trips.usual_us());
    }

    #[test]
    fn fast_pings_make_up_for_slow_reads_and_slow_ones_say_nothing() {
        let trips = RoundTrips::default();
        trips.note_ping(Duration::from_millis(5));
        assert_eq!((trips.usual_us(), trips.permille_us(500)), (5000, 5000));
        trips.note_ping(Duration::from_micros(40));
        trips.note_ping(Duration::from_millis(7));
        assert_eq!((trips.usual_us(), trips.permille_us(1000)), (40, 5000));
    }
}
