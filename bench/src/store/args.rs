//! The command line of `tmem bench store`.

use std::path::PathBuf;

use crate::error::BenchError;

/// Who else keeps the same pages in the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// The kernel's zram with lz4, by 4 KiB O_DIRECT reads and writes; needs root
    Zram,
}

/// Puts real pages into a store, gets them in random order, overwrites and flushes them, and prints how long each took and how
/// much memory it needed.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// File of raw 4 KiB pages
    #[arg(long, value_name = "FILE")]
    pub pages: PathBuf,
    /// Threads that share the work; the speed-up by a second thread is measured in any case
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Measure a peer, too, in turns
    #[arg(long, value_enum)]
    pub peer: Option<Peer>,
    /// How often to go through all steps, each time with a new store; figures are of all rounds together
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// More threads than any machine of today has processors.
const THREADS_MAX: usize = 1024;

impl StoreArgs {
    /// Refuses what makes no sense before anything is done.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if !(1..=THREADS_MAX).contains(&self.threads) {
            return Err(BenchError::Usage(format!("--threads {}: give 1 to {THREADS_MAX}", self.threads)));
        }
        if self.rounds == 0 {
            return Err(BenchError::Usage("--rounds 0: give at least 1".into()));
        }
        Ok(())
    }
}
