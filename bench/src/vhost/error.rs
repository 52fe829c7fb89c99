//! What can go wrong, and the way out.

use std::{io, path::PathBuf};

/// Why a benchmark ended without a report.
///
/// A message is a whole line: the system's words are part of it, not a source behind it.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Nothing is at the socket's path.
    #[error("{}: no such socket; start the server first, or give the path it listens on", .0.display())]
    SocketMissing(PathBuf),
    /// The path is something else.
    #[error("{}: not a socket; give the path of a vhost-user-blk socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket is there but the server is not, or turned us away.
    #[error("{}: cannot connect: {error}; is its server running, and no guest connected?", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The server took the connection and said nothing.
    #[error("{}: no answer within {seconds} s; another guest is probably connected, disconnect it first", .socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long the benchmark waited.
        seconds: u64,
    },
    /// The server speaks vhost-user but is no disk we can drive.
    #[error("{}: not a usable vhost-user-blk device: {reason}", .socket.display())]
    NotADisk {
        /// The socket.
        socket: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The disk ends before the region does.
    #[error("{}: the disk has {capacity_bytes} bytes, --size asks for {size_bytes}; give a smaller --size", .socket.display())]
    DiskTooSmall {
        /// The socket.
        socket: PathBuf,
        /// What the disk has.
        capacity_bytes: u64,
        /// What was asked for.
        size_bytes: u64,
    },
    /// The file of pages is of no use.
    #[error("{0}; bench/corpus makes a file of real pages, --pages names it")]
    Pages(String),
    /// Memory to share with the server cannot be had.
    #[error("cannot share {bytes} bytes of memory with the server: {error}")]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The ring cannot be written or its notification fails.
    #[error("the virtqueue fails: {0}; the server has probably ended")]
    Queue(io::Error),
    /// The server answers a request with an error.
    #[error(
        "{operation} of block {block} failed with error {code}; a pool that is full refuses writes, see the server's log"
    )]
    Request {
        /// What was asked for.
        operation: &'static str,
        /// Where on the disk, in 4 KiB blocks.
        block: u64,
        /// The status the server gave.
        code: i32,
    },
    /// Requests are in the ring and no answer comes.
    #[error("no answer to {in_flight} requests for {seconds} s; the server has ended or hangs")]
    Stuck {
        /// Requests without an answer.
        in_flight: usize,
        /// How long the benchmark waited.
        seconds: u64,
    },
    /// The disk gave back something else than what was written.
    #[error(
        "block {block} holds other bytes than were last written there; the server loses data, do not use it"
    )]
    Wrong {
        /// Where on the disk, in 4 KiB blocks.
        block: u64,
    },
    /// The report cannot be put into JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

impl From<io::Error> for BenchError {
    fn from(error: io::Error) -> Self {
        Self::Queue(error)
    }
}

impl From<serde_json::Error> for BenchError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}
