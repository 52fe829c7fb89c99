//! Which cluster.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{MembershipError, random};

/// A cluster. Drawn when it is made, so that two clusters on one network never take each other's nodes for their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// Another one than all others.
    ///
    /// # Errors
    /// [`MembershipError::NoRandomness`].
    pub fn draw() -> Result<Self, MembershipError> {
        random::bytes().map(u128::from_le_bytes).map(Self)
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or("a cluster is 32 hexadecimal digits")
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClusterId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was_written_and_nothing_else_is_one() {
        for id in [0, 1, 5 << 100, u128::MAX] {
            assert_eq!(ClusterId(id).to_string().parse(), Ok(ClusterId(id)));
        }
        let sign = format!("+{}", "0".repeat(31));
        for text in ["", "0", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33), &sign] {
            assert!(text.parse::<ClusterId>().is_err(), "{text}");
        }
        assert_ne!(ClusterId::draw().unwrap(), ClusterId::draw().unwrap());
    }
}
