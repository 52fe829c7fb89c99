//! When the next fault of a kind is due.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Comes once in so many passages, at distances that follow from a seed.
#[derive(Debug, Default)]
pub(crate) struct Dice {
    /// 0: never.
    one_in: u64,
    /// Passages until the next time; below 0 until that is known.
    left: AtomicU64,
    state: AtomicU64,
}

impl Dice {
    /// Comes every `one_in` passages on average.
    pub(crate) fn every(one_in: u64, seed: u64) -> Dice {
        let dice = Dice { one_in, left: AtomicU64::new(0), state: AtomicU64::new(seed) };
        dice.left.store(dice.distance(), Relaxed);
        dice
    }

    /// Comes with the `n`th passage, and never again.
    pub(crate) fn at(n: u64) -> Dice {
        Dice { one_in: u64::MAX, left: AtomicU64::new(n), state: AtomicU64::new(0) }
    }

    /// A passage: whether it comes now.
    pub(crate) fn hits(&self) -> bool {
        if self.one_in == 0 || self.left.fetch_sub(1, Relaxed) != 1 {
            return false;
        }
        if self.one_in < u64::MAX {
            self.left.store(self.distance(), Relaxed);
        }
        true
    }

    /// Evenly from 1 to twice the average.
    fn distance(&self) -> u64 {
        1 + next(&self.state) % (2 * self.one_in - 1).max(1)
    }
}

/// splitmix64: every number that is drawn from a state follows from what the state was at first.
pub(crate) fn next(state: &AtomicU64) -> u64 {
    mix(state.fetch_add(STEP, Relaxed).wrapping_add(STEP))
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that says nothing about the one it comes from.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(dice: &Dice, passages: u64) -> Vec<u64> {
        (1..=passages).filter(|_| dice.hits()).collect()
    }

    #[test]
    fn dice_come_as_often_as_they_say_and_as_the_seed_says() {
        let [one, same, other] = [7, 7, 8].map(|seed| hits(&Dice::every(50, seed), 100_000));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert!((1800..2200).contains(&one.len()), "{} times", one.len());
    }

    #[test]
    fn dice_at_a_passage_come_once() {
        assert_eq!(hits(&Dice::at(17), 10_000), [17]);
        assert!(hits(&Dice::default(), 1000).is_empty());
        assert_eq!(hits(&Dice::every(1, 3), 3), [1, 2, 3]);
    }
}
