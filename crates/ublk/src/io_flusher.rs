//! Threads that the kernel counts on to get memory back (`PR_SET_IO_FLUSHER`, prctl(2)).
//!
//! When an I/O flusher needs memory in the kernel, the kernel does not start I/O to get it, which might be the very I/O that the
//! flusher serves, and does not slow it down for writing much. A new thread inherits the state from the one that made it. So
//! the daemon's first thread becomes one before there are others; all of them, because they share locks and an allocator.

use std::{fs, io, path::Path};

use crate::error::UblkError;

/// Of `include/uapi/linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;
const PR_GET_IO_FLUSHER: libc::c_int = 58;
/// The kernel insists that arguments it has no use for are 0, as wide as they are.
const NONE: libc::c_ulong = 0;

/// The kernel's flags of a task: no I/O for memory, and throttled by its own devices only (`include/linux/sched.h`).
const PF_MEMALLOC_NOIO: u64 = 0x0008_0000;
const PF_LOCAL_THROTTLE: u64 = 0x0010_0000;

/// Makes the calling thread, and those that it will make, I/O flushers.
///
/// # Errors
/// It may not, or the kernel says that it is none all the same.
pub(crate) fn become_io_flusher() -> Result<(), UblkError> {
    set_io_flusher(true).map_err(|error| UblkError::NotIoFlusher { error })?;
    // SAFETY: takes numbers only.
    match unsafe { libc::prctl(PR_GET_IO_FLUSHER, NONE, NONE, NONE, NONE) } {
        1 => Ok(()),
        -1 => Err(UblkError::NotIoFlusher { error: io::Error::last_os_error() }),
        _ => Err(UblkError::NotIoFlusher { error: io::Error::other("the kernel did not take it in") }),
    }
}

/// Whether the calling thread is one. Who may not ask is none.
pub(crate) fn is_one() -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(PR_GET_IO_FLUSHER, NONE, NONE, NONE, NONE) == 1 }
}

/// Makes the calling thread an ordinary one: what it does needs memory more than it helps to get some.
pub(crate) fn resign() -> io::Result<()> {
    set_io_flusher(false)
}

fn set_io_flusher(is_one: bool) -> io::Result<()> {
    // SAFETY: takes numbers only.
    match unsafe { libc::prctl(PR_SET_IO_FLUSHER, libc::c_ulong::from(is_one), NONE, NONE, NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Looks at every thread of this process as the kernel shows it.
///
/// # Errors
/// One is no I/O flusher; it is named.
pub(crate) fn check_all_threads() -> Result<(), UblkError> {
    let failed = |error| UblkError::NotIoFlusher { error };
    for task in fs::read_dir("/proc/self/task").map_err(failed)? {
        let path = task.map_err(failed)?.path();
        check_thread(&path)?;
    }
    Ok(())
}

fn check_thread(task: &Path) -> Result<(), UblkError> {
    // A thread that has ended meanwhile has nothing to be checked.
    let Ok(stat) = fs::read_to_string(task.join("stat")) else { return Ok(()) };
    if flags_in(&stat).is_some_and(is_io_flusher) {
        return Ok(());
    }
    let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
    Err(UblkError::ThreadNotIoFlusher { thread: name.trim_end().to_owned() })
}

fn is_io_flusher(flags: u64) -> bool {
    let both = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE;
    flags & both == both
}

/// The task's flags, the ninth field of its `stat`. Its name, the second, is in brackets and may have anything in it.
fn flags_in(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_behind_any_name() {
        let stat = |name: &str, flags: u64| format!("12 ({name}) S 1 12 12 0 -1 {flags} 5 0 0");
        for name in ["tmem", "a b", "x) S 1 (y", "))"] {
            assert_eq!(flags_in(&stat(name, 0x18_0040)), Some(0x18_0040), "{name}");
        }
        assert_eq!(flags_in("12 (tmem) S 1"), None);
        assert!(is_io_flusher(0x18_0040) && !is_io_flusher(0x8_0040) && !is_io_flusher(0x10_0040));
    }

    /// What the kernel shows of a thread is what the thread made of itself, and those it makes are like it.
    #[test]
    fn a_thread_becomes_one_and_its_children_are() {
        let of_thread = || check_thread(Path::new("/proc/thread-self"));
        std::thread::spawn(move || {
            assert!(matches!(of_thread(), Err(UblkError::ThreadNotIoFlusher { .. })));
            match become_io_flusher() {
                Ok(()) => {
                    of_thread().unwrap();
                    std::thread::spawn(of_thread).join().unwrap().unwrap();
                    resign().unwrap();
                    assert!(of_thread().is_err());
                }
                // Without the capability it is an error, and says which capability.
                Err(error) => assert!(error.to_string().contains("CAP_SYS_RESOURCE")),
            }
        })
        .join()
        .unwrap();
    }
}
