//! What a frontend has seen, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one frontend, shared by its threads. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) refused_connections: AtomicU64,
    pub(crate) protocol_errors: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) failed_requests: AtomicU64,
    pub(crate) bad_requests: AtomicU64,
    pub(crate) broken_queues: AtomicU64,
}

/// The counters of a frontend at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostCounts {
    /// Guests that connected.
    pub connections: u64,
    /// Connections refused because a guest was connected.
    pub refused_connections: u64,
    /// Connections closed because of what came over the socket.
    pub protocol_errors: u64,
    /// Requests taken from the queues, good and bad.
    pub requests: u64,
    /// Well-formed requests that the disk failed.
    pub failed_requests: u64,
    /// Requests that made no sense or asked for what the device does not have.
    pub bad_requests: u64,
    /// Queues not served any further because the ring made no sense.
    pub broken_queues: u64,
}

impl Counters {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters now.
    pub fn snapshot(&self) -> VhostCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VhostCounts {
            connections: get(&self.connections),
            refused_connections: get(&self.refused_connections),
            protocol_errors: get(&self.protocol_errors),
            requests: get(&self.requests),
            failed_requests: get(&self.failed_requests),
            bad_requests: get(&self.bad_requests),
            broken_queues: get(&self.broken_queues),
        }
    }
}
