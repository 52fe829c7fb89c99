//! The processes of a daemon, and what its keeper does about workers that die or hang.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{AdminError, ControlError, background::seconds_or_off, written::number};

/// The processes of a daemon at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processes {
    /// The one that was started, which holds everything: signals go to it.
    pub keeper: u32,
    /// The one that serves.
    pub worker: u32,
    /// The one that stands by to follow it, if one does.
    pub spare: Option<u32>,
    /// How many of those before it died.
    pub worker_deaths: u32,
    /// Since the keeper's start.
    pub uptime: Duration,
}

/// One worker after another, as the admin API sees it.
pub trait Succession: Send + Sync {
    /// The processes that there are.
    fn processes(&self) -> Processes;

    /// Has the program on disk take over from this process.
    ///
    /// # Errors
    /// It cannot be started, or one is just being.
    fn upgrade(&self) -> Result<(), AdminError>;

    /// What has become of that.
    fn upgrade_state(&self) -> UpgradeState;
}

/// What has become of a program that was to take over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UpgradeState {
    /// None was to, or the last one serves.
    #[default]
    None,
    /// It has been started, and does not serve yet.
    UnderWay,
    /// It has given up, and the one before it goes on.
    Failed,
}

/// The answer to `GET` and `POST /api/v1/upgrade`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// The process that serves now.
    pub worker_pid: u32,
    /// Another has been started, and neither serves nor has given up.
    pub pending: bool,
    /// The last one that was to take over has given up, and the one before it goes on.
    #[serde(default)]
    pub failed: bool,
}

/// With so many deaths of workers in a minute the keeper starts no other: 1 to 1000; 0 is any number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerDeaths(u32);

impl WorkerDeaths {
    /// As a number, 0 for any.
    pub fn per_minute(self) -> u32 {
        self.0
    }
}

impl Default for WorkerDeaths {
    /// One that dies so often does so at the same thing each time.
    fn default() -> Self {
        Self(5)
    }
}

impl FromStr for WorkerDeaths {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(deaths @ 0..=1000) => Ok(Self(deaths)),
            _ => Err(ControlError::WorkerDeaths { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for WorkerDeaths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

/// A worker one of whose threads has been at the same request for so long is killed: 1 to 3600 seconds, or never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchdog(Option<u32>);

impl Watchdog {
    /// As a time; none: never.
    pub fn time(self) -> Option<Duration> {
        self.0.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

impl Default for Watchdog {
    /// Twice what a disk gets that hangs, before its requests fail.
    fn default() -> Self {
        Self(Some(60))
    }
}

impl FromStr for Watchdog {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match (text, text.parse()) {
            ("off", _) => Ok(Self(None)),
            (_, Ok(seconds @ 1..=3600)) => Ok(Self(Some(seconds))),
            _ => Err(ControlError::Watchdog { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for Watchdog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        seconds_or_off(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_bounded() {
        let deaths = |text: &str| text.parse().map(WorkerDeaths::per_minute).ok();
        assert_eq!(
            (deaths("0"), deaths("1000"), deaths("1001"), deaths("-1")),
            (Some(0), Some(1000), None, None)
        );
        let time = |text: &str| text.parse().map(Watchdog::time).ok();
        assert_eq!((time("off"), time("1")), (Some(None), Some(Some(Duration::from_secs(1)))));
        assert_eq!((time("0"), time("3601"), time("soon")), (None, None, None));
    }
}
