//! Interrupt coalescing: for how long the guest is not told of writes that are done.
//!
//! A guest that swaps out writes one page after the other and waits for none of them. Its queue's thread, which polls, is done with each at once; an interrupt
//! for each would take longer than the write. So while the thread polls, it holds the signal back for a moment: one is enough for all writes that come meanwhile. A
//! guest that does wait for each of its writes sends nothing while the signal is held. So that it loses next to nothing, holding that was in vain is shortened,
//! down to nothing, and only tried again now and then. Reads are never held: somebody waits for them.

use std::time::Duration;

/// The longest that a signal is held.
const LONGEST: Duration = Duration::from_micros(50);
/// Holding for less is not worth the bookkeeping.
const SHORTEST: Duration = Duration::from_micros(4);
/// After so many signals that were not held, one is, to see whether that is worth it by now.
const TRY_AGAIN: u32 = 64;

/// What one queue's thread has seen of holding.
#[derive(Debug, Default)]
pub(crate) struct Coalescing {
    hold: Duration,
    unheld: u32,
}

impl Coalescing {
    /// For how long to hold a signal that is due now.
    pub(crate) fn hold(&mut self) -> Duration {
        if !self.hold.is_zero() {
            return self.hold;
        }
        self.unheld += 1;
        if self.unheld < TRY_AGAIN {
            return Duration::ZERO;
        }
        self.unheld = 0;
        LONGEST
    }

    /// Another request came while one was held.
    pub(crate) fn was_of_use(&mut self) {
        self.hold = LONGEST;
    }

    /// None came.
    pub(crate) fn was_in_vain(&mut self) {
        self.hold /= 2;
        if self.hold < SHORTEST {
            self.hold = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_held_at_first_and_once_it_is_of_use_it_stays() {
        let mut coalescing = Coalescing::default();
        let held = (0..TRY_AGAIN).filter(|_| !coalescing.hold().is_zero()).count();
        assert_eq!(held, 1, "it is tried once");
        coalescing.was_of_use();
        // The last one of each few has nobody after it.
        for _ in 0..100 {
            for _ in 0..3 {
                assert!(coalescing.hold() >= LONGEST / 2);
                coalescing.was_of_use();
            }
            assert_eq!(coalescing.hold(), LONGEST);
            coalescing.was_in_vain();
        }
    }

    #[test]
    fn whoever_waits_for_each_write_waits_next_to_nothing_longer() {
        let mut coalescing = Coalescing::default();
        coalescing.was_of_use();
        let mut held = Duration::ZERO;
        for _ in 0..1000 {
            let hold = coalescing.hold();
            held += hold;
            if !hold.is_zero() {
                coalescing.was_in_vain();
            }
        }
        assert!(held / 1000 < Duration::from_micros(1), "{held:?} for 1000 writes");
    }
}
