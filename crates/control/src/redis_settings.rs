//! The settings of a tier in Redis or Valkey, beside its address.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::ControlError;

/// A minute: copies are told to live on four times in that time. 30 days.
const EXPIRY_SECONDS: std::ops::RangeInclusive<u32> = 60..=2_592_000;

/// What all keys begin with: letters, digits, and any of `. _ - /`, 64 at most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisPrefix(String);

/// After how long keys go that no running daemon needs: a minute to 30 days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedisExpiry(u32);

/// How many replicas have to have pages before they leave memory: 0 to 8.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RedisReplicas(u32);

impl RedisPrefix {
    /// As it is in the keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RedisPrefix {
    fn default() -> Self {
        Self("tmem".to_owned())
    }
}

impl RedisExpiry {
    /// The time.
    pub fn time(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl Default for RedisExpiry {
    /// A day.
    fn default() -> Self {
        Self(86_400)
    }
}

impl RedisReplicas {
    /// So many.
    pub fn count(self) -> u32 {
        self.0
    }
}

impl FromStr for RedisPrefix {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
            return Err(ControlError::RedisPrefix { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for RedisExpiry {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(seconds) if EXPIRY_SECONDS.contains(&seconds) => Ok(Self(seconds)),
            _ => Err(ControlError::RedisExpiry { text: text.to_owned() }),
        }
    }
}

impl FromStr for RedisReplicas {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(count @ 0..=8) => Ok(Self(count)),
            _ => Err(ControlError::RedisReplicas { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for RedisExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for RedisPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RedisExpiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.to_string().parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RedisReplicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.to_string().parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_what_makes_no_sense_is_named() {
        assert_eq!("host-1/tmem".parse::<RedisPrefix>().expect("a prefix").as_str(), "host-1/tmem");
        assert_eq!("60".parse::<RedisExpiry>().expect("a time").time(), Duration::from_secs(60));
        assert_eq!("2".parse::<RedisReplicas>().expect("a number").count(), 2);
        for text in ["", "a:b", "{a}", "a b"] {
            let error = text.parse::<RedisPrefix>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("letters"), "{error}");
        }
        for text in ["59", "off", "2592001", "-1"] {
            let error = text.parse::<RedisExpiry>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("2592000"), "{error}");
        }
        assert!("9".parse::<RedisReplicas>().unwrap_err().to_string().contains("0 to 8"));
    }
}
