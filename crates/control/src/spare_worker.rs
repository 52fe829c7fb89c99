//! Whether a spare worker stands by for the one that serves.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::ControlError;

/// Where nothing is said, hosts with less memory have none: it takes 30 MiB, which they need more.
const FROM_HOST_BYTES: u64 = 1 << 30;

/// When one is kept. Only a host that is its own swap has any use for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpareWorker {
    /// On hosts that have the memory for it.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Never.
    Off,
}

impl SpareWorker {
    /// Whether a host with so much memory that is its own swap gets one.
    pub fn is_kept(self, host_bytes: u64) -> bool {
        match self {
            Self::Auto => host_bytes >= FROM_HOST_BYTES,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl FromStr for SpareWorker {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "auto" => Ok(Self::Auto),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_hosts_have_none_unless_somebody_says_so() {
        let kept =
            |text: &str| [512 << 20, 1 << 30].map(|host| text.parse::<SpareWorker>().unwrap().is_kept(host));
        assert_eq!([kept("auto"), kept("on"), kept("off")], [[false, true], [true, true], [false, false]]);
        let error = "yes".parse::<SpareWorker>().unwrap_err().to_string();
        assert!(error.contains("`yes`") && error.contains("auto, on or off"), "{error}");
    }
}
