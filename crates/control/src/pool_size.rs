//! How large the pool may grow.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};

use tmem_store::MAX_LIMIT_BYTES;

use crate::{ByteSize, ControlError, host_memory_bytes};

/// The pool's hard limit, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PoolSize {
    /// Half of the host's MemTotal when it is chosen, at most what a store can have. It does not change by itself.
    #[default]
    Auto,
    /// So much, not more.
    Fixed(ByteSize),
}

impl PoolSize {
    /// The limit in bytes on this host.
    ///
    /// # Errors
    /// A limit beyond the host's memory, because a put must never wait for the OS to find memory; a host that does not
    /// say how much it has.
    pub fn limit_bytes(self) -> Result<u64, ControlError> {
        let host_bytes = host_memory_bytes()?;
        match self {
            Self::Auto => Ok((host_bytes / 2).min(MAX_LIMIT_BYTES)),
            Self::Fixed(asked) if asked.bytes() > host_bytes => {
                Err(ControlError::PoolTooLarge { asked, host: ByteSize::from_bytes(host_bytes).rounded() })
            }
            Self::Fixed(asked) => Ok(asked.bytes()),
        }
    }
}

impl From<ByteSize> for PoolSize {
    fn from(size: ByteSize) -> Self {
        Self::Fixed(size)
    }
}

impl FromStr for PoolSize {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let size: ByteSize = text.parse()?;
        if size.bytes() == 0 {
            return Err(ControlError::Size {
                text: text.to_owned(),
                why: "a pool of nothing holds nothing: write a size such as 4G, or `auto`",
            });
        }
        Ok(Self::Fixed(size))
    }
}

impl fmt::Display for PoolSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(size) => size.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for PoolSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PoolSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\", a size such as \"4G\" or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PoolSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<PoolSize, E> {
                bytes.to_string().parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<PoolSize, E> {
                bytes.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_half_of_the_host() {
        let host = host_memory_bytes().expect("meminfo");
        assert_eq!(PoolSize::Auto.limit_bytes().expect("auto"), host / 2);
    }

    #[test]
    fn nothing_and_more_than_the_host_are_refused() {
        assert!("0".parse::<PoolSize>().unwrap_err().to_string().contains("holds nothing"));
        let host = host_memory_bytes().expect("meminfo");
        let error = PoolSize::Fixed(ByteSize::from_bytes(host + 4096)).limit_bytes().unwrap_err().to_string();
        assert!(error.contains("this host has"), "{error}");
    }
}
