//! A guest under QEMU: its virtio balloon, over the monitor, and what its agent knows.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tmem_balance::Report;

use crate::{
    ActuatorError, Seen,
    agent::Agent,
    freshness::Freshness,
    limits::{in_time, memory_bytes},
    monitor::Monitor,
};

/// What a guest without a balloon is to be started with.
const ADD: &str = "-device virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on";
/// How often QEMU asks the guest for its statistics, in seconds: each decision is to find new ones.
const STATISTICS_SECONDS: u64 = 2;

/// See the module.
pub(crate) struct Qemu {
    balloon: BalloonDevice,
    agent: Option<Agent>,
}

/// What QEMU itself knows.
struct BalloonDevice {
    monitor: PathBuf,
    connected: Option<Connected>,
    freshness: Freshness,
}

struct Connected {
    monitor: Monitor,
    /// The balloon's path in QEMU's tree of objects.
    balloon: String,
}

#[derive(Deserialize)]
struct Property {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct MemorySizes {
    #[serde(rename = "base-memory")]
    base: u64,
    #[serde(rename = "plugged-memory", default)]
    plugged: u64,
}

#[derive(Deserialize)]
struct Balloon {
    actual: u64,
}

#[derive(Deserialize)]
struct Statistics {
    /// In seconds since 1970; 0 where there were none yet.
    #[serde(rename = "last-update")]
    at: u64,
    stats: Numbers,
}

/// QEMU has the largest number there is for what a guest did not say.
#[derive(Deserialize)]
struct Numbers {
    #[serde(rename = "stat-available-memory")]
    available: Option<u64>,
}

impl Qemu {
    pub(crate) fn new(monitor: PathBuf, agent: Option<PathBuf>) -> Qemu {
        let balloon = BalloonDevice { monitor, connected: None, freshness: Freshness::default() };
        Qemu { balloon, agent: agent.map(Agent::new) }
    }

    /// The agent is asked meanwhile. A guest whose agent does not answer is one without.
    pub(crate) async fn look(&mut self) -> Result<Seen, ActuatorError> {
        let place = self.balloon.monitor.clone();
        let asked = async {
            match &mut self.agent {
                Some(agent) => agent.read().await,
                None => None,
            }
        };
        let (seen, said) = tokio::join!(in_time(&place, self.balloon.look()), asked);
        let mut seen = seen?;
        if let Some(said) = said {
            // The agent's is of this moment.
            let available_bytes =
                said.available_bytes.or(seen.report.and_then(|report| report.available_bytes));
            seen.report = Some(Report { available_bytes, ..said });
        }
        Ok(seen)
    }

    pub(crate) async fn set(&mut self, target_bytes: u64) -> Result<(), ActuatorError> {
        let place = self.balloon.monitor.clone();
        in_time(&place, self.balloon.set(target_bytes)).await
    }
}

impl BalloonDevice {
    async fn set(&mut self, target_bytes: u64) -> Result<(), ActuatorError> {
        let mut connected = self.connected().await?;
        // QEMU takes no 0, nor more than its numbers with a sign go.
        let value = target_bytes.clamp(1 << 20, 1 << 50);
        connected.monitor.command("balloon", json!({"value": value})).await?;
        self.connected = Some(connected);
        Ok(())
    }

    /// The connection that there is, or a new one. Whoever takes it gives it back when all went well: one on which an answer is still to come
    /// is of no more use.
    async fn connected(&mut self) -> Result<Connected, ActuatorError> {
        if let Some(connected) = self.connected.take() {
            return Ok(connected);
        }
        let mut monitor = Monitor::connect(&self.monitor).await?;
        let balloon = self.find_balloon(&mut monitor).await?;
        let interval =
            json!({"path": balloon, "property": "guest-stats-polling-interval", "value": STATISTICS_SECONDS});
        self.freshness.begin();
        monitor.command("qom-set", interval).await?;
        Ok(Connected { monitor, balloon })
    }

    /// Devices with an id of the user's are at the first place, others at the second.
    async fn find_balloon(&self, monitor: &mut Monitor) -> Result<String, ActuatorError> {
        for place in ["/machine/peripheral", "/machine/peripheral-anon"] {
            let devices: Vec<Property> = monitor.ask("qom-list", json!({"path": place})).await?;
            let balloon = devices.iter().find(|device| device.kind.starts_with("child<virtio-balloon"));
            if let Some(balloon) = balloon {
                return Ok(format!("{place}/{}", balloon.name));
            }
        }
        Err(ActuatorError::NoBalloon { place: self.monitor.clone(), add: ADD })
    }

    async fn look(&mut self) -> Result<Seen, ActuatorError> {
        let mut connected = self.connected().await?;
        let Connected { monitor, balloon } = &mut connected;
        let sizes: MemorySizes = monitor.ask("query-memory-size-summary", json!({})).await?;
        let Balloon { actual } = monitor.ask("query-balloon", json!({})).await?;
        let asked = json!({"path": balloon, "property": "guest-stats"});
        let statistics: Statistics = monitor.ask("qom-get", asked).await?;
        let max_bytes = sizes.base.saturating_add(sizes.plugged);
        let size_bytes = memory_bytes(&self.monitor, "size", actual)?;
        let report = self.freshness.is_new(Duration::from_secs(statistics.at)).then_some(Report {
            available_bytes: statistics.stats.available,
            committed_bytes: None,
            pressure: None,
        });
        let cpu_time = monitor.cpu_time();
        self.connected = Some(connected);
        Ok(Seen { size_bytes, max_bytes, report, swap_ins: None, cpu_time })
    }
}
