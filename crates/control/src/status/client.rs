//! A client in the status document.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tmem_store::{ClientKind, ClientUsage, Dedup, ReuseDistances};

use crate::DiskInfo;

/// One client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its name.
    pub name: String,
    /// `disk` or `native`.
    pub kind: String,
    /// Its share under pressure, relative to others'.
    pub weight: u32,
    /// Its part of the pool's limit by its weight. Beyond it, it does not grow while less than a sixteenth of the limit is left.
    #[serde(default)]
    pub share_bytes: u64,
    /// Whether its puts are refused, because somebody said so.
    #[serde(default)]
    pub frozen: bool,
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
    /// Puts refused: the pool was full, the client's cap or share reached, the client frozen, or the page does not compress.
    pub refused_puts: u64,
    /// Those of them whose page does not compress as well as `max-compressed` asks for.
    #[serde(default)]
    pub incompressible_puts: u64,
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
    /// Of its pages, those in blocks of their own that are in a tier, not in memory.
    #[serde(default)]
    pub tiered_pages: u64,
    /// What those take there.
    #[serde(default)]
    pub tiered_bytes: u64,
    /// Pages moved to a tier.
    #[serde(default)]
    pub written_back_pages: u64,
    /// Gets that found their page in a tier.
    #[serde(default)]
    pub tier_gets: u64,
    /// Gets that a tier could not serve.
    #[serde(default)]
    pub tier_errors: u64,
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
    pub(super) fn new(usage: ClientUsage, disk: Option<DiskInfo>) -> Self {
        let kind = match usage.kind {
            ClientKind::Disk => "disk",
            ClientKind::Native => "native",
        };
        Self {
            name: usage.name,
            kind: kind.to_owned(),
            weight: usage.weight.get(),
            share_bytes: usage.share_bytes,
            frozen: usage.frozen,
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
            incompressible_puts: usage.incompressible_puts,
            evicted_pages: usage.evicted_pages,
            checksum_errors: usage.checksum_errors,
            recompressed_pages: usage.recompressed_pages,
            recompression_saved_bytes: usage.recompression_saved_bytes,
            recompression_kept_pages: usage.recompression_kept_pages,
            tiered_pages: usage.tiered_pages,
            tiered_bytes: usage.tiered_bytes,
            written_back_pages: usage.written_back_pages,
            tier_gets: usage.tier_gets,
            tier_errors: usage.tier_errors,
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
