//! What a tier is made with, and who its peers are.

use std::time::Duration;

use tmem_cluster::{Epoch, NodeName};

use crate::{greeting::Identity, stream::Security};

/// What a [`PeerTier`](crate::PeerTier) is made with.
#[derive(Clone, Debug)]
pub struct PeerTierOptions {
    /// What people call it.
    pub name: String,
    /// Who this node is.
    pub identity: Identity,
    /// How peers know it, and it them.
    pub security: Security,
    /// On how many nodes each extent is, 1 to 4.
    pub copies: usize,
    /// Whether peers get pages encrypted, so that they cannot read them. What is there already is read either way.
    pub encrypt: bool,
    /// How many bytes a second repair may fetch; 0: as many as it can.
    pub repair_bytes_per_second: u64,
    /// How long after the loss of a peer repair begins: it may be back at once. [`Self::REPAIR_DELAY`] does for most.
    pub repair_delay: Duration,
    /// Whether the members that are named first may not be all that are there, as with etcd. What the store has that nobody has said to have is
    /// then waited for, for half a minute after the start.
    pub more_members_may_come: bool,
}

impl PeerTierOptions {
    /// A daemon that is started anew, and a cable that is put into another socket, are back within this.
    pub const REPAIR_DELAY: Duration = Duration::from_secs(2);
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Where it lends: host and port.
    pub address: String,
    /// What fails with it. `None`: nothing else does.
    pub domain: Option<String>,
    /// The latest epoch of it that is known. `None`: it will say so itself.
    pub epoch: Option<Epoch>,
}
