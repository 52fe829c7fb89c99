//! What goes wrong, on what, and the way out.

use std::{io, path::PathBuf};

/// Why a guest or cgroup could not be asked or told. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum ActuatorError {
    /// Nobody is at the socket.
    #[error(
        "{} cannot be reached ({source}): is the guest running, and is that its socket?", place.display()
    )]
    Unreachable {
        /// The socket.
        place: PathBuf,
        /// What the OS says.
        source: io::Error,
    },
    /// A monitor that does not greet whoever comes.
    #[error(
        "{} says nothing to who connects: QEMU talks to one client at a time. End the other one, or give QEMU another monitor: -qmp unix:PATH,server=on,wait=off",
        place.display()
    )]
    Taken {
        /// The socket.
        place: PathBuf,
    },
    /// It took too long.
    #[error("{} did not answer within {seconds} seconds: is the process behind it stopped, or the host very busy?", place.display())]
    Late {
        /// The socket or directory.
        place: PathBuf,
        /// How long it had.
        seconds: u64,
    },
    /// It ended the connection, or the connection broke.
    #[error("{} broke off ({why}): it is asked again next time", place.display())]
    BrokeOff {
        /// The socket.
        place: PathBuf,
        /// How.
        why: String,
    },
    /// An answer without end.
    #[error("{} answered with more than {limit_bytes} bytes: what is behind that socket?", place.display())]
    TooLong {
        /// The socket.
        place: PathBuf,
        /// How long an answer may be.
        limit_bytes: usize,
    },
    /// An answer that is none.
    #[error("{} answered what it should not ({what}): what is behind that socket?", place.display())]
    Garbage {
        /// The socket or file.
        place: PathBuf,
        /// What.
        what: String,
    },
    /// A number that cannot be.
    #[error("{} says {what}, which cannot be: the guest is left alone", place.display())]
    Nonsense {
        /// The socket or directory.
        place: PathBuf,
        /// What.
        what: String,
    },
    /// It said no.
    #[error("{} refused {request}: {why}", place.display())]
    Refused {
        /// The socket.
        place: PathBuf,
        /// What it was asked.
        request: String,
        /// What it said.
        why: String,
    },
    /// A guest without a balloon.
    #[error("the guest at {} has no balloon: start it with {add}", place.display())]
    NoBalloon {
        /// The socket.
        place: PathBuf,
        /// What to add to its command line or configuration.
        add: &'static str,
    },
    /// A file of a cgroup, or of the host, that cannot be read or written.
    #[error(
        "{}: {source}; it has to be a cgroup of version 2 with the memory controller, which this process may change", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the OS says.
        source: io::Error,
    },
    /// The kernel has not done what it was told before.
    #[error("{} is still at what it was told before: its memory cannot be reclaimed fast enough, is its swap slow?", place.display())]
    Busy {
        /// The directory.
        place: PathBuf,
    },
}
