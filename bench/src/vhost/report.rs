//! What a run found out, as a table for people and as JSON for scripts.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{args::Completion, device::ANSWER_SECONDS};

/// The slowest request that is told apart, twice what the benchmark waits for any.
const LATENCY_MAX_NS: u64 = 2 * ANSWER_SECONDS * 1_000_000_000;

/// The figures of one phase. Latencies are from the request's place in the ring to its answer being seen.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Requests in flight.
    pub depth: u16,
    /// Share of reads among the requests, in percent.
    pub read_percent: u8,
    /// Requests that were answered while it counted.
    pub requests: u64,
    /// Answered requests per second.
    pub iops: f64,
    /// Mean latency in microseconds.
    pub mean_us: f64,
    /// Half of the requests were at most this slow, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 requests were at most this slow, in microseconds.
    pub p99_us: f64,
    /// The slowest request, in microseconds.
    pub max_us: f64,
}

impl Phase {
    /// An empty histogram for a phase's latencies in nanoseconds, to three digits.
    #[expect(clippy::expect_used, reason = "bounds and digits are constants that fit")]
    pub(super) fn latencies() -> Histogram<u64> {
        Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("constant bounds")
    }

    /// From the latencies, in nanoseconds, of `seconds` of requests.
    pub(super) fn new(depth: u16, read_percent: u8, latencies: &Histogram<u64>, seconds: f64) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            depth,
            read_percent,
            requests: latencies.len(),
            iops: latencies.len() as f64 / seconds,
            mean_us: latencies.mean() / 1000.0,
            p50_us: us(latencies.value_at_quantile(0.5)),
            p99_us: us(latencies.value_at_quantile(0.99)),
            max_us: us(latencies.max()),
        }
    }
}

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
        let completion = match self.completion {
            Completion::Poll => "polled",
            Completion::Event => "notified",
        };
        let mut text = format!(
            "{}: random 4 KiB requests over {} MiB, {} queue(s), completions {completion}, pages: {}\n\n\
             | depth | reads | mean us | p50 us | p99 us | max us | IOPS |\n|---|---|---|---|---|---|---|\n",
            self.socket,
            self.region_bytes >> 20,
            self.queues,
            self.pages,
        );
        for phase in &self.phases {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {}% | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} |",
                phase.depth,
                phase.read_percent,
                phase.mean_us,
                phase.p50_us,
                phase.p99_us,
                phase.max_us,
                phase.iops
            );
        }
        text.push('\n');
        text.push_str(&match self.verified_pages {
            Some(pages) => format!("verified: all {pages} pages read back as last written"),
            None => "not verified (--no-verify)".to_string(),
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut latencies = Phase::latencies();
        for us in 1..=100 {
            latencies.record(us * 1000).unwrap();
        }
        Report {
            socket: "s".into(),
            pages: "p".into(),
            region_bytes: 1 << 30,
            queues: 1,
            completion: Completion::Event,
            seconds: 2.0,
            phases: vec![Phase::new(32, 50, &latencies, 2.0)],
            verified_pages: Some(7),
        }
    }

    #[test]
    fn figures_are_in_microseconds_and_per_second() {
        let phase = &report().phases[0];
        assert_eq!((phase.requests, phase.iops), (100, 50.0));
        assert!((phase.mean_us - 50.5).abs() < 0.1, "{}", phase.mean_us);
        assert!((phase.p50_us - 50.0).abs() < 0.1 && (phase.p99_us - 99.0).abs() < 0.1);
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
