//! Memory of this program, as the kernel counts it.

use std::{fs, io};

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resident {
    pub(super) now_bytes: u64,
    /// The most since the program began, or since [`forget_peak`].
    pub(super) peak_bytes: u64,
}

/// Reads it from `/proc/self/status`.
pub(super) fn resident() -> io::Result<Resident> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Ok(Resident { now_bytes: kib("VmRSS:") << 10, peak_bytes: kib("VmHWM:") << 10 })
}

/// Starts the peak anew. Where the kernel does not let us, the peak stays that of the whole program.
pub(super) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_came_and_went_is_in_the_peak_only() {
        forget_peak();
        let before = resident().unwrap();
        let much = vec![1_u8; 64 << 20];
        std::hint::black_box(&much);
        drop(much);
        let after = resident().unwrap();
        assert!(after.peak_bytes >= before.now_bytes + (60 << 20), "{before:?} {after:?}");
        assert!(after.now_bytes < after.peak_bytes - (30 << 20), "{after:?}");
    }
}
