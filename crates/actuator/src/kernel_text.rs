//! Numbers in texts of the kernel, which may be a guest's.

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The part of the last ten seconds during which something waited, 0 to 1: `some avg10` of a pressure file, which has it in percent.
pub(crate) fn some_pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let part = percent.parse::<f64>().ok()? / 100.0;
    (0.0..=1.0).contains(&part).then_some(part)
}

/// The number of a line such as `inactive_file 4096`.
pub(crate) fn stat(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_found_and_checked() {
        let meminfo = "MemTotal: 9 kB\nMemAvailable:   2048 kB\nCommitted_AS: 18446744073709551615 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(2 << 20));
        assert_eq!(meminfo_bytes(meminfo, "Committed_AS"), None, "too large to be bytes");
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        let pressure =
            "some avg10=12.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=99.00 avg60=0.00 total=7\n";
        assert_eq!(some_pressure(pressure), Some(0.125));
        for bad in ["12.50", "100.01", "-1", "NaN", "inf", "1e999", ""] {
            let expected = (bad == "12.50").then_some(0.125);
            assert_eq!(some_pressure(&pressure.replace("12.50", bad)), expected, "{bad}");
        }
        assert_eq!(stat("anon 5\nanon_thp 6\nfile -7\n", "anon"), Some(5));
        assert_eq!(stat("anon 5\nfile -7\n", "file"), None);
    }

    proptest! {
        /// Whatever a guest says.
        #[test]
        fn any_text_is_a_number_or_none(text in "((MemAvailable:|some |avg10=|anon )?[ 0-9.kBeE+naifNI-]{0,30}\n?){0,6}") {
            let pressure = some_pressure(&text);
            prop_assert!(pressure.is_none_or(|pressure| (0.0..=1.0).contains(&pressure)));
            let bytes = meminfo_bytes(&text, "MemAvailable");
            prop_assert!(bytes.is_none_or(|bytes| bytes % 1024 == 0));
            stat(&text, "anon");
        }
    }
}
