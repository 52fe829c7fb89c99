//! How quickly a pool that sizes itself reacts to the host.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer};

use crate::{ControlError, written::number};

/// How often a pool of size auto looks at the host, at least, in milliseconds: 10 to 10000. So long it may take until it begins to give
/// back what the host lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reaction(u32);

impl Reaction {
    /// As a number of milliseconds.
    pub fn milliseconds(self) -> u32 {
        self.0
    }

    /// As a time.
    pub fn time(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl Default for Reaction {
    /// The quickest guests fill 30 MiB meanwhile, and what the host lacks is asked back well within a second. A look takes some 30 us.
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Reaction {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(milliseconds @ 10..=10_000) => Ok(Self(milliseconds)),
            _ => Err(ControlError::Reaction { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for Reaction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactions_are_bounded() {
        let time = |text: &str| text.parse().map(Reaction::time).ok();
        assert_eq!(
            (time("10"), time("10000")),
            (Some(Duration::from_millis(10)), Some(Duration::from_secs(10)))
        );
        assert_eq!((time("9"), time("10001"), time("soon")), (None, None, None));
    }
}
