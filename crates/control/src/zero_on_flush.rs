//! Whether blocks of forgotten pages are overwritten.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::ControlError;

/// Whether the blocks of forgotten pages are overwritten with zeroes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZeroOnFlush {
    /// They are.
    On,
    /// They stay in memory until their extents are used again or go back to the OS.
    #[default]
    Off,
}

impl FromStr for ZeroOnFlush {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(ControlError::ZeroOnFlush { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for ZeroOnFlush {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
