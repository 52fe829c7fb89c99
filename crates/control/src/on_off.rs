//! What is on or off.

/// For a type with the variants `On` and `Off`: how flags and knobs write it, and how a configuration's file does. What is neither is the
/// [`ControlError`](crate::ControlError) that is called as the type is.
macro_rules! written_on_or_off {
    ($type:ident) => {
        impl std::str::FromStr for $type {
            type Err = $crate::ControlError;

            fn from_str(text: &str) -> Result<Self, $crate::ControlError> {
                match text {
                    "on" => Ok(Self::On),
                    "off" => Ok(Self::Off),
                    _ => Err($crate::ControlError::$type { text: text.to_owned() }),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use written_on_or_off;
