//! Making, checking and removing socket files.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tmem_keeper::Estate;

use crate::error::SocketError;

/// Mode of the socket file when nobody says otherwise: only the daemon's own user may connect. A hypervisor
/// that runs as another user (libvirt's QEMU does) needs a wider one, together with a directory that lets
/// the right group in.
pub const DEFAULT_SOCKET_MODE: u32 = 0o600;

/// Longest path of a Unix socket, without the final zero.
const MAX_PATH_BYTES: usize = 107;
/// Longest directory: a name of 31 bytes must fit behind it, which some transport may need beside the socket.
const MAX_DIRECTORY_BYTES: usize = MAX_PATH_BYTES - 32;

/// A listening socket and its file.
#[derive(Debug)]
pub struct SocketFile {
    /// Does not block.
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to know the file again.
    identity: (u64, u64),
    /// Where it is left to the next process.
    kept: Option<Arc<Estate>>,
}

/// What a listening socket is called where it is left to the next process.
pub fn kept_name(address: impl std::fmt::Display) -> String {
    format!("socket {address}")
}

impl SocketFile {
    /// Makes the socket. A file left behind by a program that is gone is replaced; anything else in the way
    /// is an error.
    pub fn make(path: &Path, mode: u32) -> Result<SocketFile, SocketError> {
        let failed = |error| SocketError::Make { path: path.to_owned(), error };
        let directory = directory_of(path);
        let bytes = |path: &Path| path.as_os_str().as_bytes().len();
        if bytes(path) > MAX_PATH_BYTES || bytes(directory) > MAX_DIRECTORY_BYTES {
            return Err(SocketError::PathTooLong { path: path.to_owned(), max_bytes: MAX_DIRECTORY_BYTES });
        }
        if !directory.is_dir() {
            return Err(SocketError::NoDirectory { path: directory.to_owned() });
        }
        clear_the_way(path)?;
        let listener = bind(path, mode).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        let file = SocketFile { listener, path: path.to_owned(), identity, kept: None };
        // The mask of the process may have taken bits away.
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        file.listener.set_nonblocking(true).map_err(failed)?;
        Ok(file)
    }

    /// The socket that the process before this one left at that path; if there is none, a new one, for this process and the next.
    pub fn make_kept(path: &Path, mode: u32, estate: &Arc<Estate>) -> Result<SocketFile, SocketError> {
        let failed = |error| SocketError::Make { path: path.to_owned(), error };
        let name = kept_name(path.display());
        let file = match estate.take(&name) {
            Some(listener) => {
                let identity = fs::symlink_metadata(path).map_or((0, 0), |m| (m.dev(), m.ino()));
                let listener = UnixListener::from(listener);
                SocketFile { listener, path: path.to_owned(), identity, kept: None }
            }
            None => {
                let file = SocketFile::make(path, mode)?;
                if let Err(error) = estate.keep(&name, file.listener.as_fd()) {
                    file.remove();
                    return Err(failed(error));
                }
                file
            }
        };
        Ok(SocketFile { kept: Some(estate.clone()), ..file })
    }

    /// Removes the file, unless somebody has put another in its place.
    pub fn remove(self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove socket {}: {error}", self.path.display());
        }
        if let Some(estate) = &self.kept {
            estate.release(&kept_name(self.path.display()));
        }
    }
}

/// The directory a path is in.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Connections that wait to be accepted. A client that does not wait itself is turned away beyond that.
const BACKLOG: libc::c_int = 128;

fn clear_the_way(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Make { path: path.to_owned(), error };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match knock(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("removing socket {} of a program that is gone", path.display());
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        _ => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

/// Connects without waiting: a listener that is stopped and whose queue is full would keep the caller for as long as it likes. It is there
/// all the same (`WouldBlock`).
fn knock(path: &Path) -> io::Result<()> {
    knock_and_stay(path).map(drop)
}

fn knock_and_stay(path: &Path) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: makes a new descriptor, or returns -1.
    let socket = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    check(socket.min(0))?;
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let address = address_of(path)?;
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

fn address_of(path: &Path) -> io::Result<libc::sockaddr_un> {
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH_BYTES || bytes.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

/// A listener (which blocks) whose file never has more permission bits than `mode`, not even for a moment.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: makes a new descriptor, or returns -1.
    let socket = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // On Linux the file inherits the mode that the socket has when it is bound.
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchmod(socket.as_raw_fd(), mode) })?;
    let address = address_of(path)?;
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the address is valid for its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    // SAFETY: a valid descriptor.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(UnixListener::from(socket))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_accepts_nothing_is_there_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hung.sock");
        let _hung = bind(&path, 0o600).unwrap();
        let waiting: Vec<_> = (0..2 * BACKLOG).map_while(|_| knock_and_stay(&path).ok()).collect();
        assert!(waiting.len() < 2 * BACKLOG as usize, "its queue is full");
        assert!(matches!(clear_the_way(&path), Err(SocketError::InUse { .. })));
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        for mode in [0o600, 0o660, 0o666] {
            let file = SocketFile::make(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            file.remove();
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let error = |path: &Path| SocketFile::make(path, 0o600).expect_err("an error").to_string();

        fs::write(&path, "precious").unwrap();
        assert!(error(&path).contains("is no socket"), "{}", error(&path));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();

        let live = UnixListener::bind(&path).unwrap();
        assert!(error(&path).contains("in use by a running program"));
        assert!(path.exists());
        drop(live);
        SocketFile::make(&path, 0o600).expect("a stale socket is replaced").remove();

        let missing = directory.path().join("no/such/s");
        assert!(error(&missing).contains("no/such"), "{}", error(&missing));
        let long = directory.path().join("x".repeat(120));
        assert!(error(&long).contains("too long"));
    }

    #[test]
    fn another_programs_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let file = SocketFile::make(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        file.remove();
        assert!(path.exists());
    }
}
