//! The load generator of `tmem bench vhost` as a program of its own, for a server other than tmem.
//!
//! `cargo run --release -p tmem-bench --example vhost -- --socket SOCKET`

use std::process::ExitCode;

use clap::Parser;
use tmem_bench::vhost::{VhostArgs, run};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: VhostArgs,
}

fn main() -> ExitCode {
    match run(&Line::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost: {error}");
            ExitCode::FAILURE
        }
    }
}
