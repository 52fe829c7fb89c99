//! Why a socket file could not be made.

use std::{io, path::PathBuf};

/// Why there is no socket at a path.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Unix socket addresses are short.
    #[error("socket path {} is too long: choose one of {max_bytes} bytes at most", path.display())]
    PathTooLong {
        /// The path asked for.
        path: PathBuf,
        /// The longest possible, in bytes.
        max_bytes: usize,
    },
    /// The directory that is to hold the socket does not exist.
    #[error("directory {} for the socket does not exist: create it first", path.display())]
    NoDirectory {
        /// The missing directory.
        path: PathBuf,
    },
    /// A running program answers on the socket.
    #[error("socket {} is in use by a running program: choose another path or end that program", path.display())]
    InUse {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something that is no socket is in the way.
    #[error("{} exists and is no socket: choose another path or remove it", path.display())]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// The socket file could not be made.
    #[error("cannot make socket {}: {error}; check that its directory is writable", path.display())]
    Make {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}
