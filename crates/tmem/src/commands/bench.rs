//! `tmem bench`: measures without a daemon of its own.

use clap::Subcommand;
use tmem_bench::vhost::{self, VhostArgs};

use crate::Outcome;

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Drive a vhost-user-blk socket with random 4 KiB reads and writes; OVERWRITES THE DISK
    Vhost(VhostArgs),
}

/// Runs a benchmark and prints its report.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Vhost(args) => Ok(vhost::run(args).map_err(anyhow::Error::from)?),
    }
}
