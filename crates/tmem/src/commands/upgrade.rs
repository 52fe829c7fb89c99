//! `tmem upgrade`.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use tmem_control::{AdminClient, ControlError, Status, UpgradeStatus};

use super::print;
use crate::Outcome;

/// The next worker reads all indexes before it answers. Beyond that something is wrong that only the log can tell.
const PATIENCE: Duration = Duration::from_secs(120);
/// A person does not see this.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Whoever waits longer is told for what.
const QUIET: Duration = Duration::from_secs(2);

/// Has the program on disk take over, and waits until it has.
pub(crate) fn run(client: &AdminClient) -> Outcome {
    let before = client.status()?;
    let unanswered = match client.upgrade() {
        Ok(_) => None,
        // The worker that was asked may be gone before its answer is read: the next one has taken over, or tried to.
        Err(error @ ControlError::Conversation { .. }) => Some(error),
        Err(error) => return Err(error.into()),
    };
    let start = Instant::now();
    let mut told = false;
    loop {
        thread::sleep(LOOK_EVERY);
        // While one takes over from the other, nobody answers.
        match client.upgrade_status() {
            Ok(status) if !status.pending => return conclude(client, &before, &status, unanswered),
            Err(error) if start.elapsed() > PATIENCE => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        if start.elapsed() > PATIENCE {
            let text =
                "no worker has taken over in two minutes; the daemon's log says why (`journalctl -u tmem`)";
            return Err(anyhow!(text).into());
        }
        if !told && start.elapsed() > QUIET {
            told = true;
            let _nobody_there = writeln!(io::stderr(), "waiting for the program on disk to take over");
        }
    }
}

/// Says what became of it.
fn conclude(
    client: &AdminClient,
    before: &Status,
    status: &UpgradeStatus,
    unanswered: Option<ControlError>,
) -> Outcome {
    let now = client.status()?;
    let has_another = status.worker_pid != before.worker_pid;
    if status.failed || !has_another && unanswered.is_none() {
        let text =
            "the program on disk did not take over, and the one before it goes on; the daemon's log says why";
        return Err(anyhow!("{text} (`journalctl -u tmem`)").into());
    }
    // A worker that died is followed by another one, too, and that is no upgrade.
    let is_upgrade = has_another && now.worker_deaths == before.worker_deaths;
    if let Some(error) = unanswered.filter(|_| !is_upgrade) {
        return Err(error.into());
    }
    print(&format!(
        "worker {} has taken over from {}, version {}\n",
        status.worker_pid, before.worker_pid, now.version
    ))
}
