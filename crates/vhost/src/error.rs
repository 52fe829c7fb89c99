//! Why a frontend could not start.

use std::io;
use std::path::PathBuf;

use tmem_transport::SocketError;

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
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The frontend's thread could not be started.
    #[error("cannot start the thread for socket {}: {error}; check the limits on processes and descriptors", path.display())]
    Thread {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}
