//! The `tmem` binary: the command line, and the daemon, which puts the parts together.
//!
//! | module | one job |
//! |---|---|
//! | `commands` | one file for each subcommand |
//! | `failure` | exit codes, and errors as one line |
//! | `faults` | in builds for tests alone: what goes wrong on purpose |
//! | `runtime_dir` | which directory, and that one daemon owns it |
//! | `worker` | what `tmem serve` runs under its keeper: puts the parts together |
//! | `confine` | what the worker is confined to |
//! | `inheritance` | what a worker takes over from the one before it |
//! | `descriptors` | how many descriptors the daemon may have |
//! | `disks` | swap disks with their frontends: what the admin API adds and removes |
//! | `serving` | what serves a disk: one of the transports |
//! | `succession` | what is told of this worker and those before it |
//! | `heartbeat` | tells the keeper that this worker is alive |
//! | `stacks` | where the threads of a hung worker are |
//! | `memo` | what a worker leaves to the next one, beside the store |
//! | `maintenance` | the background thread |
//! | `sizing` | the thread that keeps the pool as large as the host can spare |
//! | `write_back` | the thread that moves pages to the tier |
//! | `join` | waiting for these threads to end |
//! | `own_swap` | whether this host swaps to its own daemon |
//! | `notify` | readiness, told to systemd |
//! | `balancing` | the balancer as a process |
//! | `guest_config` | what to paste for each virtual machine monitor |
//! | `table`, `figures` | columns and numbers for people |
//! | `top` | `tmem top`: the live view |

mod balancing;
mod cluster;
mod commands;
mod confine;
mod descriptors;
mod disks;
mod failure;
#[cfg(feature = "fault-injection")]
mod faults;
mod figures;
mod guest_config;
mod heartbeat;
mod huge_pages;
mod inheritance;
mod join;
mod maintenance;
mod memo;
mod notify;
mod oom;
mod own_swap;
mod runtime_dir;
mod serving;
mod sizing;
mod stacks;
mod stocking;
mod succession;
mod table;
mod tiers;
mod top;
mod trusted;
mod worker;
mod write_back;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser};

use crate::{commands::Command, failure::Failure};

/// Transcendent memory: pools idle host memory and lends it, compressed, to guests that run out of theirs.
#[derive(Parser)]
#[command(name = "tmem", version, propagate_version = false, disable_help_subcommand = true)]
struct CommandLine {
    /// Directory of the daemon's admin socket. Default: /run/tmem for root, else $XDG_RUNTIME_DIR/tmem
    #[arg(long, global = true, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let result = match CommandLine::try_parse() {
        Ok(line) => line.command.run(line.runtime_dir),
        Err(error) => failure::from_clap(error, &CommandLine::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// What every command returns.
type Outcome = Result<(), Failure>;
