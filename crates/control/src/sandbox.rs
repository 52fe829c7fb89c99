//! Whether the process that serves confines itself.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::ControlError;

/// What holds where nobody says otherwise.
const DEFAULT: Sandbox = Sandbox::On;

/// Whether the process that serves gives up all that it does not need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sandbox {
    /// It does.
    On,
    /// It stays what it was started as.
    Off,
}

impl Default for Sandbox {
    fn default() -> Self {
        DEFAULT
    }
}

impl FromStr for Sandbox {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(ControlError::Sandbox { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for Sandbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As the flag has it, or as TOML would.
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected on, off, true or false")]
        enum Written {
            Truth(bool),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Truth(true) => Ok(Self::On),
            Written::Truth(false) => Ok(Self::Off),
            Written::Word(word) => word.parse().map_err(de::Error::custom),
        }
    }
}
