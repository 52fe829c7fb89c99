//! Turning swap off, in a process of its own: for whoever does this the kernel finds memory by all means, be it by killing that very
//! process.
//!
//! The process is made by a helper that was forked when the daemon had one thread and next to no memory. The daemon itself can
//! neither fork when it has all its memory, because then its queues' threads would need new memory to write to what they share with the
//! child, nor run programs once it is confined.

use std::{
    ffi::CString,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::io_flusher;

/// The way to the helper, locked from a request to its answer.
static HELPER: OnceLock<Mutex<UnixStream>> = OnceLock::new();

/// Longest path of a device, and how long each request is: the rest is zeroes.
const PATH_BYTES: usize = 256;

/// The descriptor by which the helper hears; it closes those above.
const SOCKET: libc::c_int = 3;

/// Forks the helper, unless there is one. The process has one thread. The helper ends with it.
pub(crate) fn start_helper() -> io::Result<()> {
    if HELPER.get().is_some() {
        return Ok(());
    }
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: the process has one thread, so the child may do anything, and never returns from here.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => help(&theirs),
        _ => {
            let _ = HELPER.set(Mutex::new(ours));
            Ok(())
        }
    }
}

/// Reads everything that is swapped out to a device back into memory.
///
/// # Errors
/// The kernel says why not, or there is no helper.
pub(crate) fn swap_off(device: &Path) -> io::Result<()> {
    let path = device.as_os_str().as_bytes();
    let helper =
        HELPER.get().ok_or_else(|| io::Error::other("the process that does it was never started"))?;
    let mut request = [0; PATH_BYTES];
    // With a zero behind it.
    let place = request.get_mut(..path.len()).filter(|place| place.len() < PATH_BYTES);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(path);
    let mut helper = helper.lock().unwrap_or_else(PoisonError::into_inner);
    helper.write_all(&request)?;
    let mut answer = [0; 4];
    helper.read_exact(&mut answer)?;
    match i32::from_ne_bytes(answer) {
        0 => Ok(()),
        KILLED => Err(io::Error::other("the process that did it was killed, perhaps for lack of memory")),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// No errno.
const KILLED: i32 = -1;

/// The helper's life: one request after the other, until nobody can ask any more.
fn help(socket: &UnixStream) -> ! {
    // SAFETY: numbers only. The descriptors that are closed or replaced are this process's own, and nobody uses them by their old numbers.
    // What ends a daemon in order is no reason to end before it has asked for the last time.
    let mut socket = unsafe {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_IGN);
        }
        if libc::dup2(socket.as_raw_fd(), SOCKET) != SOCKET {
            libc::_exit(1);
        }
        libc::syscall(libc::SYS_close_range, SOCKET as libc::c_uint + 1, libc::c_uint::MAX, 0);
        UnixStream::from_raw_fd(SOCKET)
    };
    // It may have been one since before it was forked; then it must not stay one, and without the right to say so it never was.
    let _already_ordinary = io_flusher::resign();
    let mut request = [0; PATH_BYTES];
    while socket.read_exact(&mut request).is_ok() {
        let answer = in_a_child(&request);
        if socket.write_all(&answer.to_ne_bytes()).is_err() {
            break;
        }
    }
    // SAFETY: ends the process, with nothing to be done before.
    unsafe { libc::_exit(0) }
}

/// swapoff(2) in a child, which may be killed for it. Gives its errno, or that it was.
fn in_a_child(request: &[u8; PATH_BYTES]) -> i32 {
    let path: Vec<u8> = request.iter().copied().take_while(|byte| *byte != 0).collect();
    let Ok(path) = CString::new(path) else { return libc::EINVAL };
    // SAFETY: the process has one thread. The child makes one call with a path that ends in a zero, and ends; the parent waits for it, with a
    // number that lives until then.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let result = libc::swapoff(path.as_ptr());
            libc::_exit(if result == 0 { 0 } else { *libc::__errno_location() });
        }
        let mut status = 0;
        if child < 0 || libc::waitpid(child, &raw mut status, 0) != child {
            return *libc::__errno_location();
        }
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { KILLED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own, which has one thread.
    #[test]
    fn a_device_that_is_no_swap_is_said_by_the_helper() {
        // SAFETY: the child never returns from here.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let fine = (|| {
                assert!(swap_off(Path::new("/dev/null")).is_err());
                start_helper().ok()?;
                let error = |path: &str| swap_off(Path::new(path)).err();
                let said = [error("/no/such/device")?.raw_os_error()?, error("/dev/null")?.raw_os_error()?];
                let long = error(&"x".repeat(PATH_BYTES))?.kind() == io::ErrorKind::InvalidInput;
                // ENOENT and EINVAL for root, EPERM for others.
                let expected = [libc::ENOENT, libc::EINVAL];
                (long && (said == expected || said == [libc::EPERM; 2])).then_some(())
            })();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(fine.is_none())) };
        }
        let mut status = 0;
        // SAFETY: our own child, and a number that lives until the call returns.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status}");
    }
}
