//! This worker among those before and after it.

use std::{os::unix::process::parent_id, process, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tmem_control::{AdminError, Processes, Succession, UpgradeState};
use tmem_keeper::{Estate, Upgrading};

/// What the admin API is told of it.
pub(crate) struct OneOfMany {
    pub(crate) estate: Arc<Estate>,
    pub(crate) worker_deaths: u32,
    /// When the first worker started, in seconds since the host's start.
    pub(crate) first_started: u64,
}

/// Seconds since the host's start.
pub(crate) fn now_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or_default()
}

impl Succession for OneOfMany {
    fn processes(&self) -> Processes {
        Processes {
            keeper: parent_id(),
            worker: process::id(),
            spare: self.estate.keeper().and_then(|keeper| keeper.spare_pid().ok().flatten()),
            worker_deaths: self.worker_deaths,
            uptime: Duration::from_secs(now_seconds().saturating_sub(self.first_started)),
        }
    }

    fn upgrade(&self) -> Result<(), AdminError> {
        let keeper =
            self.estate.keeper().ok_or_else(|| AdminError::Conflict("there is no keeper".to_owned()))?;
        keeper.upgrade().map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => AdminError::Conflict("an upgrade is under way; wait for its end".to_owned()),
            _ => AdminError::Failed(format!("cannot start the program on disk: {error}")),
        })
    }

    fn upgrade_state(&self) -> UpgradeState {
        match self.estate.keeper().and_then(|keeper| keeper.upgrading().ok()) {
            Some(Upgrading::UnderWay) => UpgradeState::UnderWay,
            Some(Upgrading::Failed) => UpgradeState::Failed,
            Some(Upgrading::None) | None => UpgradeState::None,
        }
    }
}
