//! The command line of `tmem bench vhost`.

use std::path::PathBuf;

use tmem_control::ByteSize;

use super::PAGE_BYTES;
use crate::error::BenchError;

/// How the benchmark learns that a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Completion {
    /// Look at the used ring without pause: measures the server alone.
    Poll,
    /// Sleep until the server notifies, as a guest does.
    Event,
}

/// Drives the virtqueue of a vhost-user-blk socket with random 4 KiB reads and writes of real pages.
///
/// THE DISK'S CONTENT IS OVERWRITTEN.
#[derive(Clone, Debug, clap::Args)]
pub struct VhostArgs {
    /// The vhost-user-blk socket to drive; what the disk holds is overwritten
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// File of raw 4 KiB pages to write (default: the memory of a python3 started for it)
    #[arg(long, value_name = "FILE")]
    pub pages: Option<PathBuf>,
    /// How much of the disk to use, from its start
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub size: ByteSize,
    /// Requests in flight, over all queues; one round of phases for each
    #[arg(long, value_name = "N,...", default_value = "1,32", value_delimiter = ',')]
    pub depth: Vec<u16>,
    /// Share of reads; one phase for each
    #[arg(long, value_name = "PERCENT,...", default_value = "100,0,50", value_delimiter = ',',
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: Vec<u8>,
    /// Length of each phase
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    pub seconds: f64,
    /// Virtqueues to use, requests spread evenly over them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub queues: u16,
    /// Look at the ring without pause (measures the server) or sleep until notified (as a guest)
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

impl VhostArgs {
    /// Refuses what makes no sense before anything is touched.
    pub(super) fn check(&self) -> Result<(), BenchError> {
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
        if self.queues == 0 {
            return Err(BenchError::Usage("--queues 0: give at least 1".into()));
        }
        Ok(())
    }

    /// The blocks of the region to use, of a disk of `capacity_bytes`.
    pub(super) fn region_blocks(&self, capacity_bytes: u64) -> Result<u64, BenchError> {
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
                socket: self.socket.clone(),
                capacity_bytes,
                size_bytes: self.size.bytes(),
            });
        }
        Ok(blocks)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: VhostArgs,
    }

    fn parse(line: &str) -> Result<VhostArgs, String> {
        let line = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        line.args.check().map_err(|error| error.to_string())?;
        Ok(line.args)
    }

    #[test]
    fn defaults_are_depth_1_and_32_with_polling() {
        let args = parse("x --socket s").unwrap();
        assert_eq!((args.depth, args.read_percent), (vec![1, 32], vec![100, 0, 50]));
        assert_eq!((args.completion, args.size), (Completion::Poll, ByteSize::from_bytes(1 << 30)));
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        for (line, name) in [
            ("x --socket s --depth 0", "--depth"),
            ("x --socket s --depth 1,1000", "--depth"),
            ("x --socket s --seconds 0", "--seconds"),
            ("x --socket s --seconds NaN", "--seconds"),
            ("x --socket s --queues 0", "--queues"),
            ("x --socket s --read-percent 101", "--read-percent"),
            ("x --socket s --size 1Z", "--size"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(name), "{line}: {error}");
        }
    }

    #[test]
    fn region_must_fit_the_disk() {
        let args = parse("x --socket s --size 1G").unwrap();
        assert_eq!(args.region_blocks(1 << 30).unwrap(), 262_144);
        assert!(matches!(args.region_blocks((1 << 30) - 4096), Err(BenchError::DiskTooSmall { .. })));
        let args = parse("x --socket s --size 64K").unwrap();
        assert!(matches!(args.region_blocks(1 << 30), Err(BenchError::Usage(_))));
    }
}
