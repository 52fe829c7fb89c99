//! Random 4 KiB reads and writes through the virtqueue of any vhost-user-blk socket.
//!
//! A run fills a region of the disk with real pages, then runs one phase per depth and mix of reads and writes, and at
//! last reads the whole region back and compares every page with what was last written there. Writes go out of the
//! pages' own memory, as a guest's do, without a copy.
//!
//! # How completions are seen
//! `--completion poll` (the default) looks at the used ring without pause and asks for no notification. What it measures
//! is the server: the time from the request's place in the ring to its answer there. `--completion event` sleeps on the
//! notification like a guest does; it adds the wake-up of the sleeping thread to every request, which costs the same
//! for each server (tens of microseconds on a virtual machine) and belongs to the guest's side.
//!
//! A fair comparison runs both: polling takes a core from the server, which hurts one that spreads its work over
//! several threads, and sleeping lets the machine's other core go idle, which makes every wake-up slower. `bench/vhost`
//! does, and compares within each. Poll is the default because it adds the least of its own to the figures.

mod args;
mod content;
mod device;
mod load;
mod memory;
mod report;

pub use args::{Completion, VhostArgs};
pub use report::{Phase, Report};

use std::io::Write;

use crate::error::BenchError;
pub use crate::page::PAGE_BYTES;
use content::Content;
use device::Device;
use load::Load;

/// Runs the benchmark and prints its report to standard output: a table, or JSON when asked for.
pub fn run(args: &VhostArgs) -> Result<(), BenchError> {
    let report = measure(args)?;
    let text = if args.json { report.to_json()? } else { report.to_table() };
    // A reader that went away, as `head` does, is no failure of the benchmark.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

/// Runs the benchmark: fill, measure, verify.
pub fn measure(args: &VhostArgs) -> Result<Report, BenchError> {
    args.check()?;
    let content = Content::load(args.pages.as_deref())?;
    let slots = args.depth.iter().copied().max().unwrap_or(1);
    let mut device = Device::connect(&args.socket, args.queues, slots, &content.bytes)?;
    let region_blocks = args.region_blocks(device.capacity_bytes())?;
    let mut load = Load::new(&mut device, slots, region_blocks, args.seed);
    load.fill()?;
    let mut phases = Vec::new();
    for &depth in &args.depth {
        for &read_percent in &args.read_percent {
            phases.push(load.phase(args.completion, depth, read_percent, args.seconds)?);
        }
    }
    let verified_pages = if args.no_verify { None } else { Some(load.verify()?) };
    Ok(Report {
        socket: args.socket.display().to_string(),
        pages: content.source,
        region_bytes: region_blocks * PAGE_BYTES as u64,
        queues: args.queues,
        completion: args.completion,
        seconds: args.seconds,
        phases,
        verified_pages,
    })
}
