//! With whose pages a disk's may share memory.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ControlError, DiskName};

/// With whose pages a disk's may share a block when they are equal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum DedupChoice {
    /// With those of the same disk: `alone`.
    #[default]
    Alone,
    /// With none: `off`.
    Off,
    /// With those of every disk that names the same domain. The rules for names are those for disks.
    Domain(DiskName),
}

impl FromStr for DedupChoice {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "alone" => Ok(Self::Alone),
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::Domain)
                .map_err(|_| ControlError::DedupDomain { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for DedupChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "alone",
            Self::Off => "off",
            Self::Domain(name) => name.as_str(),
        })
    }
}

impl Serialize for DedupChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DedupChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_what_it_prints() {
        for text in ["alone", "off", "web", "a.b-c_1"] {
            assert_eq!(text.parse::<DedupChoice>().expect(text).to_string(), text);
        }
        assert_eq!("off".parse::<DedupChoice>().ok(), Some(DedupChoice::Off));
        for text in ["", "a b", "Ä", "."] {
            let error = text.parse::<DedupChoice>().expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("off"), "{error}");
        }
    }
}
