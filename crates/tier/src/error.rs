//! Why there is no tier.

use std::{io, path::PathBuf};

use crate::layout::MIN_TIER_BYTES;

/// Why a file or device can't be the tier. These are mistakes that somebody has to set right; what may pass by itself (no such
/// disk, no space, read-only, I/O errors) is a state of the tier instead.
#[derive(Debug, thiserror::Error)]
pub enum FileTierError {
    /// The path depends on the directory of the process.
    #[error("the tier's path {} is relative: give the whole path", path.display())]
    Relative {
        /// The path asked for.
        path: PathBuf,
    },
    /// A directory, a socket, …
    #[error("{} is {what}: the tier is a file or a block device", path.display())]
    WrongKind {
        /// The path asked for.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file may become as large as its disk.
    #[error("the tier {} is a file: say with tier-size how large it may become", path.display())]
    SizeNeeded {
        /// The path asked for.
        path: PathBuf,
    },
    /// It holds next to nothing.
    #[error("{size_bytes} bytes are too little for the tier {}: it needs {MIN_TIER_BYTES} at least", path.display())]
    TooSmall {
        /// The path asked for.
        path: PathBuf,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// The process must not make files that large.
    #[error("the tier {} can't have {size_bytes} bytes: this process may make files of {limit_bytes}; raise its limit of file sizes (LimitFSIZE=, ulimit -f)", path.display())]
    OverFileSizeLimit {
        /// The path asked for.
        path: PathBuf,
        /// The size asked for, in bytes.
        size_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// Somebody's data.
    #[error("{} holds data that is not tmem's: it stays as it is. Give another path, or remove the file, or clear the device (blkdiscard -fz {}) if nobody needs it", path.display(), path.display())]
    Foreign {
        /// The path asked for.
        path: PathBuf,
    },
    /// Made by another release, or damaged.
    #[error("{} is a tier {why}: remove the file, or clear the device (blkdiscard -fz {}), if no running tmem uses it", path.display(), path.display())]
    Unreadable {
        /// The path asked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A lock is held, or the device is mounted, a swap area, part of something.
    #[error("{} is in use by another program: give another path, or end that program", path.display())]
    InUse {
        /// The path asked for.
        path: PathBuf,
    },
    /// Whatever is written would go through the page cache.
    #[error("the file system of {} can't do direct I/O: put the tier on another one", path.display())]
    NoDirectIo {
        /// The path asked for.
        path: PathBuf,
    },
    /// Permissions.
    #[error("may not open the tier {}: {error}; let this process's user read and write it, and its directory", path.display())]
    Denied {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No io_uring, or no memory.
    #[error(
        "can't set up the tier's I/O: {error}; it needs io_uring (Linux 5.11, kernel.io_uring_disabled=0, allowed by the container's seccomp profile) and some MiB of memory"
    )]
    Setup {
        /// What the system said.
        error: io::Error,
    },
}
