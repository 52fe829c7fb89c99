//! What goes wrong between two peers.

use std::{io, net::SocketAddr};

use tmem_cluster::wire::WireError;

/// Why there is no connection to a peer, or none any more. Each is one line for people.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The socket, or TLS over it.
    #[error("{address}: {error}")]
    Io {
        /// The peer's.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// It said something that the protocol does not have.
    #[error("{address}: {error}")]
    Wire {
        /// The peer's.
        address: String,
        /// What is wrong.
        error: WireError,
    },
    /// It has a certificate that does not belong to its name.
    #[error(
        "{address}: the peer calls itself {name}, but its certificate is for {certified}: make it one with `tmem cluster invite {name}`"
    )]
    Certificate {
        /// The peer's.
        address: String,
        /// As it says.
        name: String,
        /// As its certificate says.
        certified: String,
    },
    /// Two nodes have one name.
    #[error("duplicate node name {name}: {local} (this node) and {remote} both have it: rename one of them")]
    DuplicateName {
        /// The name.
        name: String,
        /// This node's address on that connection.
        local: String,
        /// The peer's.
        remote: String,
    },
    /// Another node is there than was looked for.
    #[error("{address}: node {found} is there and not {expected}: correct the address of {expected}")]
    OtherNode {
        /// Where.
        address: String,
        /// Who was looked for.
        expected: String,
        /// Who is there.
        found: String,
    },
    /// It was given up by the others, or is an older life of it.
    #[error(
        "{address}: node {name} is in epoch {found}, and epoch {latest} of it is known: it has to be restarted"
    )]
    OldEpoch {
        /// Where.
        address: String,
        /// Who.
        name: String,
        /// As it says.
        found: u64,
        /// The latest that is known.
        latest: u64,
    },
    /// Two other nodes have one name.
    #[error("two nodes have the name {name}, {first} and {second}: rename one of them")]
    TwoNodes {
        /// The name.
        name: String,
        /// Where the one is that was there first.
        first: String,
        /// Where the other one is, which is turned away.
        second: String,
    },
    /// It says what only lenders say.
    #[error("{address}: the peer says what no borrower says: run the same release of tmem on both")]
    NoBorrower {
        /// The peer's.
        address: String,
    },
    /// It answers nothing, or takes nothing.
    #[error("{address}: the peer has been silent for {ms} ms")]
    Silent {
        /// The peer's.
        address: String,
        /// For how long.
        ms: u128,
    },
    /// It answers something else than it was asked.
    #[error("{address}: the peer does not answer what it was asked: run the same release of tmem on both")]
    Strange {
        /// The peer's.
        address: String,
    },
    /// This side ended it.
    #[error("{address}: the connection was ended")]
    Closed {
        /// The peer's.
        address: String,
    },
}

impl PeerError {
    /// An error of a socket, or of TLS.
    pub(crate) fn io(address: &str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { address: address.to_owned(), error }
    }

    /// An error in what was said.
    pub(crate) fn wire(address: &str) -> impl Fn(WireError) -> Self {
        move |error| Self::Wire { address: address.to_owned(), error }
    }
}

/// An address for messages.
pub(crate) fn readable(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string())
}
