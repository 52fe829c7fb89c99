//! Sizes as people write them: `512M`, `4G`, `4096`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ControlError;

/// Binary units, smallest first: each is 1024 times the one before.
const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// A number of bytes, written with binary units: `K` is 1024 bytes, `M` 1024 of those, up to `E`.
///
/// Read: digits, then nothing, one of `K M G T P E` in either case, or the same followed by `iB`. Decimal units (`MB`)
/// and fractions are refused, because half of their readers would take them for something else.
/// Written: exactly, in the largest unit that divides it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// For tables: three digits or so and a unit, rounded (`1.5G`, `312M`, `17B`).
    pub fn rounded(self) -> String {
        let mut value = self.0 as f64;
        let mut unit = 'B';
        for next in UNITS {
            // What would be shown as 1024 of a unit is shown as 1.0 of the next.
            if value < 1023.5 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        if unit == 'B' || value >= 99.95 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
    }
}

impl FromStr for ByteSize {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let wrong = |why| ControlError::Size { text: text.to_owned(), why };
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        if digits.is_empty() {
            return Err(wrong("write a whole number of bytes, with a binary unit if you like: 512M, 4G"));
        }
        if unit.starts_with(['.', ',']) {
            return Err(wrong("write a whole number in a smaller unit: 1536M for one and a half G"));
        }
        let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
            "" if unit.is_empty() => 0,
            letter => {
                let mut letters = letter.chars();
                let known =
                    letters.next().and_then(|c| UNITS.iter().position(|u| *u == c.to_ascii_uppercase()));
                match (known, letters.as_str()) {
                    (Some(position), "") => 10 * (position as u32 + 1),
                    (Some(_), "B" | "b") => {
                        return Err(wrong(
                            "decimal units are not taken: write 512M for 512 * 1024 * 1024 bytes",
                        ));
                    }
                    _ => return Err(wrong("the unit must be one of K, M, G, T, P, E (binary): 512M, 4G")),
                }
            }
        };
        let too_large = || wrong("it does not fit in 64 bits");
        let number: u64 = digits.parse().map_err(|_| too_large())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0;
        let mut unit = None;
        for next in UNITS {
            if value == 0 || !value.is_multiple_of(1024) {
                break;
            }
            value /= 1024;
            unit = Some(next);
        }
        write!(f, "{value}")?;
        unit.map_or(Ok(()), |unit| write!(f, "{unit}"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512M\" or a number of bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| {
                    E::custom(ControlError::Size {
                        text: bytes.to_string(),
                        why: "a size cannot be negative",
                    })
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<u64, String> {
        text.parse::<ByteSize>().map(ByteSize::bytes).map_err(|e| e.to_string())
    }

    #[test]
    fn units_are_binary() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("4G"), Ok(4 << 30));
        assert_eq!(parse("4g"), Ok(4 << 30));
        assert_eq!(parse("4GiB"), Ok(4 << 30));
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("15E"), Ok(15 << 60));
    }

    #[test]
    fn nonsense_is_named_and_the_way_out_given() {
        for text in [
            "", "G", "-1", "+4G", "4X", "4iB", "iB", "4 G", " 4G", "4G ", "1.5G", "4GB", "4Gib", "4GiBs",
            "0x10", "٤G",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(&format!("`{text}` is not a size: ")), "{error}");
        }
        assert!(parse("4GB").unwrap_err().contains("512M"));
        assert!(parse("1.5G").unwrap_err().contains("1536M"));
    }

    #[test]
    fn what_does_not_fit_in_64_bits_is_refused() {
        for text in ["16E", "18446744073709551616", "99999999999999999999999G", "18014398509481984K"] {
            assert!(parse(text).expect_err(text).contains("64 bits"), "{text}");
        }
    }

    #[test]
    fn rounded_for_tables() {
        for (bytes, text) in [
            (0, "0B"),
            (17, "17B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1536 << 20, "1.5G"),
            (312 << 20, "312M"),
            ((1 << 20) - 1, "1.0M"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(ByteSize(bytes).rounded(), text);
        }
    }

    proptest! {
        #[test]
        fn written_sizes_read_back_the_same(bytes: u64) {
            prop_assert_eq!(parse(&ByteSize(bytes).to_string()), Ok(bytes));
        }

        #[test]
        fn round_sizes_read_back_the_same(number in 0u64..1024, shift in 0u32..6) {
            let bytes = number << (10 * shift);
            prop_assert_eq!(parse(&ByteSize(bytes).to_string()), Ok(bytes));
        }

        #[test]
        fn any_text_is_a_size_or_an_error_that_quotes_it(text in ".{0,12}") {
            if let Err(error) = parse(&text) {
                prop_assert!(error.contains(&text));
            }
        }
    }
}
