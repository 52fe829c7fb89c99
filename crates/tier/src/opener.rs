//! Who opens the tier's path: this process, or somebody who may when it may not.

use std::{
    ffi::CString,
    fmt,
    fs::File,
    io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Looks what is there.
pub(crate) const LOOK: i32 = libc::O_PATH;
/// Makes a file.
pub(crate) const MAKE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
/// Reads alone.
pub(crate) const READ: i32 = libc::O_RDONLY | libc::O_DIRECT;
/// Reads and writes.
pub(crate) const WRITE: i32 = libc::O_RDWR | libc::O_DIRECT;
/// The same with a device that nobody else may have open like that, be it by a mount or as a swap area.
pub(crate) const WRITE_ALONE: i32 = WRITE | libc::O_EXCL;

/// Opens the tier's path.
pub trait TierOpener: fmt::Debug + Send + Sync {
    /// As open(2) does, with these flags and the mode 0600: `O_PATH`, `O_WRONLY | O_CREAT | O_EXCL`, or `O_DIRECT` with `O_RDONLY`, `O_RDWR` or
    /// `O_RDWR | O_EXCL`. What it opens is closed when another program is run.
    ///
    /// # Errors
    /// As those of open(2). `TimedOut`: nobody knows yet.
    fn open(&self, path: &Path, flags: i32) -> io::Result<File>;
}

/// This process does.
#[derive(Debug)]
pub(crate) struct ByItself;

impl TierOpener for ByItself {
    fn open(&self, path: &Path, flags: i32) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mode: libc::c_uint = 0o600;
        // SAFETY: the path ends with a zero; a new descriptor, or -1.
        let file = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(file) }))
    }
}
