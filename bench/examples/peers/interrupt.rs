//! Ctrl-C and its kin, as a question that long work asks now and then.

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static IS_OVER: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on these signals do not end the program by themselves.
pub(crate) fn catch() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&IS_OVER))?;
    }
    Ok(())
}

/// Errors: the program was asked to end.
pub(crate) fn check() -> Result<()> {
    ensure!(!IS_OVER.load(Relaxed), "interrupted");
    Ok(())
}
