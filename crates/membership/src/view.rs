//! Who is in the cluster.

use std::net::SocketAddr;

use tmem_cluster::{Epoch, NodeId, NodeName};

/// A node other than this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What people call it.
    pub name: NodeName,
    /// The same as a number.
    pub id: NodeId,
    /// Where it lends.
    pub address: SocketAddr,
    /// What fails together with it. `None`: nothing else does.
    pub domain: Option<String>,
    /// The epoch that it is in. `None`: nobody but the node itself says so.
    pub epoch: Option<Epoch>,
    /// What may be borrowed from it, as it said some time ago, in bytes. `None`: it says so only to those that are connected.
    pub free_bytes: Option<u64>,
}

/// All that is known of who is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The other nodes, in order of their names.
    pub members: Vec<Member>,
    /// Which epoch each node reached at last, be it there or not. All earlier ones of it are over: what it took in them is never to be read.
    pub epochs: Vec<(NodeId, Epoch)>,
    /// Whether this is so now. If not, it was when it was last known, and is what counts until something else is.
    pub is_current: bool,
}
