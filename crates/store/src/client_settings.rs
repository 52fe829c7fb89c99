//! What can be changed of a client while it is there.
//!
//! In the catalog it is one word, so that a change is one store:
//! `| check (8) | frozen (1) | weight (14) | cap in bytes, all ones = none (41) |`, the check in the lowest bits.

use crate::{
    entry::{MAX_ARENA_BYTES, check},
    error::StoreError,
    weight::Weight,
};

/// What can be changed of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The most memory its pages may take, in bytes, index included, up to a tebibyte; `None` = as far as the store's limit allows.
    pub cap_bytes: Option<u64>,
    /// Its share of the limit, relative to others'.
    pub weight: Weight,
    /// Whether its puts are refused. Gets and flushes work as ever, and so does what happens to its pages in the background.
    pub frozen: bool,
}

/// The largest cap: more than a store can hold is none.
const MAX_CAP_BYTES: u64 = MAX_ARENA_BYTES;

const FROZEN_SHIFT: u32 = 8;
const WEIGHT_SHIFT: u32 = 9;
const WEIGHT_MASK: u64 = 0x3fff;
const CAP_SHIFT: u32 = 23;
const NO_CAP: u64 = u64::MAX >> CAP_SHIFT;

impl ClientSettings {
    /// Errors: no client can have such a cap.
    pub fn check_cap(cap_bytes: u64) -> Result<(), StoreError> {
        if cap_bytes > MAX_CAP_BYTES { Err(StoreError::Cap { cap_bytes }) } else { Ok(()) }
    }

    /// Errors: a cap out of bounds.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.cap_bytes.map_or(Ok(()), Self::check_cap)
    }

    pub(crate) fn word(&self) -> u64 {
        let cap = self.cap_bytes.unwrap_or(NO_CAP);
        let body = u64::from(self.frozen) << FROZEN_SHIFT
            | u64::from(self.weight.get()) << WEIGHT_SHIFT
            | cap << CAP_SHIFT;
        body | u64::from(check(body))
    }

    /// `None`: it is damaged.
    pub(crate) fn parse(word: u64) -> Option<Self> {
        let weight = Weight::new((word >> WEIGHT_SHIFT & WEIGHT_MASK) as u32).ok()?;
        let cap = word >> CAP_SHIFT;
        let settings =
            Self { cap_bytes: (cap != NO_CAP).then_some(cap), weight, frozen: word >> FROZEN_SHIFT & 1 != 0 };
        (check(word) == word as u8 && settings.check().is_ok()).then_some(settings)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn settings_survive_their_word_and_no_flipped_bit_gives_others(
            cap in proptest::option::of(0..=MAX_CAP_BYTES),
            weight in Weight::RANGE,
            frozen: bool,
            bit in 0..64u32,
        ) {
            let settings = ClientSettings { cap_bytes: cap, weight: Weight::new(weight).unwrap(), frozen };
            prop_assert_eq!(ClientSettings::parse(settings.word()), Some(settings));
            prop_assert_eq!(ClientSettings::parse(settings.word() ^ 1 << bit), None);
        }
    }

    #[test]
    fn nothing_is_no_settings() {
        assert_eq!(ClientSettings::parse(0), None);
    }
}
