//! Whether a spare worker stands by for the one that serves.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::ControlError;

/// Whether one is kept. Only a host that is its own swap has any use for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpareWorker {
    /// As long as there is a disk on ublk.
    On,
    /// Never.
    #[default]
    Off,
}

impl FromStr for SpareWorker {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(ControlError::SpareWorker { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for SpareWorker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
