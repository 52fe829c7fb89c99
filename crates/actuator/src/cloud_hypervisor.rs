//! A guest under Cloud Hypervisor, as `vmm/src/api/openapi/cloud-hypervisor.yaml` of <https://github.com/cloud-hypervisor/cloud-hypervisor>
//! describes its API.

use std::{path::PathBuf, time::Duration};

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tmem_balance::Report;

use crate::{ActuatorError, Seen, freshness::Freshness, rest};

/// What a guest without a balloon is to be started with.
const ADD: &str = "--balloon size=0,deflate_on_oom=on,free_page_reporting=on";
const INFO: &str = "/api/v1/vm.info";
const RESIZE: &str = "/api/v1/vm.resize";
const STATISTICS: &str = "/api/v1/vm.balloon-stats";

/// See the module.
pub(crate) struct CloudHypervisor {
    socket: PathBuf,
    freshness: Freshness,
}

#[derive(Deserialize)]
struct Info {
    config: Config,
    /// Memory less what the balloon has.
    memory_actual_size: u64,
}

#[derive(Deserialize)]
struct Config {
    memory: Memory,
    balloon: Option<Value>,
}

#[derive(Deserialize)]
struct Memory {
    /// 0 where there are zones.
    size: u64,
    hotplugged_size: Option<u64>,
    zones: Option<Vec<Zone>>,
}

#[derive(Deserialize)]
struct Zone {
    size: u64,
    hotplugged_size: Option<u64>,
}

#[derive(Deserialize)]
struct Statistics {
    /// In milliseconds since 1970; 0 where there were none yet.
    last_update: u64,
    stats: Numbers,
}

#[derive(Deserialize)]
struct Numbers {
    available_memory: Option<u64>,
}

impl Memory {
    fn bytes(&self) -> u64 {
        let zones =
            self.zones.iter().flatten().flat_map(|zone| [zone.size, zone.hotplugged_size.unwrap_or(0)]);
        let all = zones.chain([self.size, self.hotplugged_size.unwrap_or(0)]);
        all.fold(0, u64::saturating_add)
    }
}

impl CloudHypervisor {
    pub(crate) fn new(socket: PathBuf) -> CloudHypervisor {
        CloudHypervisor { socket, freshness: Freshness::default() }
    }

    pub(crate) async fn look(&mut self) -> Result<Seen, ActuatorError> {
        let (info, cpu_time) = self.info().await?;
        let report = self.report().await?;
        let (size_bytes, max_bytes) = (info.memory_actual_size, info.config.memory.bytes());
        Ok(Seen { size_bytes, max_bytes, report, swap_ins: None, cpu_time })
    }

    pub(crate) async fn set(&mut self, target_bytes: u64) -> Result<(), ActuatorError> {
        let balloon_bytes = self.info().await?.0.config.memory.bytes().saturating_sub(target_bytes);
        let body = json!({"desired_balloon": balloon_bytes});
        rest::ask(&self.socket, Method::PUT, RESIZE, Some(body)).await?.done(&self.socket, RESIZE)
    }

    /// With its process's CPU time.
    async fn info(&self) -> Result<(Info, Option<Duration>), ActuatorError> {
        let answer = rest::ask(&self.socket, Method::GET, INFO, None).await?;
        let info: Info = answer.read(&self.socket, INFO)?;
        if info.config.balloon.is_none() {
            return Err(ActuatorError::NoBalloon { place: self.socket.clone(), add: ADD });
        }
        Ok((info, answer.cpu_time()))
    }

    /// What the guest says. Older versions have no statistics, and a guest may not give any: both is a no here.
    async fn report(&mut self) -> Result<Option<Report>, ActuatorError> {
        let answer = rest::ask(&self.socket, Method::GET, STATISTICS, None).await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let statistics: Statistics = answer.read(&self.socket, STATISTICS)?;
        let is_new = self.freshness.is_new(Duration::from_millis(statistics.last_update));
        let available_bytes = statistics.stats.available_memory;
        Ok(is_new.then_some(Report { available_bytes, ..Report::default() }))
    }
}
