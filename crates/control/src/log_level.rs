//! How much the daemon says on stderr.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};

use crate::ControlError;

/// The least severe messages that are still written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What went wrong and was handled: a guest that breaks the protocol, a client that was told no.
    Warn,
    /// Disks and guests coming and going.
    #[default]
    Info,
    /// Details for somebody who looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The same for the `log` crate.
    pub fn filter(self) -> log::LevelFilter {
        match self {
            Self::Error => log::LevelFilter::Error,
            Self::Warn => log::LevelFilter::Warn,
            Self::Info => log::LevelFilter::Info,
            Self::Debug => log::LevelFilter::Debug,
            Self::Trace => log::LevelFilter::Trace,
        }
    }
}

impl FromStr for LogLevel {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        Ok(match text {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return Err(ControlError::LogLevel { text: text.to_owned() }),
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
