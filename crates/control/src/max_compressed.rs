//! How well a page must compress to be kept.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use tmem_store::PAGE_BYTES;

use crate::{ControlError, written::number};

/// The largest compressed page worth keeping, in percent of a page: 1 to 100. At 100 all are kept, also those that do not compress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaxCompressed(u32);

impl MaxCompressed {
    /// In percent of a page.
    pub fn percent(self) -> u32 {
        self.0
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        PAGE_BYTES as u32 * self.0 / 100
    }
}

impl Default for MaxCompressed {
    /// Swap that the pool refuses has nowhere else to go but the guest's memory.
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for MaxCompressed {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err(ControlError::MaxCompressed { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for MaxCompressed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_are_of_a_page() {
        let bytes = |text: &str| text.parse::<MaxCompressed>().map(MaxCompressed::bytes).ok();
        assert_eq!((bytes("100"), bytes("50"), bytes("1")), (Some(4096), Some(2048), Some(40)));
        assert_eq!((bytes("0"), bytes("101"), bytes("half")), (None, None, None));
        assert_eq!(MaxCompressed::default().bytes(), 4096);
    }
}
