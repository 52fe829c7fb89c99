//! Listening sockets with files, which the keeper makes and removes.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tmem_keeper::{Estate, MAX_SOCKET_PATH_BYTES, socket_name};

use crate::error::SocketError;

/// Mode of the socket file when nobody says otherwise: only the daemon's own user may connect. A hypervisor
/// that runs as another user (libvirt's QEMU does) needs a wider one, together with a directory that lets
/// the right group in.
pub const DEFAULT_SOCKET_MODE: u32 = 0o600;

/// A listening socket and its file, which goes when this is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub struct SocketFile {
    /// Does not block.
    pub listener: UnixListener,
    path: PathBuf,
    estate: Arc<Estate>,
    /// It is left to the next process.
    is_kept: bool,
}

impl SocketFile {
    /// Makes the socket, for this process alone. A file left behind by a program that is gone is replaced; anything else in the way
    /// is an error.
    pub fn make(path: &Path, mode: u32, estate: &Arc<Estate>) -> Result<SocketFile, SocketError> {
        let bound = estate.bind(path, mode).map_err(|error| refused(path, error))?;
        if bound.has_replaced {
            log::info!("replaced socket {} of a program that is gone", path.display());
        }
        let estate = Arc::clone(estate);
        SocketFile { listener: bound.listener, path: path.to_owned(), estate, is_kept: false }.ready()
    }

    /// The socket that the process before this one left at that path; if there is none, a new one, for this process and the next.
    pub fn make_kept(path: &Path, mode: u32, estate: &Arc<Estate>) -> Result<SocketFile, SocketError> {
        let name = socket_name(path.display());
        if let Some(left) = estate.take(&name) {
            let (listener, estate) = (UnixListener::from(left), Arc::clone(estate));
            return SocketFile { listener, path: path.to_owned(), estate, is_kept: true }.ready();
        }
        let mut file = SocketFile::make(path, mode, estate)?;
        let kept = estate.keep(&name, file.listener.as_fd());
        kept.map_err(|error| SocketError::Make { path: path.to_owned(), error })?;
        file.is_kept = true;
        Ok(file)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, as dropping it does.
    pub fn remove(self) {
        drop(self);
    }

    fn ready(self) -> Result<SocketFile, SocketError> {
        match self.listener.set_nonblocking(true) {
            Ok(()) => Ok(self),
            Err(error) => Err(SocketError::Make { path: self.path.clone(), error }),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.estate.unbind(&self.path) {
            log::warn!("cannot remove socket {}: {error}", self.path.display());
        }
        if self.is_kept {
            self.estate.release(&socket_name(self.path.display()));
        }
    }
}

/// What the keeper's error says.
fn refused(path: &Path, error: io::Error) -> SocketError {
    let path = path.to_owned();
    match error.raw_os_error() {
        Some(libc::ENAMETOOLONG) => SocketError::PathTooLong { path, max_bytes: MAX_SOCKET_PATH_BYTES },
        Some(libc::ENOENT | libc::ENOTDIR) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            SocketError::NoDirectory { path: directory.unwrap_or(Path::new(".")).to_owned() }
        }
        Some(libc::EADDRINUSE) => SocketError::InUse { path },
        Some(libc::ENOTSOCK) => SocketError::NotASocket { path },
        _ => SocketError::Make { path, error },
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;

    fn make(path: &Path, mode: u32) -> Result<SocketFile, SocketError> {
        SocketFile::make(path, mode, &Arc::default())
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        for mode in [0o600, 0o660, 0o666] {
            let file = make(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode);
            assert_eq!(file.listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            file.remove();
            assert!(!path.exists());
        }
        drop(make(&path, 0o600).unwrap());
        assert!(!path.exists(), "nor does it stay where something else has failed");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let error = |path: &Path| make(path, 0o600).expect_err("an error").to_string();

        fs::write(&path, "precious").unwrap();
        assert!(error(&path).contains("is no socket"), "{}", error(&path));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();

        let live = UnixListener::bind(&path).unwrap();
        assert!(error(&path).contains("in use by a running program"));
        assert!(path.exists());
        drop(live);
        make(&path, 0o600).expect("a stale socket is replaced").remove();

        let missing = directory.path().join("no/such/s");
        assert!(error(&missing).contains("no/such"), "{}", error(&missing));
        assert!(error(&directory.path().join("x".repeat(120))).contains("too long"));
    }

    #[test]
    fn another_programs_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let file = make(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        file.remove();
        assert!(path.exists());
    }
}
