//! Pages of a running process: `tmem sample`, and what a benchmark takes when it was given no file of pages.
//!
//! | module | one job |
//! |---|---|
//! | `spans` | which parts of the address space are private memory: `/proc/PID/maps` |
//! | `pagemap` | which of their pages are resident and anonymous: `/proc/PID/pagemap` |
//! | `zero_pages` | telling the kernel's page of zeroes from a process's own |
//! | `share` | which pages to take when not all are wanted |
//! | `process` | copying them: `/proc/PID/mem` |
//! | `stopped` | holding the process meanwhile |
//! | `output` | a file that is there whole or not at all |
//! | `program` | a program started for its pages |
//!
//! A page that is not resident is never read, because reading it would bring it in. Between the look and the copy a page may go: after
//! the copy its entry is looked at again, and a page that went is left out and counted as vanished.

mod args;
mod output;
mod pagemap;
mod process;
mod program;
mod share;
mod spans;
mod stopped;
mod zero_pages;

pub use args::SampleArgs;
pub(crate) use program::python_pages;

use std::io::Write;

use serde::Serialize;

use crate::{error::BenchError, interrupt::Interrupt, page::PAGE_BYTES};
use output::Output;
use process::{Process, Taken};
use stopped::Stopped;

/// What `tmem sample` did.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    pid: u32,
    #[serde(flatten)]
    taken: Taken,
}

/// Writes the sample and prints one line about it to standard output, or JSON when asked for.
pub fn run(args: &SampleArgs) -> Result<(), BenchError> {
    let interrupt = Interrupt::catch().map_err(BenchError::Signals)?;
    let process = Process::open(args.pid)?;
    let mut output = Output::begin(&args.out, args.force)?;
    let taken = {
        let _stopped = args.stop.then(|| Stopped::stop(args.pid, &interrupt)).transpose()?;
        process.copy(args.max_pages, &interrupt, |pages| output.write(pages))?
    };
    output.finish()?;
    let report = Report { file: args.out.display().to_string(), pid: args.pid, taken };
    let text = if args.json { serde_json::to_string(&report)? } else { report.line() };
    // A reader that went away, as `head` does, is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

impl Report {
    fn line(&self) -> String {
        let Taken { pages, resident_pages, mapped_pages, vanished_pages } = self.taken;
        let mib = (pages * PAGE_BYTES as u64) as f64 / f64::from(1 << 20);
        format!(
            "{}: {pages} pages ({mib:.1} MiB) of process {}, which has {resident_pages} such pages in memory and {mapped_pages} mapped; \
             {vanished_pages} vanished meanwhile",
            self.file, self.pid
        )
    }
}
