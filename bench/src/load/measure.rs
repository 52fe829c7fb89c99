//! A run from the first request to the last.

use std::{io::Write, path::Path};

use super::{Load, LoadArgs, Phase, Target};
use crate::{error::BenchError, page::PAGE_BYTES};

/// What a run found out.
pub(crate) struct Measured {
    /// How much of the disk was used.
    pub(crate) region_bytes: u64,
    /// The phases, in the order they ran.
    pub(crate) phases: Vec<Phase>,
    /// Pages read back and found right at the end.
    pub(crate) verified_pages: Option<u64>,
}

/// Fill, measure, verify.
pub(crate) fn measure(
    args: &LoadArgs,
    target: &mut impl Target,
    socket: &Path,
    capacity_bytes: u64,
) -> Result<Measured, BenchError> {
    let region_blocks = args.region_blocks(socket, capacity_bytes)?;
    let mut load = Load::new(target, args.slots(), region_blocks, args.seed);
    load.fill()?;
    let mut phases = Vec::new();
    for &depth in &args.depth {
        for &read_percent in &args.read_percent {
            phases.push(load.phase(args.completion, depth, read_percent, args.seconds)?);
        }
    }
    let verified_pages = if args.no_verify { None } else { Some(load.verify()?) };
    Ok(Measured { region_bytes: region_blocks * PAGE_BYTES as u64, phases, verified_pages })
}

/// Prints a report. A reader that went away, as `head` does, is no failure of the benchmark.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
