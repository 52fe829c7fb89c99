//! `scripts/soak` runs this: see `tmem_tests::soak`.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use tmem_tests::soak::{self, Options};

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn options() -> Result<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Duration::from_secs(30 * 60);
    let mut options = Options { seed: now.as_secs(), time, with_guest: true, keep_logs: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().unwrap_or_default();
            text.parse::<u64>().with_context(|| format!("{argument} takes a number"))
        };
        match argument.as_str() {
            "--seed" => options.seed = number()?,
            "--seconds" => options.time = Duration::from_secs(number()?),
            "--no-guest" => options.with_guest = false,
            "--keep-logs" => options.keep_logs = true,
            _ => bail!("what is {argument}? There are --seed N, --seconds N, --no-guest and --keep-logs"),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler stores to an atomic and nothing else.
        unsafe { libc::signal(signal, stop as *const () as libc::sighandler_t) };
    }
    match options().and_then(|options| soak::run(options, &STOP)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}
