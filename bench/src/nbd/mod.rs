//! Random 4 KiB reads and writes through any NBD server's Unix socket.
//!
//! As [`vhost`](crate::vhost) does through the virtqueue: a run fills a region of the export with real pages, runs one phase per depth
//! and mix of reads and writes, and reads everything back at last. The client asks for nothing but the plainest conversation, simple
//! replies, so that any server can be compared; requests that are ready at the same time are sent with one call, and answers that have
//! come are taken with one.
//!
//! With `--completion poll` (the default) the client looks at its socket without pause; with `event` it sleeps in poll(2), which adds its
//! own wake-up to every request.

mod args;
mod client;
mod report;

pub use args::NbdArgs;
pub use report::Report;

use crate::{
    error::BenchError,
    load::{self, Content},
};
use client::Client;

/// Runs the benchmark and prints its report to standard output: a table, or JSON when asked for.
pub fn run(args: &NbdArgs) -> Result<(), BenchError> {
    let report = measure(args)?;
    load::print(&if args.load.json { report.to_json()? } else { report.to_table() });
    Ok(())
}

/// Runs the benchmark: fill, measure, verify.
pub fn measure(args: &NbdArgs) -> Result<Report, BenchError> {
    args.check()?;
    let Content { bytes, source } = Content::load(args.load.pages.as_deref())?;
    let mut client = Client::connect(&args.socket, &args.export, args.connections, args.load.slots(), bytes)?;
    let size_bytes = client.size_bytes();
    let measured = load::measure(&args.load, &mut client, &args.socket, size_bytes)?;
    Ok(Report {
        socket: args.socket.display().to_string(),
        export: args.export.clone(),
        pages: source,
        region_bytes: measured.region_bytes,
        connections: args.connections,
        completion: args.load.completion,
        seconds: args.load.seconds,
        phases: measured.phases,
        verified_pages: measured.verified_pages,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: NbdArgs,
    }

    fn error(line: &str) -> String {
        let args = Line::try_parse_from(line.split(' ')).expect("a line").args;
        measure(&args).expect_err("an error").to_string()
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        for (line, name) in [
            ("x --socket s --connections 0", "--connections"),
            ("x --socket s --connections 65", "--connections"),
            ("x --socket s --depth 0", "--depth"),
            ("x --socket s --pages /no/such/pages", "/no/such/pages"),
        ] {
            assert!(error(line).contains(name), "{line}: {}", error(line));
        }
    }
}
