//! How far a pool that sizes itself may grow.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};
use tmem_store::MIN_LIMIT_BYTES;

use crate::{ByteSize, ControlError, written::text_or_number};

/// The most that a pool of size auto may grow to, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PoolCeiling {
    /// What the host can spare.
    #[default]
    None,
    /// So much: 1 MiB or more. It may be more than the host has.
    Fixed(ByteSize),
}

impl PoolCeiling {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::None => u64::MAX,
            Self::Fixed(size) => size.bytes(),
        }
    }
}

impl FromStr for PoolCeiling {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        if text == "none" {
            return Ok(Self::None);
        }
        let size: ByteSize = text.parse()?;
        if size.bytes() < MIN_LIMIT_BYTES {
            let why = "a pool has at least 1M: give more, or `none`";
            return Err(ControlError::Size { text: text.to_owned(), why });
        }
        Ok(Self::Fixed(size))
    }
}

impl fmt::Display for PoolCeiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fixed(size) => size.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for PoolCeiling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "\"none\", a size such as \"8G\" or a number of bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_a_size_or_none() {
        let bytes = |text: &str| text.parse().map(PoolCeiling::bytes);
        assert_eq!(bytes("none").expect("none"), u64::MAX);
        assert_eq!(bytes("1M").expect("size"), 1 << 20);
        assert_eq!(bytes("64T").expect("size"), 64 << 40);
        for wrong in ["auto", "0", "1023K", "-1", ""] {
            assert!(bytes(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }
}
