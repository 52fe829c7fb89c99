//! `scripts/rebalance-demo` runs this: see `tmem_tests::rebalance`.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, bail};
use tmem_tests::rebalance::{Options, demonstrate};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn options() -> Result<Options> {
    let mut options = Options { quick: false, only: Vec::new(), docs: None, traces: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--only" => options.only.extend(arguments.next()),
            "--docs" => options.docs = arguments.next().map(PathBuf::from),
            "--traces" => options.traces = arguments.next().map(PathBuf::from),
            _ => bail!(
                "what is {argument}? There are --quick, --only ARRANGEMENT, --docs DIR and --traces DIR"
            ),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler stores to an atomic and nothing else.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
    match options().and_then(|options| demonstrate(&options, &STOP)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rebalance-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
