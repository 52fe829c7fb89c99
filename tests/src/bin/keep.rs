//! Looks at a cgroup, and tells it how much memory to keep: `keep DIRECTORY [BYTES]`. Guests run this in tests of what the kernel makes of it.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tmem_actuator::{Address, Guest};

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("which cgroup?")?;
    let mut cgroup = Guest::new(Address::Cgroup(directory.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(target) = arguments.next() {
        let target_bytes = target.parse().context("how many bytes?")?;
        runtime.block_on(cgroup.set(target_bytes))?;
    }
    let seen = runtime.block_on(cgroup.look())?;
    let report = seen.report.context("a cgroup always says something")?;
    let (available, swap_ins) = (report.available_bytes.unwrap_or(0), seen.swap_ins.context("no swap-ins")?);
    let pressure = report.pressure.context("no pressure")?;
    println!("@seen {} {} {available} {swap_ins} {pressure}", seen.size_bytes, seen.max_bytes);
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("keep: {error:#}");
            ExitCode::FAILURE
        }
    }
}
