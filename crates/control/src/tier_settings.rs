//! The settings of the tier: where it is, and when pages go there.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::{ControlError, background::seconds_or_off};

/// A day, as for recompression.
const MAX_AGE_SECONDS: u32 = 86_400;

/// Whether extents are copied to the tier when they have to go, or as soon as they are full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TierMode {
    /// When they have to go.
    #[default]
    WriteBack,
    /// As soon as they are full. Making room takes no writing then.
    WriteThrough,
}

/// After how long without a put or a get a page goes to the tier even if there is room: 1 second to a day, or never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteBackAge(Option<u32>);

impl WriteBackAge {
    /// `None`: pages go only when the pool needs room.
    pub fn time(self) -> Option<Duration> {
        self.0.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

impl FromStr for TierMode {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "write-back" => Ok(Self::WriteBack),
            "write-through" => Ok(Self::WriteThrough),
            _ => Err(ControlError::TierMode { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for TierMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteBack => "write-back",
            Self::WriteThrough => "write-through",
        })
    }
}

impl<'de> Deserialize<'de> for TierMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl FromStr for WriteBackAge {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            _ if text == "off" => Ok(Self(None)),
            Ok(seconds @ 1..=MAX_AGE_SECONDS) => Ok(Self(Some(seconds))),
            _ => Err(ControlError::WriteBackAge { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for WriteBackAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seconds) => seconds.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for WriteBackAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        seconds_or_off(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_written() {
        for text in ["write-back", "write-through"] {
            assert_eq!(text.parse::<TierMode>().expect("mode").to_string(), text);
        }
        for text in ["off", "1", "86400"] {
            assert_eq!(text.parse::<WriteBackAge>().expect("age").to_string(), text);
        }
        assert_eq!("3".parse::<WriteBackAge>().expect("age").time(), Some(Duration::from_secs(3)));
        assert_eq!(WriteBackAge::default().time(), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for text in ["0", "-1", "86401", "1m", "never", ""] {
            let error = text.parse::<WriteBackAge>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("off"), "{error}");
        }
        let error = "through".parse::<TierMode>().unwrap_err().to_string();
        assert!(error.contains("`through`") && error.contains("write-through"), "{error}");
    }
}
