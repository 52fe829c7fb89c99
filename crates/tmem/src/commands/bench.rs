//! `tmem bench`: measures without a daemon of its own.

use clap::Subcommand;
use tmem_bench::{
    nbd::{self, NbdArgs},
    store::{self, StoreArgs},
    vhost::{self, VhostArgs},
};

use crate::Outcome;

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Put, get, overwrite and flush real pages in a store of its own, beside zram if asked for
    ///
    /// Needs no daemon. Every page that comes back is compared with what was put. Times are of single operations, without what reading
    /// the clock takes. `tmem sample` and bench/corpus make files of pages.
    Store(StoreArgs),
    /// Drive a vhost-user-blk socket with random 4 KiB reads and writes; OVERWRITES THE DISK
    Vhost(VhostArgs),
    /// Drive an NBD export with random 4 KiB reads and writes; OVERWRITES THE EXPORT
    Nbd(NbdArgs),
}

/// Runs a benchmark and prints its report.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Store(args) => Ok(store::run(args).map_err(anyhow::Error::from)?),
        Command::Vhost(args) => Ok(vhost::run(args).map_err(anyhow::Error::from)?),
        Command::Nbd(args) => Ok(nbd::run(args).map_err(anyhow::Error::from)?),
    }
}
