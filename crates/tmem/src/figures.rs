//! Numbers as people read them.

use tmem_control::ByteSize;

/// A size in three digits or so.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::from_bytes(bytes).rounded()
}

/// How many bytes of pages a byte of the pool holds.
pub(crate) fn ratio(logical_bytes: u64, used_bytes: u64) -> String {
    if used_bytes == 0 { "-".to_owned() } else { format!("{:.2}", logical_bytes as f64 / used_bytes as f64) }
}

/// The two largest units of a time.
pub(crate) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

/// So many a second, in four characters or so; `-` where that is not known.
pub(crate) fn rate(per_second: Option<f64>) -> String {
    let Some(per_second) = per_second else { return "-".to_owned() };
    match per_second {
        0.0 => "0".to_owned(),
        few if few < 9.95 => format!("{few:.1}"),
        some if some < 9_999.5 => format!("{some:.0}"),
        many if many < 9_999_500.0 => format!("{:.0}k", many / 1e3),
        many => format!("{:.0}M", many / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_keeps_two_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m01s"), (3_660, "1h01m"), (90_000, "1d01h")] {
            assert_eq!(uptime(seconds), text);
        }
    }

    #[test]
    fn an_empty_pool_has_no_ratio() {
        assert_eq!(ratio(0, 0), "-");
        assert_eq!(ratio(8192, 4096), "2.00");
    }

    #[test]
    fn a_rate_is_short() {
        let known =
            [(0.0, "0"), (0.5, "0.5"), (9.96, "10"), (9_999.0, "9999"), (12_345.0, "12k"), (3e7, "30M")];
        for (per_second, text) in known {
            assert_eq!(rate(Some(per_second)), text);
        }
        assert_eq!(rate(None), "-");
    }
}
