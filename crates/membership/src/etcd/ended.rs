//! Why a session with etcd ended.

use std::net::SocketAddr;

/// Why a session ended. Every message is one line, and says what becomes of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// It cannot be reached, or answered with an error.
    #[error("etcd at {endpoint}: {why}; nodes stay as they were last known, and it is tried again")]
    Failed { endpoint: String, why: String },
    /// The lease is over, or a key of the node's is not as it was left.
    #[error("etcd at {endpoint} has given up this node: {why}; it registers again")]
    GivenUp { endpoint: String, why: &'static str },
    /// Another node has the name.
    #[error("{0}")]
    Taken(Taken),
    /// The node's epoch is over, and another one cannot begin.
    #[error(
        "this node's epoch is over, and the next one cannot begin: {why}; it lends nothing until then, and tries again"
    )]
    NoEpoch { why: String },
}

/// A name that another node has.
#[derive(Debug, thiserror::Error)]
#[error(
    "duplicate node name: {name} is {}, and this host ({own}) is not in the cluster until that one has gone; give it a name of its own with `tmem cluster invite`, `join`",
    .at.map_or("in etcd in a form that is not known here".to_owned(), |at| format!("at {at}"))
)]
pub(crate) struct Taken {
    pub(crate) name: String,
    pub(crate) own: SocketAddr,
    pub(crate) at: Option<SocketAddr>,
}

impl Ended {
    /// Whether to try the same again at once.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::GivenUp { .. })
    }
}
