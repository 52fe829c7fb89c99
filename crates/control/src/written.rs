//! What a file may say as text or as a number.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::ControlError;

/// A whole number in the file, checked as the flag is.
pub(crate) fn number<'de, D: Deserializer<'de>, T: FromStr<Err = ControlError>>(
    deserializer: D,
) -> Result<T, D::Error> {
    i64::deserialize(deserializer)?.to_string().parse().map_err(de::Error::custom)
}

/// Text in the file, or a whole number, checked as the flag is. Anything else was expected to be what `expecting` says.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>, T: FromStr<Err = ControlError>>(
    deserializer: D,
    expecting: &'static str,
) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
    }
    let text = match Written::deserialize(deserializer).map_err(|_| de::Error::custom(expecting))? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map_err(de::Error::custom)
}
