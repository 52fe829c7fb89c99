//! What an export has seen, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one export, shared by its connections. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) protocol_errors: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) failed_requests: AtomicU64,
}

/// The counters of an export at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NbdCounts {
    /// Connections that chose the export.
    pub connections: u64,
    /// Of those, how many were closed because of what they sent.
    pub protocol_errors: u64,
    /// Requests, good and bad.
    pub requests: u64,
    /// Requests answered with an error.
    pub failed_requests: u64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> NbdCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NbdCounts {
            connections: get(&self.connections),
            protocol_errors: get(&self.protocol_errors),
            requests: get(&self.requests),
            failed_requests: get(&self.failed_requests),
        }
    }
}
