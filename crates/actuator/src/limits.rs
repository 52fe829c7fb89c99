//! What is too late, too long and too much.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use crate::ActuatorError;

/// For everything that is asked of one guest at once. Monitors answer within milliseconds, and all guests have to be asked every few seconds.
pub(crate) const CALL: Duration = Duration::from_secs(2);
/// The longest answer, in bytes: what Cloud Hypervisor says of a guest with hundreds of devices has some 100 KiB.
pub(crate) const MAX_ANSWER_BYTES: usize = 1 << 20;
/// No guest has a PiB of memory, nor has a host: beyond it a number is nonsense, and below it sums do not overflow.
const MAX_MEMORY_BYTES: u64 = 1 << 50;
/// How much of a stranger's text an error quotes, in characters.
const QUOTED: usize = 200;

/// Waits for it as long as a call may take.
pub(crate) async fn in_time<T>(
    place: &Path,
    call: impl Future<Output = Result<T, ActuatorError>>,
) -> Result<T, ActuatorError> {
    let late = |_| ActuatorError::Late { place: place.into(), seconds: CALL.as_secs() };
    tokio::time::timeout(CALL, call).await.map_err(late)?
}

/// When a call that begins now is too late.
pub(crate) fn deadline() -> Instant {
    Instant::now() + CALL
}

/// The memory of a guest, if it can be that.
pub(crate) fn memory_bytes(place: &Path, what: &str, bytes: u64) -> Result<u64, ActuatorError> {
    if (1..=MAX_MEMORY_BYTES).contains(&bytes) {
        return Ok(bytes);
    }
    Err(ActuatorError::Nonsense { place: place.into(), what: format!("{bytes} bytes as its {what}") })
}

/// What is left of a guest's memory by its balloon, if it can be that.
pub(crate) fn without_balloon(
    place: &Path,
    max_bytes: u64,
    balloon_bytes: u64,
) -> Result<u64, ActuatorError> {
    max_bytes.checked_sub(balloon_bytes).ok_or_else(|| ActuatorError::Nonsense {
        place: place.into(),
        what: format!("a balloon of {balloon_bytes} bytes in a guest of {max_bytes}"),
    })
}

/// What a guest says of its memory, if it can be that; nobody else is troubled by what cannot.
pub(crate) fn believable(bytes: Option<u64>, most_bytes: u64) -> Option<u64> {
    bytes.filter(|bytes| *bytes <= most_bytes.min(MAX_MEMORY_BYTES))
}

/// A stranger's text as a part of an error: one line, and not a long one.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.trim().chars().take(QUOTED) {
        if c.is_control() { quoted.extend(c.escape_default()) } else { quoted.push(c) }
    }
    if text.trim().chars().nth(QUOTED).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        let place = Path::new("/run/vm.qmp");
        assert_eq!(memory_bytes(place, "memory", 1 << 30).ok(), Some(1 << 30));
        for bytes in [0, (1 << 50) + 1, u64::MAX] {
            let error = memory_bytes(place, "memory", bytes).expect_err("nonsense").to_string();
            assert!(error.contains("/run/vm.qmp") && error.contains(&bytes.to_string()), "{error}");
        }
        assert_eq!(without_balloon(place, 100, 100).ok(), Some(0));
        assert!(without_balloon(place, 100, 101).is_err());
        assert_eq!(believable(Some(u64::MAX), u64::MAX), None, "what QEMU says for `not known`");
        assert_eq!([believable(Some(7), 7), believable(Some(8), 7)], [Some(7), None]);
    }

    #[test]
    fn quotes_are_one_short_line() {
        assert_eq!(quoted(" a\nb\u{1b}[2J "), r"a\nb\u{1b}[2J");
        assert_eq!(quoted(&"ü".repeat(1000)).chars().count(), QUOTED + 1);
    }
}
