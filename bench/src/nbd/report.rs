//! What a run found out, as a table for people and as JSON for scripts.

use serde::Serialize;

use crate::load::{Completion, Phase, table, verdict};

/// One run against one export.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The socket that was driven.
    pub socket: String,
    /// The export's name.
    pub export: String,
    /// Where the pages came from.
    pub pages: String,
    /// How much of the export was used.
    pub region_bytes: u64,
    /// Connections used.
    pub connections: u16,
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
            "{} '{}': random 4 KiB requests over {} MiB, {} connection(s), completions {}, pages: {}\n\n{}\n{}",
            self.socket,
            self.export,
            self.region_bytes >> 20,
            self.connections,
            self.completion.adjective(),
            self.pages,
            table(&self.phases),
            verdict(self.verified_pages)
        )
    }
}
