//! Why a session with etcd ended.

use std::{error::Error, net::SocketAddr};

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
    /// What the client says, with its causes.
    pub(crate) fn failed(endpoint: &str, error: &etcd_client::Error) -> Self {
        let why = match error {
            etcd_client::Error::GRpcStatus(status) => said(status.message(), status.source()),
            other => said(&other.to_string(), other.source()),
        };
        Self::Failed { endpoint: endpoint.to_owned(), why }
    }

    pub(crate) fn silent(endpoint: &str) -> Self {
        Self::Failed { endpoint: endpoint.to_owned(), why: "no answer".to_owned() }
    }

    /// Whether to try the same again at once.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::GivenUp { .. })
    }
}

/// An error and its causes, each said once and without line breaks.
fn said(first: &str, mut cause: Option<&(dyn Error + 'static)>) -> String {
    let mut text = first.to_owned();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
