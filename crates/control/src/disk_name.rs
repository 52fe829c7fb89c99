//! Names of disks.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::ControlError;

/// The longest name, in bytes. The kernel's device names and file names next to a disk's must hold it with room left.
const MAX_BYTES: usize = 63;

/// A disk's name, which is also its client's name: 1 to 63 of `A-Z a-z 0-9 . _ -`, neither `.` nor `..`.
///
/// So it can stand unquoted in a path, a URL, a shell line, an XML document and a metric's label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct DiskName(String);

impl DiskName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DiskName {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty()
            || text.len() > MAX_BYTES
            || !text.bytes().all(allowed)
            || text == "."
            || text == ".."
        {
            return Err(ControlError::Name { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for DiskName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_names_pass_and_others_are_quoted_in_the_error() {
        for name in ["a", "vm1", "web-01.example_x", "...", &"x".repeat(63)] {
            assert_eq!(name.parse::<DiskName>().map(|n| n.0).map_err(|e| e.to_string()), Ok(name.to_owned()));
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\n", "a\"b", &"x".repeat(64)] {
            let error = name.parse::<DiskName>().expect_err(name).to_string();
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }
}
