//! Why a frontend could not start.

use std::io;
use std::path::PathBuf;

/// Why a vhost-user frontend could not be started. Once it runs, nothing a guest does is an error of ours.
#[derive(Debug, thiserror::Error)]
pub enum VhostError {
    /// The number of queues is out of range.
    #[error("{queues} queues are not possible: choose 1 to {max}")]
    Queues {
        /// What was asked for.
        queues: u16,
        /// The most there can be.
        max: u16,
    },
    /// The queue size is out of range or no power of two.
    #[error("a queue size of {size} is not possible: choose a power of two from {min} to {max}")]
    QueueSize {
        /// What was asked for.
        size: u16,
        /// The least possible.
        min: u16,
        /// The most possible.
        max: u16,
    },
    /// Unix socket addresses are short.
    #[error("socket path {} is too long: keep the directory's path under {max_bytes} bytes and the whole under 108", path.display())]
    PathTooLong {
        /// The path asked for.
        path: PathBuf,
        /// Longest directory path.
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
    SocketInUse {
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
    Socket {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The frontend's thread could not be started.
    #[error("cannot start the thread for socket {}: {error}; check the limits on processes and descriptors", path.display())]
    Thread {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}
