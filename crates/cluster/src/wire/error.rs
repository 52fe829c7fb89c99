//! What is wrong with what a peer said. Each of them ends the connection.

use super::hello::VERSION;

/// Why something a peer said is not taken, or something is not said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Whatever it is, it is no peer.
    #[error("what answered is no tmem peer: look at the address")]
    NoPeer,
    /// It speaks another version of the protocol.
    #[error(
        "the peer speaks version {theirs} of the protocol and this tmem version {VERSION}: run the same release of tmem on both"
    )]
    Version {
        /// The peer's.
        theirs: u16,
    },
    /// The peer's hello has something in it that no hello has.
    #[error("the peer's hello has no valid {0}: look at what the peer is")]
    Hello(&'static str),
    /// It belongs to another cluster.
    #[error("the peer belongs to another cluster: `tmem cluster join` makes it one of this")]
    OtherCluster,
    /// Bytes changed on the way.
    #[error("the {0} of a frame is damaged: the connection is begun anew")]
    Damaged(&'static str),
    /// A header promises more than any frame has.
    #[error("a frame says that it has {0} bytes, more than the protocol has: the connection is begun anew")]
    TooLong(u32),
    /// No message has this number.
    #[error("a frame has the unknown kind {0}: the connection is begun anew")]
    Kind(u16),
    /// A payload is not what its kind says.
    #[error("a {message} has {what}: the connection is begun anew")]
    Malformed {
        /// The message's name.
        message: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The peer ended the connection within a frame or hello.
    #[error("the peer ended the connection half through a message: it is begun anew")]
    Cut,
}
