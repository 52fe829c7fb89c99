//! The status document: what `GET /api/v1/status` and `tmem status --json` show.
//!
//! The names of these fields are fixed: tools read them. Fields may be added, none renamed.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};
use tmem_store::{ClientKind, ClientUsage, StoreUsage, TierUsage};

use crate::{BalanceReport, ByteSize, ClusterReport, DiskInfo, Processes};

mod client;

pub use client::{ClientStatus, DiskStatus, ReuseBucket, ReuseStatus};

/// The daemon's state at one moment. Sizes are in bytes, pages are 4 KiB.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon's keeper, the one that was started: signals go to it.
    pub pid: u32,
    /// Process id of its worker, which serves.
    pub worker_pid: u32,
    /// Process id of the spare worker that stands by to follow it; null where none does.
    #[serde(default)]
    pub spare_pid: Option<u32>,
    /// Workers that have died; another one has taken over each time.
    pub worker_deaths: u32,
    /// Seconds since the daemon's start.
    pub uptime_seconds: u64,
    /// Where the read-only HTTP listener listens, as IP:PORT; null where it is off.
    pub http: Option<SocketAddr>,
    /// What the daemon is confined to, for people; null where it is not confined.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// All clients together.
    pub pool: PoolStatus,
    /// One for each client, by name.
    pub clients: Vec<ClientStatus>,
    /// Where pages go when there is no room for them in memory. Empty: there is no tier.
    pub tiers: Vec<TierStatus>,
    /// What the balancer sees and does; null where none reports.
    #[serde(default)]
    pub balance: Option<BalanceReport>,
    /// Whom this node lends to and borrows from; null where it is in no cluster.
    #[serde(default)]
    pub cluster: Option<ClusterReport>,
}

/// All clients together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The most memory the pool may hold.
    pub limit_bytes: u64,
    /// Memory that clients' pages take: the sum over all clients.
    pub used_bytes: u64,
    /// Memory held from the OS for it: used plus slack, never above the limit.
    pub held_bytes: u64,
    /// Pages in the pool.
    pub stored_pages: u64,
    /// What those pages would take uncompressed.
    pub logical_bytes: u64,
    /// What their contents take compressed.
    pub compressed_bytes: u64,
    /// Index and block headers: the part of `used_bytes` that is neither contents nor rounding.
    pub metadata_bytes: u64,
    /// Pages compressed harder since they were cold: the sum over all clients.
    pub recompressed_pages: u64,
    /// Memory that this gave back.
    pub recompression_saved_bytes: u64,
    /// Cold pages left as they were, because that would have gained too little.
    pub recompression_kept_pages: u64,
}

/// A tier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TierStatus {
    /// Its path.
    pub name: String,
    /// What it is: `file`, `device`, …
    pub kind: String,
    /// Space in use there: extents of which anything is still needed.
    pub used_bytes: u64,
    /// Pages that are there and not in memory; pages that share a block count once.
    pub stored_pages: u64,
    /// `ready`, `full`, `read-only`, `missing` or `failing`.
    pub state: String,
    /// What it can hold.
    #[serde(default)]
    pub limit_bytes: u64,
    /// What its pages take of `used_bytes`.
    #[serde(default)]
    pub live_bytes: u64,
    /// The last thing that went wrong, if it still matters.
    #[serde(default)]
    pub trouble: Option<String>,
    /// What nobody needs any more and the tier keeps until its copies go, because it could not be told, in bytes.
    #[serde(default)]
    pub untold_bytes: u64,
    /// Extents of 128 KiB written.
    #[serde(default)]
    pub written_extents: u64,
    /// Reads, whether or not they needed the disk.
    #[serde(default)]
    pub reads: u64,
    /// Reads and writes that it could not do.
    #[serde(default)]
    pub errors: u64,
}

/// As people read it: state, trouble, space and pages.
impl fmt::Display for TierStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.state)?;
        if let Some(trouble) = &self.trouble {
            write!(f, " ({trouble})")?;
        }
        let size = |bytes| ByteSize::from_bytes(bytes).rounded();
        write!(
            f,
            ", {} used of {}, {} pages",
            size(self.used_bytes),
            size(self.limit_bytes),
            self.stored_pages
        )
    }
}

impl Status {
    /// Puts the document together.
    pub fn new(
        processes: Processes,
        http: Option<SocketAddr>,
        pool: StoreUsage,
        clients: Vec<ClientUsage>,
        disks: Vec<DiskInfo>,
        tier: Option<TierUsage>,
    ) -> Self {
        let mut disks: BTreeMap<String, DiskInfo> =
            disks.into_iter().map(|disk| (disk.name.to_string(), disk)).collect();
        let mut clients: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let disk = if client.kind == ClientKind::Disk { disks.remove(&client.name) } else { None };
                ClientStatus::new(client, disk)
            })
            .collect();
        clients.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: processes.keeper,
            worker_pid: processes.worker,
            spare_pid: processes.spare,
            worker_deaths: processes.worker_deaths,
            uptime_seconds: processes.uptime.as_secs(),
            http,
            sandbox: None,
            pool: PoolStatus::from(pool),
            clients,
            tiers: tier.into_iter().map(TierStatus::from).collect(),
            balance: None,
            cluster: None,
        }
    }
}

impl From<TierUsage> for TierStatus {
    fn from(usage: TierUsage) -> Self {
        Self {
            name: usage.name,
            kind: usage.kind.to_owned(),
            used_bytes: usage.used_bytes,
            stored_pages: usage.stored_pages,
            state: usage.state.as_str().to_owned(),
            limit_bytes: usage.limit_bytes,
            live_bytes: usage.live_bytes,
            trouble: usage.trouble,
            untold_bytes: usage.untold_bytes,
            written_extents: usage.written_extents,
            reads: usage.reads,
            errors: usage.errors,
        }
    }
}

impl From<StoreUsage> for PoolStatus {
    fn from(usage: StoreUsage) -> Self {
        Self {
            limit_bytes: usage.limit_bytes,
            used_bytes: usage.used_bytes,
            held_bytes: usage.held_bytes,
            stored_pages: usage.stored_pages,
            logical_bytes: usage.logical_bytes,
            compressed_bytes: usage.compressed_bytes,
            metadata_bytes: usage.metadata_bytes,
            recompressed_pages: usage.recompressed_pages,
            recompression_saved_bytes: usage.recompression_saved_bytes,
            recompression_kept_pages: usage.recompression_kept_pages,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
