//! How much memory a pool that sizes itself leaves to the host.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer};

use crate::{ByteSize, ControlError, written::text_or_number};

/// A sixteenth of the host, but neither so little that a program uses it up faster than the pool can give back: with 64 MiB, one that took
/// 1 GiB a second had the kernel kill something on a host of 768 MiB...
const LEAST_BYTES: u64 = 128 << 20;
/// ...nor more than any host's programs ask for at once...
const MOST_BYTES: u64 = 4 << 30;
/// ...nor more than this part of a small host.
const LARGEST_PART: u64 = 4;

/// What the host keeps, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reserve {
    /// A sixteenth of the host's memory, at least 128 MiB, at most 4 GiB, and at most a quarter of the host.
    #[default]
    Auto,
    /// So much.
    Fixed(ByteSize),
}

impl Reserve {
    /// In bytes, on a host with so much memory.
    ///
    /// # Errors
    /// [`ControlError::ReserveTooLarge`]: nothing is left for the pool.
    pub fn bytes(self, host_bytes: u64) -> Result<u64, ControlError> {
        match self {
            Self::Auto => Ok((host_bytes / 16).clamp(LEAST_BYTES, MOST_BYTES).min(host_bytes / LARGEST_PART)),
            Self::Fixed(asked) if asked.bytes() >= host_bytes => {
                Err(ControlError::ReserveTooLarge { asked, host: ByteSize::from_bytes(host_bytes).rounded() })
            }
            Self::Fixed(size) => Ok(size.bytes()),
        }
    }
}

impl FromStr for Reserve {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        if text == "auto" { Ok(Self::Auto) } else { Ok(Self::Fixed(text.parse()?)) }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(size) => size.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Reserve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "\"auto\", a size such as \"1G\" or a number of bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_fits_the_host() {
        for (host, reserve) in
            [(128 << 20, 32 << 20), (1 << 30, 128 << 20), (16 << 30, 1 << 30), (1 << 40, 4 << 30)]
        {
            assert_eq!(Reserve::Auto.bytes(host).expect("auto"), reserve, "{host}");
        }
    }

    #[test]
    fn a_size_is_taken_as_it_is() {
        let bytes = |text: &str| text.parse::<Reserve>()?.bytes(1 << 30);
        assert_eq!(bytes("300M").expect("size"), 300 << 20);
        assert_eq!(bytes("0").expect("size"), 0);
        assert!(bytes("much").is_err());
        let error = bytes("1G").unwrap_err().to_string();
        assert!(error.contains("1G") && error.contains("auto"), "{error}");
    }
}
