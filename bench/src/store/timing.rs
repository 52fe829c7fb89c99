//! Times of single operations.

use std::{
    ops::AddAssign,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Slower operations count as this slow: 10 s.
const SLOWEST_NS: u64 = 10_000_000_000;

/// The clock, and what reading it takes: tens of nanoseconds, which matter beside a flush.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    cost: Duration,
}

impl Clock {
    /// Measures what a reading takes: the median of the time between two with nothing in between.
    pub(super) fn measure() -> Self {
        let mut gaps: Vec<Duration> = (0..10_001)
            .map(|_| {
                let start = Instant::now();
                start.elapsed()
            })
            .collect();
        gaps.sort_unstable();
        Self { cost: gaps[gaps.len() / 2] }
    }

    /// What a reading takes, in microseconds.
    pub(super) fn cost_us(self) -> f64 {
        self.cost.as_secs_f64() * 1e6
    }

    /// The time of one operation, without the clock's own.
    pub(super) fn time<R>(self, latencies: &mut Latencies, operation: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = operation();
        let took = start.elapsed().saturating_sub(self.cost);
        latencies.0.saturating_record(took.as_nanos() as u64);
        result
    }
}

/// The times of many operations.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

/// Figures of many operations, in microseconds each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The mean.
    pub mean: f64,
    /// Half of them took at most this long.
    pub p50: f64,
    /// 99 of 100 took at most this long.
    pub p99: f64,
}

impl Latencies {
    /// None yet; three digits are kept.
    #[expect(clippy::expect_used, reason = "bounds and digits are constants that fit")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, SLOWEST_NS, 3).expect("constant bounds"))
    }

    pub(super) fn figures(&self) -> Figures {
        let us = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Figures { mean: self.0.mean() / 1000.0, p50: us(0.5), p99: us(0.99) }
    }
}

impl AddAssign<&Latencies> for Latencies {
    fn add_assign(&mut self, other: &Latencies) {
        self.0 += &other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_microseconds() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|us| latencies.0.record(us * 1000).unwrap());
        let mut sum = Latencies::new();
        sum += &latencies;
        sum += &latencies;
        let Figures { mean, p50, p99 } = sum.figures();
        assert_eq!(sum.0.len(), 200);
        assert!((mean - 50.5).abs() < 0.1 && (p50 - 50.0).abs() < 0.1 && (p99 - 99.0).abs() < 0.1);
    }

    #[test]
    fn a_sleep_is_seen_and_nothing_is_below_zero() {
        let clock = Clock { cost: Duration::from_millis(1) };
        let mut latencies = Latencies::new();
        clock.time(&mut latencies, || {});
        assert_eq!(latencies.0.max(), 0);
        clock.time(&mut latencies, || std::thread::sleep(Duration::from_millis(5)));
        assert!(latencies.0.max() >= 3_900_000);
    }
}
