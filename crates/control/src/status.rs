//! The status document: what `GET /api/v1/status` and `tmem status --json` show.
//!
//! The names of these fields are fixed: tools read them. Fields may be added, none renamed.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tmem_store::{ClientKind, ClientUsage, Dedup, ReuseDistances, StoreUsage};

use crate::DiskInfo;

/// Weight of a client. Weights are not implemented, all clients count the same, and 100 is what that is called.
const EQUAL_WEIGHT: u32 = 100;

/// The daemon's state at one moment. Sizes are in bytes, pages are 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Seconds since the daemon's start.
    pub uptime_seconds: u64,
    /// Where the read-only HTTP listener listens, as IP:PORT; null where it is off.
    pub http: Option<SocketAddr>,
    /// All clients together.
    pub pool: PoolStatus,
    /// One for each client, by name.
    pub clients: Vec<ClientStatus>,
    /// Where pages go when the arena is full. Empty: there are no tiers yet.
    pub tiers: Vec<TierStatus>,
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

/// One client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its name.
    pub name: String,
    /// `disk` or `native`.
    pub kind: String,
    /// Its share under pressure, relative to others'. Always 100: clients are not weighted yet.
    pub weight: u32,
    /// The most of the pool its pages may take; null where only the pool's limit counts.
    pub cap_bytes: Option<u64>,
    /// With whose pages its own may share memory: `alone`, `off`, or a domain's name.
    pub dedup: String,
    /// What its pages take. Of what it shares with others, its part.
    pub used_bytes: u64,
    /// Its pages in the pool.
    pub stored_pages: u64,
    /// The highest that `stored_pages` has been.
    pub peak_stored_pages: u64,
    /// Of its pages, those that repeat one value and take no memory of their own.
    pub same_filled_pages: u64,
    /// Of its pages, those that share a block with others of the same contents.
    pub dedup_pages: u64,
    /// Of its pages, those stored as they are because they do not compress.
    pub raw_pages: u64,
    /// What its pages would take uncompressed.
    pub logical_bytes: u64,
    /// What their contents take compressed.
    pub compressed_bytes: u64,
    /// Index and block headers: the part of `used_bytes` that is neither contents nor rounding.
    pub metadata_bytes: u64,
    /// Pages accepted.
    pub puts: u64,
    /// Pages asked for, whether or not they were there.
    pub gets: u64,
    /// Pages flushed.
    pub flushes: u64,
    /// Puts refused because pool or client was full.
    pub refused_puts: u64,
    /// Ephemeral pages dropped to make room.
    pub evicted_pages: u64,
    /// Blocks that did not match their checksum.
    pub checksum_errors: u64,
    /// Pages compressed harder since they were cold.
    pub recompressed_pages: u64,
    /// Memory that this gave back.
    pub recompression_saved_bytes: u64,
    /// Cold pages left as they were, because that would have gained too little.
    pub recompression_kept_pages: u64,
    /// How far back its gets reached.
    pub reuse_distances: ReuseStatus,
    /// Its disk; null for clients that are none.
    pub disk: Option<DiskStatus>,
}

/// How far back a client's gets reached: of those that found a page, how many pages the client had put since that page was put or
/// last fetched. A get of a distance below D would not have been needed with D more pages of memory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReuseStatus {
    /// By distance, nearest first; distances without gets are left out.
    pub buckets: Vec<ReuseBucket>,
    /// Gets of pages older than the store keeps account of.
    pub older_gets: u64,
}

/// Gets of like distance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReuseBucket {
    /// Distances are below this: 64, then four steps to each doubling.
    pub below_pages: u64,
    /// Gets of that distance, and not of the step before.
    pub gets: u64,
}

/// The disk of a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskStatus {
    /// What the guest sees as its size.
    pub size_bytes: u64,
    /// How guests reach it.
    pub transport: String,
    /// The Unix socket where guests reach it; null where there is none.
    pub socket: Option<PathBuf>,
    /// The TCP address where guests reach it; null where there is none.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// The block device of the daemon's host; null where there is none.
    #[serde(default)]
    pub device: Option<PathBuf>,
    /// Whether a guest is connected now, or the block device is swap or mounted.
    pub connected: bool,
}

/// A tier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TierStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// What its pages take there.
    pub used_bytes: u64,
    /// Pages in it.
    pub stored_pages: u64,
    /// Whether it works.
    pub state: String,
}

impl Status {
    /// Puts the document together.
    pub fn new(
        uptime: Duration,
        http: Option<SocketAddr>,
        pool: StoreUsage,
        clients: Vec<ClientUsage>,
        disks: Vec<DiskInfo>,
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
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs(),
            http,
            pool: PoolStatus::from(pool),
            clients,
            tiers: Vec::new(),
        }
    }
}

