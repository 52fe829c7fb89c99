//! Why there is no tier.

use std::{io, path::PathBuf};

/// Why a server can't be the tier. These are mistakes that somebody has to set right; what may pass by itself (no connection, no memory
/// left, a replica) is a state of the tier instead.
#[derive(Debug, thiserror::Error)]
pub enum RedisTierError {
    /// No address.
    #[error(
        "the tier's address {name} is wrong: {why}; write redis://HOST:PORT, rediss://HOST:PORT for TLS, or redis-cluster://HOST:PORT,HOST:PORT"
    )]
    Address {
        /// The address without its password.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A prefix that would mix with others, or with the tier's own names.
    #[error("`{prefix}` is no prefix for keys: write 1 to 64 letters, digits, and any of . _ - /")]
    Prefix {
        /// The prefix asked for.
        prefix: String,
    },
    /// It would hold next to nothing.
    #[error("{size_bytes} bytes are too little for the tier {name}: give 4M at least with tier-size")]
    TooSmall {
        /// The server.
        name: String,
        /// The size asked for, in bytes.
        size_bytes: u64,
    },
    /// Keys would expire before anybody has told them to live on.
    #[error("keys of the tier can't expire after {seconds} seconds: write 60 to 2592000 (30 days)")]
    Expiry {
        /// The time asked for, in seconds.
        seconds: u64,
    },
    /// A password or certificate that can't be read.
    #[error("can't read {}, which the tier {name} needs: {error}", path.display())]
    File {
        /// The server.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Certificates that can't be used.
    #[error("TLS with the tier {name} is not possible: {why}")]
    Tls {
        /// The server.
        name: String,
        /// What is wrong.
        why: String,
    },
}
