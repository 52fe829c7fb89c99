//! Whom the balancer decides about, and what it knows of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::demand::Demand;

/// What somebody has set for a guest or cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// It never gets less, in bytes.
    pub floor_bytes: u64,
    /// It never gets more, in bytes: what it was started with.
    pub ceiling_bytes: u64,
    /// What a swap-in of it counts, 100 being the usual.
    pub weight: u32,
}

/// What a guest says of itself. A hint: it may be wrong, or a lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it could use without swapping, in bytes: `MemAvailable`.
    pub available_bytes: Option<u64>,
    /// What its programs have asked for, in bytes: `Committed_AS`.
    pub committed_bytes: Option<u64>,
    /// Of the last ten seconds, the part during which something of it waited for memory, 0 to 1: `some` of its memory pressure.
    pub pressure: Option<f64>,
}

/// One guest or cgroup at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// As its client is called.
    pub name: String,
    /// What is set for it.
    pub limits: Limits,
    /// The memory that it has now, in bytes.
    pub size_bytes: u64,
    /// What it has had in the pool since somebody counts; `None`: it has no client there.
    pub demand: Option<Demand>,
    /// What it has in the pool, in bytes before compression.
    pub swapped_bytes: u64,
    /// CPUs that it kept busy on average since the scene before, as its host counts; `None`: nobody knows.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// What it says; `None`: nothing, or nothing new.
    pub report: Option<Report>,
    /// It can be reached. One that cannot is left alone.
    pub answers: bool,
}

impl Subject {
    /// What it says that it could use without swapping, in bytes.
    pub fn available_bytes(&self) -> Option<u64> {
        self.report.and_then(|report| report.available_bytes)
    }
}

/// All of them at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Since the balancer began.
    pub at: Duration,
    /// What all subjects together may have, in bytes.
    pub budget_bytes: u64,
    /// Whom it is about.
    pub subjects: Vec<Subject>,
}
