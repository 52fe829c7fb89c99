//! Keeps the daemon from being the one that is killed when the host runs out of memory.
//!
//! It may hold more memory than anybody, so it would be chosen first; and with it every page that is swapped to it would be lost.

use std::{fs, io};

/// `oom_score_adj` of a process that is never chosen (proc(5)).
const NEVER: &str = "-1000";

/// Asks the kernel never to choose this process.
///
/// # Errors
/// It may not: that takes CAP_SYS_RESOURCE.
pub(crate) fn exempt_process() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", NEVER)
}
