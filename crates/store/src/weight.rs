//! How much a client counts for against others.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use crate::error::StoreError;

/// A client's share of the limit, relative to others': 1 to 10000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// What it may be. As in Linux's cgroups: a hundred times less or more than the default.
    pub const RANGE: RangeInclusive<u32> = 1..=10_000;

    /// Errors: it is out of [`Weight::RANGE`].
    pub fn new(weight: u32) -> Result<Self, StoreError> {
        if Self::RANGE.contains(&weight) {
            Ok(Self(weight as u16))
        } else {
            Err(StoreError::Weight { text: weight.to_string() })
        }
    }

    /// As a number.
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Weight {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        text.parse()
            .map_err(|_| StoreError::Weight { text: text.to_owned() })
            .and_then(Self::new)
            .map_err(|_| StoreError::Weight { text: text.to_owned() })
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