impl DiskStatus {
    /// Where guests reach it, for people.
    pub fn place(&self) -> String {
        match (self.socket.as_ref().or(self.device.as_ref()), self.address) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "-".to_owned(),
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

impl From<&ReuseDistances> for ReuseStatus {
    fn from(distances: &ReuseDistances) -> Self {
        let counted = distances.buckets().filter(|(_, gets)| *gets > 0);
        Self {
            buckets: counted.map(|(below_pages, gets)| ReuseBucket { below_pages, gets }).collect(),
            older_gets: distances.older_gets(),
        }
    }
}

impl ClientStatus {
    fn new(usage: ClientUsage, disk: Option<DiskInfo>) -> Self {
        let kind = match usage.kind {
            ClientKind::Disk => "disk",
            ClientKind::Native => "native",
        };
        Self {
            name: usage.name,
            kind: kind.to_owned(),
            weight: EQUAL_WEIGHT,
            cap_bytes: usage.cap_bytes,
            dedup: match usage.dedup {
                Dedup::Alone => "alone".to_owned(),
                Dedup::Off => "off".to_owned(),
                Dedup::Domain(name) => name,
            },
            used_bytes: usage.used_bytes,
            stored_pages: usage.stored_pages,
            peak_stored_pages: usage.peak_stored_pages,
            same_filled_pages: usage.same_filled_pages,
            dedup_pages: usage.dedup_pages,
            raw_pages: usage.raw_pages,
            logical_bytes: usage.logical_bytes,
            compressed_bytes: usage.compressed_bytes,
            metadata_bytes: usage.metadata_bytes,
            puts: usage.puts,
            gets: usage.gets,
            flushes: usage.flushes,
            refused_puts: usage.refused_puts,
            evicted_pages: usage.evicted_pages,
            checksum_errors: usage.checksum_errors,
            recompressed_pages: usage.recompressed_pages,
            recompression_saved_bytes: usage.recompression_saved_bytes,
            recompression_kept_pages: usage.recompression_kept_pages,
            reuse_distances: ReuseStatus::from(&usage.reuse_distances),
            disk: disk.map(|disk| DiskStatus {
                size_bytes: disk.size_bytes,
                transport: disk.transport,
                socket: disk.socket,
                address: disk.address,
                device: disk.device,
                connected: disk.connected,
            }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::{DiskFormat, TRANSPORT_VHOST_USER_BLK};

    pub(crate) fn sample() -> Status {
        let client = |name: &str, first: u64| ClientUsage {
            name: name.to_owned(),
            kind: ClientKind::Disk,
            dedup: if first == 100 { Dedup::Domain("web".to_owned()) } else { Dedup::Alone },
            dedup_pages: first + 15,
            cap_bytes: (first == 100).then_some(1 << 30),
            used_bytes: first + 1,
            stored_pages: first + 2,
            same_filled_pages: first + 3,
            raw_pages: first + 4,
            logical_bytes: first + 5,
            compressed_bytes: first + 6,
            peak_stored_pages: first + 7,
            puts: first + 8,
            gets: first + 9,
            flushes: first + 10,
            refused_puts: first + 11,
            checksum_errors: first + 12,
            metadata_bytes: first + 13,
            evicted_pages: first + 14,
            recompressed_pages: first + 15,
            recompression_saved_bytes: first + 16,
            recompression_kept_pages: first + 17,
            reuse_distances: ReuseDistances::default(),
        };
        let pool = StoreUsage {
            limit_bytes: 1 << 32,
            used_bytes: 303,
            held_bytes: 304,
            stored_pages: 305,
            logical_bytes: 306,
            compressed_bytes: 307,
            metadata_bytes: 308,
            recompressed_pages: 309,
            recompression_saved_bytes: 310,
            recompression_kept_pages: 311,
        };
        let disk = DiskInfo {
            name: "vm1".parse().expect("name"),
            size_bytes: 1 << 34,
            cap_bytes: Some(1 << 30),
            dedup: crate::DedupChoice::Alone,
            format: DiskFormat::Swap,
            transport: TRANSPORT_VHOST_USER_BLK.to_owned(),
            socket: Some("/run/tmem/vm1.sock".into()),
            address: None,
            device: None,
            queues: Some(1),
            connected: true,
        };
        let http = Some(SocketAddr::from(([127, 0, 0, 1], 7780)));
        Status::new(
            Duration::from_millis(61_999),
            http,
            pool,
            vec![client("vm2", 200), client("vm1", 100)],
            vec![disk],
        )
    }

    fn names(value: &Value) -> BTreeSet<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn the_names_are_fixed() {
        let json = serde_json::to_value(sample()).expect("json");
        assert_eq!(
            names(&json),
            ["clients", "http", "pid", "pool", "tiers", "uptime_seconds", "version"].into()
        );
        assert_eq!(
            names(&json["pool"]),
            [
                "compressed_bytes",
                "held_bytes",
                "limit_bytes",
                "logical_bytes",
                "metadata_bytes",
                "recompressed_pages",
                "recompression_kept_pages",
                "recompression_saved_bytes",
                "stored_pages",
                "used_bytes"
            ]
            .into()
        );
        assert_eq!(
            names(&json["clients"][0]),
            [
                "cap_bytes",
                "checksum_errors",
                "compressed_bytes",
                "dedup",
                "dedup_pages",
                "evicted_pages",
                "metadata_bytes",
                "disk",
                "flushes",
                "gets",
                "kind",
                "logical_bytes",
                "name",
                "peak_stored_pages",
                "puts",
                "raw_pages",
                "recompressed_pages",
                "recompression_kept_pages",
                "recompression_saved_bytes",
                "refused_puts",
                "reuse_distances",
                "same_filled_pages",
                "stored_pages",
                "used_bytes",
                "weight",
            ]
            .into()
        );
        assert_eq!(
            names(&json["clients"][0]["disk"]),
            ["address", "connected", "device", "size_bytes", "socket", "transport"].into()
        );
        let tier = TierStatus {
            name: "n".into(),
            kind: "k".into(),
            used_bytes: 0,
            stored_pages: 0,
            state: "s".into(),
        };
        let tier = serde_json::to_value(tier).expect("json");
        assert_eq!(names(&tier), ["kind", "name", "state", "stored_pages", "used_bytes"].into());
    }

    #[test]
    fn each_number_stands_under_its_own_name() {
        let json = serde_json::to_value(sample()).expect("json");
        let client = &json["clients"][0];
        for (name, value) in [
            ("used_bytes", 101),
            ("stored_pages", 102),
            ("same_filled_pages", 103),
            ("raw_pages", 104),
            ("logical_bytes", 105),
            ("compressed_bytes", 106),
            ("peak_stored_pages", 107),
            ("puts", 108),
            ("gets", 109),
            ("flushes", 110),
            ("refused_puts", 111),
            ("checksum_errors", 112),
            ("metadata_bytes", 113),
            ("evicted_pages", 114),
            ("recompressed_pages", 115),
            ("recompression_saved_bytes", 116),
            ("recompression_kept_pages", 117),
            ("weight", 100),
            ("dedup_pages", 115),
            ("cap_bytes", 1 << 30),
        ] {
            assert_eq!(client[name], value, "{name}");
        }
        assert_eq!((&client["name"], &client["kind"]), (&Value::from("vm1"), &Value::from("disk")));
        assert_eq!(
            (&client["dedup"], &json["clients"][1]["dedup"]),
            (&Value::from("web"), &Value::from("alone"))
        );
        assert_eq!(json["clients"][1]["cap_bytes"], Value::Null);
        assert_eq!(json["clients"][1]["disk"], Value::Null);
        for (name, value) in [
            ("limit_bytes", 1u64 << 32),
            ("used_bytes", 303),
            ("held_bytes", 304),
            ("stored_pages", 305),
            ("logical_bytes", 306),
            ("compressed_bytes", 307),
            ("metadata_bytes", 308),
            ("recompressed_pages", 309),
            ("recompression_saved_bytes", 310),
            ("recompression_kept_pages", 311),
        ] {
            assert_eq!(json["pool"][name], value, "{name}");
        }
        assert_eq!(json["uptime_seconds"], 61);
        assert_eq!(json["tiers"], Value::Array(Vec::new()));
    }

    #[test]
    fn it_reads_back() {
        let text = serde_json::to_string(&sample()).expect("json");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("status"), sample());
    }

    #[test]
    fn reuse_distances_show_where_gets_are() {
        let store = tmem_store::Store::new(tmem_store::StoreOptions { limit_bytes: 8 << 20 }).expect("store");
        let options = tmem_store::ClientOptions {
            name: "a".to_owned(),
            kind: ClientKind::Native,
            cap_bytes: None,
            dedup: Dedup::Alone,
        };
        let client = store.create_client(options).expect("client");
        let keys = tmem_store::Keys::Flat { pages: 10 };
        let pool = client.create_pool(tmem_store::Persistence::Persistent, keys).expect("pool");
        let (object, index) = (tmem_store::ObjectId(0), tmem_store::PageIndex(3));
        pool.put(object, index, (&[7; tmem_store::PAGE_BYTES]).into()).expect("put");
        for _ in 0..2 {
            pool.get(object, index, (&mut [0; tmem_store::PAGE_BYTES]).into()).expect("get");
        }
        let json = serde_json::to_value(ReuseStatus::from(&client.usage().reuse_distances)).expect("json");
        assert_eq!(
            json,
            serde_json::json!({ "buckets": [{ "below_pages": 64, "gets": 2 }], "older_gets": 0 })
        );
    }
}
