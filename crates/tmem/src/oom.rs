//! Has the kernel kill anything else first when the host runs out of memory.
//!
//! The daemon may hold more memory than anybody, so it would be the first to be chosen; and with it every page that it was lent would be lost, and so
//! the guests they belong to.

use std::{env, ffi::OsString, fs, io};

const FILE: &str = "/proc/self/oom_score_adj";

/// What a process has that nobody chose anything for.
const NOBODY_CHOSE: &str = "0";

/// The keeper's: it is small, so nothing is gained by it, and everything lost.
const NEVER: &str = "-1000";

/// The worker's: nearly the last one. Not never: its pool may be all that there is to be gained.
const NEARLY_LAST: &str = "-900";

/// Tells a worker, which has what its keeper has, to choose for itself.
const VARIABLE: &str = "TMEM_OOM_SCORE_ADJ";

/// Lowers the keeper's `oom_score_adj` (proc(5)), unless whoever started it chose one. Gives what workers have to be told.
pub(crate) fn spare_keeper() -> Option<(OsString, OsString)> {
    let lower = || {
        let is_free = fs::read_to_string(FILE)?.trim() == NOBODY_CHOSE;
        if is_free { fs::write(FILE, NEVER).map(|()| true) } else { Ok(false) }
    };
    told(lower()).then(|| (VARIABLE.into(), NEARLY_LAST.into()))
}

/// Sets the worker's, if the keeper was free to lower its own.
pub(crate) fn spare_worker() {
    if let Some(chosen) = env::var_os(VARIABLE) {
        told(fs::write(FILE, chosen.as_encoded_bytes()).map(|()| true));
    }
}

fn told(result: io::Result<bool>) -> bool {
    result.unwrap_or_else(|error| {
        log::debug!("the daemon may be killed like any program when the host runs out of memory: {error}");
        false
    })
}
