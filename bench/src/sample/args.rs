//! The command line of `tmem sample`.

use std::path::PathBuf;

/// Writes the resident anonymous pages of a running process to a file: raw pages of 4 KiB, in the order of their addresses.
#[derive(Clone, Debug, clap::Args)]
pub struct SampleArgs {
    /// The process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub pid: u32,
    /// The file to write; only its owner can read it
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// At most this many pages: stretches of up to 256 neighbours, spread evenly over the memory (default: all)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pages: Option<u64>,
    /// Hold all threads of the process meanwhile, so that the pages are of one moment
    #[arg(long)]
    pub stop: bool,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    /// Print what was taken as JSON
    #[arg(long)]
    pub json: bool,
}
