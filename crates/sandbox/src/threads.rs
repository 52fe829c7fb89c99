//! Whether the process has other threads. Landlock before its version 8 and capabilities are each thread's own, so that those would stay
//! as they are.

use std::{fs, io};

use crate::error::SandboxError;

const TASKS: &str = "/proc/self/task";

/// The kernel's own threads, which carry out slow requests of an io_uring, are listed among a process's (`include/linux/sched.h`). They
/// run no code of ours, and do what they do as whoever asked for it.
const PF_IO_WORKER: u64 = 0x10;

/// A thread that ends. Whoever joins it is woken before the kernel takes it off the list; it runs no code of ours any more.
const PF_EXITING: u64 = 0x4;

/// Makes sure that the calling thread is the only one.
pub(crate) fn check_alone() -> Result<(), SandboxError> {
    let failed = |error| SandboxError::Threads { error };
    let mut threads = 0;
    for task in fs::read_dir(TASKS).map_err(failed)? {
        match fs::read_to_string(task.map_err(failed)?.path().join("stat")) {
            Ok(stat) => threads += usize::from(runs_our_code(&stat)),
            // It has just ended.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if threads == 1 { Ok(()) } else { Err(SandboxError::OtherThreads { threads }) }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// From a line of proc(5)'s `stat`: the ninth field, where the second is a name in brackets that may have anything in it.
fn runs_our_code(stat: &str) -> bool {
    let flags =
        stat.rsplit_once(')').and_then(|(_, after)| after.split_ascii_whitespace().nth(6)?.parse().ok());
    flags.is_none_or(|flags: u64| flags & (PF_IO_WORKER | PF_EXITING) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_apart_by_their_flags_alone() {
        let stat = |name: &str, flags: u64| format!("12 ({name}) S 1 12 12 0 -1 {flags} 5 0 0");
        assert!(!runs_our_code(&stat("iou-wrk-12", 0x40_0050)) && !runs_our_code(&stat(") R 1 (", 0x10)));
        assert!(!runs_our_code(&stat("joined", 0x40_0044)));
        assert!(runs_our_code(&stat("iou-wrk-12", 0x40_0040)));
        assert!(runs_our_code("") && runs_our_code("12 (x"));
    }
}
