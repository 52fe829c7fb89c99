//! How often a node says what it has to lend.
//!
//! Each time is a message to every other node. Those that are connected are told by the node itself anyway; this is only for who chooses whom
//! to connect to.

use std::time::Duration;

/// Not more often.
const SHORTEST: Duration = Duration::from_secs(5);

/// Messages a second that etcd sends for this in a whole cluster, at most. Chosen, not measured.
const MESSAGES_A_SECOND: u64 = 2000;

/// From one time to the next, with so many nodes.
pub(crate) fn interval(nodes: usize) -> Duration {
    let nodes = nodes as u64;
    SHORTEST.max(Duration::from_secs(nodes.saturating_mul(nodes) / MESSAGES_A_SECOND))
}

/// Whether it changed by more than a sixteenth.
pub(crate) fn is_news(told_bytes: u64, free_bytes: u64) -> bool {
    told_bytes.abs_diff(free_bytes) > told_bytes / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_bounded_as_a_cluster_grows() {
        assert_eq!((interval(0), interval(3), interval(100)), (SHORTEST, SHORTEST, SHORTEST));
        for nodes in [101usize, 200, 1000, 5000] {
            let all_tell_all = (nodes * nodes) as f64 / interval(nodes).as_secs_f64();
            assert!(all_tell_all <= 1.1 * MESSAGES_A_SECOND as f64 + 100.0, "{nodes}: {all_tell_all}");
        }
    }

    #[test]
    fn small_changes_are_no_news() {
        for (told, free, news) in [
            (0, 0, false),
            (0, 1, true),
            (1600, 1700, false),
            (1600, 1701, true),
            (1600, 1499, true),
            (u64::MAX, 0, true),
        ] {
            assert_eq!(is_news(told, free), news, "{told} {free}");
        }
    }
}
