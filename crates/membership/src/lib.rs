//! Who is in the cluster, under which address and in which epoch; and the certificates with which nodes know each other.
//!
//! docs/cluster.md says what an administrator does with it, docs/design.md ("Peers") what it is for. Nothing here is on the path of a page.
//!
//! | module | one job |
//! |---|---|
//! | [`ClusterId`] | which cluster |
//! | [`Identity`] | which node, and in which stretch of its life |
//! | `directory` | the files of both, and how they are written |
//! | [`setup`] | what `tmem cluster init`, `invite`, `join` and `renew` do |
//! | [`certificates`] | an authority for the cluster, a certificate for each node, and TLS with them |
//! | [`View`], [`Member`] | who is there |
//! | [`start`] | tells it, and goes on telling it: [`Source`] |
//! | `etcd` | the source that is more than a list |

pub mod certificates;
mod cluster_id;
mod directory;
mod error;
mod etcd;
mod identity;
mod membership;
mod random;
pub mod setup;
mod static_peer;
mod view;

pub use cluster_id::ClusterId;
pub use error::MembershipError;
pub use etcd::{DEFAULT_LEASE, EtcdSettings, EtcdTls};
pub use identity::Identity;
pub use membership::{Announcement, Running, Source, start};
pub use static_peer::{StaticPeer, check_domain, check_peers};
pub use tmem_cluster::{Epoch, NameError, NodeId, NodeName};
pub use view::{Member, View};

/// Where a node keeps its identity and certificates.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/tmem/cluster";
