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
mod device;
mod memory;
mod report;

pub use crate::load::{Completion, LoadArgs, Phase};
pub use args::VhostArgs;
pub use report::Report;

use crate::error::BenchError;
use crate::load;
pub use crate::page::PAGE_BYTES;
use device::Device;

/// Runs the benchmark and prints its report to standard output: a table, or JSON when asked for.
pub fn run(args: &VhostArgs) -> Result<(), BenchError> {
    let report = measure(args)?;
    load::print(&if args.load.json { report.to_json()? } else { report.to_table() });
    Ok(())
}

/// Runs the benchmark: fill, measure, verify.
pub fn measure(args: &VhostArgs) -> Result<Report, BenchError> {
    args.check()?;
    let content = load::Content::load(args.load.pages.as_deref())?;
    let mut device = Device::connect(&args.socket, args.queues, args.load.slots(), &content.bytes)?;
    let capacity_bytes = device.capacity_bytes();
    let measured = load::measure(&args.load, &mut device, &args.socket, capacity_bytes)?;
    Ok(Report {
        socket: args.socket.display().to_string(),
        pages: content.source,
        region_bytes: measured.region_bytes,
        queues: args.queues,
        completion: args.load.completion,
        seconds: args.load.seconds,
        phases: measured.phases,
        verified_pages: measured.verified_pages,
    })
}
