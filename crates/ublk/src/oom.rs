//! Keeps the daemon from being the one that is killed when the host runs out of memory.
//!
//! It may hold more memory than anybody, so it would be chosen first; and with it every page that is swapped to it would be lost.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    sync::OnceLock,
};

const FILE: &str = "/proc/self/oom_score_adj";

/// `oom_score_adj` of a process that is never chosen (proc(5)).
const NEVER: &str = "-1000";

/// Opened before the process is confined, after which it may not.
static OPEN: OnceLock<File> = OnceLock::new();

/// Opens what [`exempt_process`] will write to. Whoever may not will be told then.
pub(crate) fn open() {
    if let Ok(file) = OpenOptions::new().write(true).open(FILE) {
        OPEN.get_or_init(|| file);
    }
}

/// Asks the kernel never to choose this process.
///
/// # Errors
/// It may not: that takes CAP_SYS_RESOURCE.
pub(crate) fn exempt_process() -> io::Result<()> {
    match OPEN.get() {
        Some(file) => file.write_all_at(NEVER.as_bytes(), 0),
        None => fs::write(FILE, NEVER),
    }
}
