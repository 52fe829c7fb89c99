//! The settings of background work: compaction and recompression.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use tmem_store::{RECOMPRESSION_LEVELS, RecompressionOptions};

use crate::{
    ControlError,
    on_off::written_on_or_off,
    written::{number, text_or_number},
};

/// A day: whoever wants pages to be left alone for longer turns recompression off.
const MAX_AGE_SECONDS: u32 = 86_400;

/// A fifth of a CPU recompresses some 15 to 30 MiB of pages a second.
const DEFAULT_CPU_PERCENT: u32 = 20;

/// Whether cold pages are compressed harder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Recompress {
    /// They are.
    #[default]
    On,
    /// They stay as they are.
    Off,
}

written_on_or_off!(Recompress);

/// After how long without a put or a get a page is cold: 1 second to a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecompressAge(u32);

/// How hard cold pages are compressed: a level of Zstandard, 1 to 19.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecompressLevel(i32);

/// How much of one CPU background work may take, in percent: 1 to 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackgroundCpu(u32);

impl RecompressAge {
    /// In seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl RecompressLevel {
    /// The level.
    pub fn level(self) -> i32 {
        self.0
    }
}

impl BackgroundCpu {
    /// In percent.
    pub fn percent(self) -> u32 {
        self.0
    }
}

impl Default for RecompressAge {
    fn default() -> Self {
        Self(RecompressionOptions::default().age.as_secs() as u32)
    }
}

impl Default for RecompressLevel {
    fn default() -> Self {
        Self(RecompressionOptions::default().level)
    }
}

impl Default for BackgroundCpu {
    fn default() -> Self {
        Self(DEFAULT_CPU_PERCENT)
    }
}

impl FromStr for RecompressAge {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(seconds @ 1..=MAX_AGE_SECONDS) => Ok(Self(seconds)),
            _ => Err(ControlError::RecompressAge { text: text.to_owned() }),
        }
    }
}

impl FromStr for RecompressLevel {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(level) if RECOMPRESSION_LEVELS.contains(&level) => Ok(Self(level)),
            _ => Err(ControlError::RecompressLevel { text: text.to_owned() }),
        }
    }
}

impl FromStr for BackgroundCpu {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err(ControlError::BackgroundCpu { text: text.to_owned() }),
        }
    }
}

/// Seconds in the file, or "off", checked as the flag is.
pub(crate) fn seconds_or_off<'de, D: Deserializer<'de>, T: FromStr<Err = ControlError>>(
    deserializer: D,
) -> Result<T, D::Error> {
    text_or_number(deserializer, "seconds or \"off\"")
}

impl<'de> Deserialize<'de> for RecompressAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

impl<'de> Deserialize<'de> for RecompressLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

impl<'de> Deserialize<'de> for BackgroundCpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}
