//! What a run found out, as a table for people and as JSON for scripts.

use serde::Serialize;

use crate::load::{Completion, Phase, table, verdict};

/// One run against one socket.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The socket that was driven.
    pub socket: String,
    /// Where the pages came from.
    pub pages: String,
    /// How much of the disk was used.
    pub region_bytes: u64,
    /// Virtqueues used.
    pub queues: u16,
    /// How completions were seen.
    pub completion: Completion,
    /// Length of each phase.
    pub seconds: f64,
    /// The phases, in the order they ran.
    pub phases: Vec<Phase>,
    /// Pages read back and found right at the end; nothing when that was not asked for.
    pub verified_pages: Option<u64>,
}

impl Report {
    /// The report as one JSON object.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The report as a Markdown table with a line above and below.
    pub fn to_table(&self) -> String {
        format!(
            "{}: random 4 KiB requests over {} MiB, {} queue(s), completions {}, pages: {}\n\n{}\n{}",
            self.socket,
            self.region_bytes >> 20,
            self.queues,
            self.completion.adjective(),
            self.pages,
            table(&self.phases),
            verdict(self.verified_pages)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            socket: "s".into(),
            pages: "p".into(),
            region_bytes: 1 << 30,
            queues: 1,
            completion: Completion::Event,
            seconds: 2.0,
            phases: vec![crate::load::phase_sample()],
            verified_pages: Some(7),
        }
    }

    #[test]
    fn table_and_json_carry_the_same_figures() {
        let report = report();
        assert!(
            report.to_table().contains("| 32 | 50% | 50.5 | 50.0 | 99.0 | 100 | 50 |"),
            "{}",
            report.to_table()
        );
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["phases"][0]["iops"], 50.0);
        assert_eq!(json["completion"], "event");
        assert_eq!(json["verified_pages"], 7);
    }
}
