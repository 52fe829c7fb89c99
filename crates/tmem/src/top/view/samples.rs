//! What a daemon might say, for tests.

use std::time::{Duration, Instant};

use serde_json::json;
use tmem_control::{
    BalanceDecision, BalanceReport, BalancedGuest, ClientStatus, HostMemory, Status, TierStatus,
};

use crate::top::look::Look;

pub(in crate::top) const SECOND: Duration = Duration::from_secs(1);

/// A client with a disk; all of its counters stand at this.
pub(in crate::top) fn client(name: &str, counter: u64) -> ClientStatus {
    let mut value = json!({
        "name": name, "kind": "disk", "weight": 100, "dedup": "alone", "cap_bytes": null,
        "reuse_distances": {"buckets": [], "older_gets": 0},
        "disk": {"size_bytes": 4u64 << 30, "transport": "vhost-user-blk", "socket": "/run/x.sock", "connected": true},
    });
    for field in [
        "stored_pages",
        "peak_stored_pages",
        "same_filled_pages",
        "dedup_pages",
        "raw_pages",
        "metadata_bytes",
        "compressed_bytes",
        "puts",
        "gets",
        "flushes",
        "refused_puts",
        "evicted_pages",
        "checksum_errors",
        "recompressed_pages",
        "recompression_saved_bytes",
        "recompression_kept_pages",
    ] {
        value[field] = json!(counter);
    }
    value["used_bytes"] = json!(counter << 20);
    value["logical_bytes"] = json!((counter << 20) * 5 / 2);
    serde_json::from_value(value).unwrap()
}

/// A daemon with these clients, whose pool is half full.
pub(in crate::top) fn look(clients: Vec<ClientStatus>) -> Look {
    let status: Status = serde_json::from_value(json!({
        "version": "0.1.0", "pid": 10, "worker_pid": 11, "worker_deaths": 0, "uptime_seconds": 3660, "http": null,
        "pool": {
            "limit_bytes": 4u64 << 30, "used_bytes": 1u64 << 30, "held_bytes": 2u64 << 30, "stored_pages": 786_432,
            "logical_bytes": 3u64 << 30, "compressed_bytes": 1u64 << 30, "metadata_bytes": 1, "recompressed_pages": 0,
            "recompression_saved_bytes": 0, "recompression_kept_pages": 0,
        },
        "clients": clients, "tiers": [],
    }))
    .unwrap();
    let host = HostMemory { total_bytes: 16 << 30, available_bytes: 4 << 30, stalled: None };
    Look { at: Instant::now(), status, host: Some(host) }
}

pub(in crate::top) fn balanced(name: &str) -> BalancedGuest {
    BalancedGuest {
        name: name.to_owned(),
        kind: "qemu".to_owned(),
        size_bytes: 1 << 30,
        target_bytes: 768 << 20,
        floor_bytes: 256 << 20,
        ceiling_bytes: 2 << 30,
        weight: 100,
        answers: true,
        available_bytes: None,
        pressure: Some(0.125),
        reason: "idle: probed downward".to_owned(),
        trouble: None,
    }
}

pub(in crate::top) fn report(guests: Vec<BalancedGuest>) -> BalanceReport {
    let decision = |guest: &BalancedGuest| BalanceDecision {
        unix_ms: 1_000_000,
        guest: guest.name.clone(),
        from_bytes: guest.size_bytes,
        to_bytes: guest.target_bytes,
        reason: guest.reason.clone(),
    };
    BalanceReport {
        pid: 12,
        policy: "reuse".to_owned(),
        interval_seconds: 5.0,
        budget_bytes: 8 << 30,
        decisions: guests.iter().map(decision).collect(),
        guests,
        ..BalanceReport::default()
    }
}

pub(in crate::top) fn tier(name: &str) -> TierStatus {
    serde_json::from_value(json!({
        "name": name, "kind": "file", "used_bytes": 1u64 << 30, "stored_pages": 262_144, "state": "ready", "limit_bytes": 8u64 << 30,
    }))
    .unwrap()
}
