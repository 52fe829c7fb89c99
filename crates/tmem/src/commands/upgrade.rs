//! `tmem upgrade`.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use tmem_control::{AdminClient, ControlError};

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
    let before = client.upgrade_status()?.worker_pid;
    match client.upgrade() {
        // The worker that was asked may be gone before its answer is read.
        Ok(_) | Err(ControlError::Conversation { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let start = Instant::now();
    let mut told = false;
    loop {
        thread::sleep(LOOK_EVERY);
        // While one takes over from the other, nobody answers.
        match client.upgrade_status() {
            Ok(status) if status.pending => {}
            Ok(status) if status.worker_pid != before && !status.failed => {
                return print(&format!(
                    "worker {} has taken over from {before}, version {}\n",
                    status.worker_pid,
                    client.status()?.version
                ));
            }
            Ok(_) => {
                let text = "the program on disk did not take over, and the one before it goes on; the daemon's log says why";
                return Err(anyhow!("{text} (`journalctl -u tmem`)").into());
            }
            Err(error) if start.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => {}
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
