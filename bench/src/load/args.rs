//! What every benchmark of a disk can be told.

use std::path::{Path, PathBuf};

use tmem_control::ByteSize;

use super::Completion;
use crate::{error::BenchError, page::PAGE_BYTES};

/// The load, whatever carries it.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// File of raw 4 KiB pages to write (default: the memory of a python3 started for it)
    #[arg(long, value_name = "FILE")]
    pub pages: Option<PathBuf>,
    /// How much of the disk to use, from its start
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub size: ByteSize,
    /// Requests in flight, all together; one round of phases for each
    #[arg(long, value_name = "N,...", default_value = "1,32", value_delimiter = ',')]
    pub depth: Vec<u16>,
    /// Share of reads; one phase for each
    #[arg(long, value_name = "PERCENT,...", default_value = "100,0,50", value_delimiter = ',',
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: Vec<u8>,
    /// Length of each phase
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    pub seconds: f64,
    /// Look for answers without pause (measures the server) or sleep until notified (as a guest)
    #[arg(long, value_enum, default_value = "poll")]
    pub completion: Completion,
    /// Do not read everything back and compare it at the end
    #[arg(long)]
    pub no_verify: bool,
    /// Start of the random sequence
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The most requests in flight: three descriptors each must fit the largest usual queue, 1024.
const DEPTH_MAX: u16 = 256;

impl LoadArgs {
    /// Requests in flight at one time, at most.
    pub(crate) fn slots(&self) -> u16 {
        self.depth.iter().copied().max().unwrap_or(1)
    }

    /// Refuses what makes no sense before anything is touched.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if let Some(depth) = self.depth.iter().find(|depth| !(1..=DEPTH_MAX).contains(*depth)) {
            return Err(BenchError::Usage(format!("--depth {depth}: give 1 to {DEPTH_MAX}")));
        }
        if self.depth.is_empty() || self.read_percent.is_empty() {
            return Err(BenchError::Usage("--depth and --read-percent need at least one value".into()));
        }
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(BenchError::Usage(format!(
                "--seconds {}: give more than 0, at most 3600",
                self.seconds
            )));
        }
        Ok(())
    }

    /// The blocks of the region to use, of a disk of `capacity_bytes` behind `socket`.
    pub(crate) fn region_blocks(&self, socket: &Path, capacity_bytes: u64) -> Result<u64, BenchError> {
        let blocks = self.size.bytes() / PAGE_BYTES as u64;
        // Every request in flight has a block of its own; twice as many keep the choice random.
        let least = 2 * self.depth.iter().copied().max().map_or(1, u64::from);
        if blocks < least {
            return Err(BenchError::Usage(format!(
                "--size {}: give at least {least} blocks of 4K",
                self.size
            )));
        }
        if blocks * PAGE_BYTES as u64 > capacity_bytes {
            return Err(BenchError::DiskTooSmall {
                socket: socket.to_owned(),
                capacity_bytes,
                size_bytes: self.size.bytes(),
            });
        }
        Ok(blocks)
    }
}
