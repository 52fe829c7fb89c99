//! Has the kernel kill anything else first when the host runs out of memory.
//!
//! The daemon may hold more memory than anybody, so it would be the first to be chosen; and with it every page that it was lent would be lost, and so
//! the guests they belong to.

use std::{fs, io};

const FILE: &str = "/proc/self/oom_score_adj";

/// What a process has that nobody chose anything for.
const NOBODY_CHOSE: &str = "0";

/// Nearly the last one. Not never: its pool may be all that there is to be gained.
const NEARLY_LAST: &str = "-900";

/// Lowers the daemon's `oom_score_adj` (proc(5)), unless whoever started it chose one.
pub(crate) fn be_spared() {
    match lower() {
        Ok(()) => {}
        Err(error) => {
            log::debug!("the daemon may be killed like any program when the host runs out of memory: {error}")
        }
    }
}

fn lower() -> io::Result<()> {
    if fs::read_to_string(FILE)?.trim() == NOBODY_CHOSE { fs::write(FILE, NEARLY_LAST) } else { Ok(()) }
}
