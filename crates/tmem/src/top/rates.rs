//! How fast counters grow, from two looks.

use tmem_control::ClientStatus;

use super::look::Look;

/// What a client does in a second. `None`: that is not known yet, or not of this second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Rates {
    /// Pages asked for.
    pub(super) swap_ins: Option<f64>,
    /// Pages taken.
    pub(super) swap_outs: Option<f64>,
    /// Pages not taken.
    pub(super) refused: Option<f64>,
}

impl Rates {
    /// Of a client in `now`, since the look before. Counters that belong to another process, or that fell, say nothing.
    pub(super) fn between(before: Option<&Look>, now: &Look, client: &ClientStatus) -> Self {
        let Some(before) = before.filter(|before| counts_on(before, now)) else { return Self::default() };
        let Some(earlier) = before.status.clients.iter().find(|earlier| earlier.name == client.name) else {
            return Self::default();
        };
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        let rate = |counter: fn(&ClientStatus) -> u64| {
            let grown = counter(client).checked_sub(counter(earlier))?;
            (seconds > 0.0).then(|| grown as f64 / seconds)
        };
        Self {
            swap_ins: rate(|client| client.gets),
            swap_outs: rate(|client| client.puts),
            refused: rate(|client| client.refused_puts),
        }
    }
}

/// Whether the same process counted both times.
fn counts_on(before: &Look, now: &Look) -> bool {
    let process = |look: &Look| (look.status.pid, look.status.worker_pid);
    process(before) == process(now) && before.status.uptime_seconds <= now.status.uptime_seconds
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::top::view::samples::{client, look};

    #[test]
    fn counters_that_grow_have_a_rate() {
        let before = look(vec![client("vm", 100)]);
        let mut now = look(vec![client("vm", 150)]);
        now.at = before.at + Duration::from_millis(500);
        let rates = Rates::between(Some(&before), &now, &now.status.clients[0]);
        assert_eq!(rates, Rates { swap_ins: Some(100.0), swap_outs: Some(100.0), refused: Some(100.0) });
        assert_eq!(Rates::between(None, &now, &now.status.clients[0]), Rates::default());
        let same_moment = Look { at: before.at, ..now.clone() };
        assert_eq!(Rates::between(Some(&before), &same_moment, &now.status.clients[0]), Rates::default());
    }

    #[test]
    fn a_daemon_that_begins_anew_has_no_rate_and_never_a_negative_one() {
        let before = look(vec![client("vm", 100)]);
        let second_after = |counter| {
            let mut now = look(vec![client("vm", counter)]);
            now.at = before.at + Duration::from_secs(1);
            now
        };
        let rates = |now: &Look| Rates::between(Some(&before), now, &now.status.clients[0]);
        assert_eq!(rates(&second_after(7)), Rates::default(), "they fell");
        let mut other = second_after(170);
        other.status.worker_pid += 1;
        assert_eq!(rates(&other), Rates::default(), "another worker has counted");
        let mut other = second_after(170);
        other.status.pid += 1;
        assert_eq!(rates(&other), Rates::default(), "another daemon has counted");
        let mut other = second_after(170);
        other.status.uptime_seconds = 0;
        assert_eq!(rates(&other), Rates::default(), "another daemon with the same number");
        let stranger = client("other", 3);
        assert_eq!(Rates::between(Some(&before), &second_after(7), &stranger), Rates::default());
    }
}
