//! A guest under Firecracker, as `src/firecracker/swagger/firecracker.yaml` of <https://github.com/firecracker-microvm/firecracker> describes its
//! API.

use std::path::PathBuf;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tmem_balance::Report;

use crate::{
    ActuatorError, Seen,
    limits::without_balloon,
    rest::{self, Answer},
};

/// What a guest without a balloon is to be started with.
const ADD: &str = r#""balloon": {"amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 2} in its configuration, or PUT /balloon before it starts"#;
const MACHINE: &str = "/machine-config";
const BALLOON: &str = "/balloon";
const STATISTICS: &str = "/balloon/statistics";
const MIB: u64 = 1 << 20;

/// See the module.
pub(crate) struct Firecracker {
    socket: PathBuf,
    /// What the guest said last. Statistics have no time, so the same as before are old ones.
    said: Option<Statistics>,
}

#[derive(Deserialize)]
struct Machine {
    mem_size_mib: u64,
}

#[derive(Deserialize)]
struct Balloon {
    /// What it is to have.
    amount_mib: u64,
    stats_polling_interval_s: Option<u64>,
}

#[derive(Clone, PartialEq, Deserialize)]
struct Statistics {
    /// What it has.
    actual_mib: u64,
    free_memory: Option<u64>,
    available_memory: Option<u64>,
    disk_caches: Option<u64>,
    minor_faults: Option<u64>,
}

impl Firecracker {
    pub(crate) fn new(socket: PathBuf) -> Firecracker {
        Firecracker { socket, said: None }
    }

    /// A guest whose balloon was made without statistics does not say how far it is: it is taken to be where it was told.
    pub(crate) async fn look(&mut self) -> Result<Seen, ActuatorError> {
        let max_bytes = self.max_bytes().await?;
        let balloon = self.get(BALLOON).await?;
        if balloon.status() == StatusCode::BAD_REQUEST {
            return Err(ActuatorError::NoBalloon { place: self.socket.clone(), add: ADD });
        }
        let cpu_time = balloon.cpu_time();
        let balloon: Balloon = balloon.read(&self.socket, BALLOON)?;
        let (mut balloon_mib, mut report) = (balloon.amount_mib, None);
        if balloon.stats_polling_interval_s.unwrap_or(0) > 0 {
            let statistics: Statistics = self.get(STATISTICS).await?.read(&self.socket, STATISTICS)?;
            balloon_mib = statistics.actual_mib;
            if self.said.as_ref() != Some(&statistics) {
                report = Some(Report { available_bytes: statistics.available_memory, ..Report::default() });
            }
            self.said = Some(statistics);
        }
        let size_bytes = without_balloon(&self.socket, max_bytes, balloon_mib.saturating_mul(MIB))?;
        Ok(Seen { size_bytes, max_bytes, report, swap_ins: None, cpu_time })
    }

    /// In whole MiB; what is not one more, the guest keeps.
    pub(crate) async fn set(&mut self, target_bytes: u64) -> Result<(), ActuatorError> {
        let balloon_mib = self.max_bytes().await?.saturating_sub(target_bytes) / MIB;
        let body = json!({"amount_mib": balloon_mib});
        rest::ask(&self.socket, Method::PATCH, BALLOON, Some(body)).await?.done(&self.socket, BALLOON)
    }

    async fn max_bytes(&self) -> Result<u64, ActuatorError> {
        let machine: Machine = self.get(MACHINE).await?.read(&self.socket, MACHINE)?;
        Ok(machine.mem_size_mib.saturating_mul(MIB))
    }

    async fn get(&self, path: &str) -> Result<Answer, ActuatorError> {
        rest::ask(&self.socket, Method::GET, path, None).await
    }
}
