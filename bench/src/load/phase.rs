//! The figures of a phase, and what is said of them.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::ANSWER_SECONDS;

/// The slowest request that is told apart, twice what the benchmark waits for any.
const LATENCY_MAX_NS: u64 = 2 * ANSWER_SECONDS * 1_000_000_000;

/// The figures of one phase. Latencies are from the request's being ready to its answer's being seen.
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
    pub(crate) fn latencies() -> Histogram<u64> {
        Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("constant bounds")
    }

    /// From the latencies, in nanoseconds, of `seconds` of requests.
    pub(crate) fn new(depth: u16, read_percent: u8, latencies: &Histogram<u64>, seconds: f64) -> Self {
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

/// Phases as the rows of a Markdown table.
pub(crate) fn table(phases: &[Phase]) -> String {
    let mut text =
        "| depth | reads | mean us | p50 us | p99 us | max us | IOPS |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for phase in phases {
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
    text
}

/// What the verification found, in a sentence.
pub(crate) fn verdict(verified_pages: Option<u64>) -> String {
    match verified_pages {
        Some(pages) => format!("verified: all {pages} pages read back as last written"),
        None => "not verified (--no-verify)".to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A phase of a hundred requests of 1 to 100 us.
    pub(crate) fn sample() -> Phase {
        let mut latencies = Phase::latencies();
        for us in 1..=100 {
            latencies.record(us * 1000).unwrap();
        }
        Phase::new(32, 50, &latencies, 2.0)
    }

    #[test]
    fn figures_are_in_microseconds_and_per_second() {
        let phase = sample();
        assert_eq!((phase.requests, phase.iops), (100, 50.0));
        assert!((phase.mean_us - 50.5).abs() < 0.1, "{}", phase.mean_us);
        assert!((phase.p50_us - 50.0).abs() < 0.1 && (phase.p99_us - 99.0).abs() < 0.1);
    }
}
