//! The configuration file.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use tmem_store::{RecompressionOptions, WriteBackOptions};

use crate::{
    BackgroundCpu, BalanceSettings, ByteSize, ClusterSettings, ControlError, DedupChoice, DiskFormat,
    DiskName, DiskSpec, Frontend, HttpListen, LogLevel, MaxCompressed, NbdAddress, PoolCeiling, PoolSize,
    Reaction, Recompress, RecompressAge, RecompressLevel, RedisExpiry, RedisPrefix, RedisReplicas, Reserve,
    Sandbox, SpareWorker, TierMode, Watchdog, WorkerDeaths, WriteBackAge, ZeroOnFlush,
    disk_service::disk_weight, one_line::one_line,
};

/// How long a queue's thread looks for more requests before it sleeps, by default, in microseconds. Waking a thread
/// costs tens of microseconds, so that a guest in the middle of swapping should not have to.
const DEFAULT_POLL_US: u32 = 1000;
/// A second: beyond that a thread burns a core for a guest that is not swapping.
pub const MAX_POLL_US: u32 = 1_000_000;

/// So much of a faulty line is quoted, in characters.
const SHOWN_CHARS: usize = 60;

/// What `tmem serve` is told. [`Config::default`] is what holds where a file says nothing, or no file is named.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// How large the pool may be.
    pub pool_size: PoolSize,
    /// What a pool that sizes itself leaves to the host.
    pub reserve: Reserve,
    /// The most that a pool that sizes itself may grow to.
    pub pool_ceiling: PoolCeiling,
    /// How often such a pool looks at the host.
    #[serde(rename = "reaction-ms")]
    pub reaction: Reaction,
    /// The read-only HTTP listener.
    pub http: HttpListen,
    /// How long a queue's thread polls after a request, at most, in microseconds; 0 to [`MAX_POLL_US`].
    #[serde(deserialize_with = "deserialize_poll_us")]
    pub poll_us: u32,
    /// The largest compressed page worth keeping.
    pub max_compressed: MaxCompressed,
    /// Whether cold pages are compressed harder.
    pub recompress: Recompress,
    /// After how long a page is cold.
    pub recompress_age: RecompressAge,
    /// How hard cold pages are compressed.
    pub recompress_level: RecompressLevel,
    /// How much of a CPU background work may take.
    pub background_cpu: BackgroundCpu,
    /// The file or block device to which pages go that are not in memory any more, or the address of a Redis server.
    pub tier: Option<PathBuf>,
    /// How large it may become.
    pub tier_size: Option<ByteSize>,
    /// What the keys in Redis begin with.
    pub redis_prefix: RedisPrefix,
    /// When they go if nobody needs them.
    pub redis_expiry: RedisExpiry,
    /// How many of its replicas have to have pages.
    pub redis_replicas: RedisReplicas,
    /// The file with its password.
    pub redis_password_file: Option<PathBuf>,
    /// The certificates of the authorities that its own is from.
    pub redis_ca: Option<PathBuf>,
    /// Whether extents are copied there as soon as they are full.
    pub tier_mode: TierMode,
    /// After how long without use a page goes there.
    pub write_back_age: WriteBackAge,
    /// Whether blocks of forgotten pages are overwritten.
    pub zero_on_flush: ZeroOnFlush,
    /// The server's certificate for TLS on NBD.
    pub nbd_tls_cert: Option<PathBuf>,
    /// Its private key.
    pub nbd_tls_key: Option<PathBuf>,
    /// The certificates of the authorities whose NBD clients are let in.
    pub nbd_tls_client_ca: Option<PathBuf>,
    /// How often workers may die.
    pub worker_deaths: WorkerDeaths,
    /// How long a worker may hang.
    pub watchdog: Watchdog,
    /// Whether another one stands by for the worker that serves.
    pub spare_worker: SpareWorker,
    /// Whether the process that serves confines itself.
    pub sandbox: Sandbox,
    /// The user that it then becomes.
    pub user: Option<String>,
    /// How much goes to stderr.
    pub log_level: LogLevel,
    /// What it is told of a cluster. `None`: this host is in none.
    pub cluster: Option<ClusterSettings>,
    /// What the balancer is told; it is a process of its own.
    pub balance: BalanceSettings,
    /// Disks to make at the start.
    #[serde(rename = "disk", deserialize_with = "deserialize_disks")]
    pub disks: Vec<DiskSpec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pool_size: PoolSize::default(),
            reserve: Reserve::default(),
            pool_ceiling: PoolCeiling::default(),
            reaction: Reaction::default(),
            http: HttpListen::default(),
            poll_us: DEFAULT_POLL_US,
            max_compressed: MaxCompressed::default(),
            recompress: Recompress::default(),
            recompress_age: RecompressAge::default(),
            recompress_level: RecompressLevel::default(),
            background_cpu: BackgroundCpu::default(),
            tier: None,
            tier_size: None,
            redis_prefix: RedisPrefix::default(),
            redis_expiry: RedisExpiry::default(),
            redis_replicas: RedisReplicas::default(),
            redis_password_file: None,
            redis_ca: None,
            tier_mode: TierMode::default(),
            write_back_age: WriteBackAge::default(),
            zero_on_flush: ZeroOnFlush::default(),
            nbd_tls_cert: None,
            nbd_tls_key: None,
            nbd_tls_client_ca: None,
            worker_deaths: WorkerDeaths::default(),
            watchdog: Watchdog::default(),
            spare_worker: SpareWorker::default(),
            sandbox: Sandbox::default(),
            user: None,
            log_level: LogLevel::default(),
            cluster: None,
            balance: BalanceSettings::default(),
            disks: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, has unknown keys, values that make no sense, or two disks of one name
    /// or on one socket. The error names the file, the line where it is known, and the key.
    pub fn read(path: &Path) -> Result<Self, ControlError> {
        Self::parse(&Self::text(path)?, path)
    }

    /// A file's text, for [`Config::parse`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(path: &Path) -> Result<String, ControlError> {
        fs::read_to_string(path).map_err(|source| ControlError::ConfigRead { path: path.to_owned(), source })
    }

    /// Reads text that came from `path`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ControlError> {
        let wrong = |place: String, message: &str| ControlError::Config {
            path: path.to_owned(),
            place: one_line(&place),
            message: one_line(message),
        };
        let config: Self = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| place_of(text, span.start));
            wrong(place.unwrap_or_default(), &joined(error.message()))
        })?;
        let mut names = BTreeSet::new();
        for disk in &config.disks {
            let refuse = |message: String| Err(wrong(String::new(), &message));
            if let Err(error) = disk.check() {
                return refuse(error.to_string());
            }
            if !names.insert(&disk.name) {
                return refuse(format!(
                    "disk {}: the name is given twice; every disk needs its own",
                    disk.name
                ));
            }
            let others = config.disks.iter().filter(|other| other.name != disk.name);
            if let Some(other) =
                others.into_iter().find(|other| !other.frontend.is_compatible(&disk.frontend))
            {
                return refuse(format!(
                    "disk {}: disk {} has the socket {}, too; every disk needs its own",
                    disk.name, other.name, disk.frontend
                ));
            }
        }
        Ok(config)
    }
}

impl Config {
    /// Where the tier is, and how large it may become, if it is to be a file or block device.
    ///
    /// # Errors
    /// [`ControlError::TierSizeAlone`].
    pub fn tier(&self) -> Result<Option<(&Path, Option<u64>)>, ControlError> {
        match (&self.tier, self.tier_size) {
            (Some(_), _) if self.tier_address().is_some() => Ok(None),
            (Some(path), size) => Ok(Some((path, size.map(ByteSize::bytes)))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ControlError::TierSizeAlone),
        }
    }

    /// The address of the tier, and how large it may become in bytes, if it is to be a server.
    ///
    /// # Errors
    /// [`ControlError::TierSizeNeeded`].
    pub fn redis_tier(&self) -> Result<Option<(&str, u64)>, ControlError> {
        match (self.tier_address(), self.tier_size) {
            (Some(address), Some(size)) => Ok(Some((address, size.bytes()))),
            (Some(_), None) => Err(ControlError::TierSizeNeeded),
            (None, _) => Ok(None),
        }
    }

    /// No path of a file is written so.
    fn tier_address(&self) -> Option<&str> {
        self.tier.as_ref()?.to_str().filter(|text| !text.starts_with('/') && text.contains("://"))
    }

    /// What it says of when pages go to the tier, for the store.
    pub fn write_back(&self) -> WriteBackOptions {
        WriteBackOptions {
            age: self.write_back_age.time(),
            write_through: self.tier_mode == TierMode::WriteThrough,
        }
    }

    /// What it says of recompression, for the store.
    pub fn recompression(&self) -> RecompressionOptions {
        RecompressionOptions {
            enabled: self.recompress == Recompress::On,
            age: Duration::from_secs(self.recompress_age.seconds().into()),
            level: self.recompress_level.level(),
        }
    }
}

/// Reads a polling limit from a flag.
///
/// # Errors
/// [`ControlError::Poll`] where it is no number or beyond [`MAX_POLL_US`].
pub fn poll_us(text: &str) -> Result<u32, ControlError> {
    match text.parse() {
        Ok(microseconds) if microseconds <= MAX_POLL_US => Ok(microseconds),
        _ => Err(ControlError::Poll { text: text.to_owned() }),
    }
}

fn deserialize_poll_us<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    poll_us(&number.to_string()).map_err(de::Error::custom)
}

/// A `[[disk]]` section: a [`DiskSpec`] in the file's words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DiskSection {
    name: DiskName,
    size: ByteSize,
    vhost_user: Option<PathBuf>,
    nbd: Option<NbdAddress>,
    #[serde(default)]
    ublk: bool,
    cap: Option<ByteSize>,
    weight: Option<u32>,
    #[serde(default)]
    dedup: DedupChoice,
    #[serde(default)]
    format: DiskFormat,
    queues: Option<u16>,
}

fn deserialize_disks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DiskSpec>, D::Error> {
    let sections = Vec::<DiskSection>::deserialize(deserializer)?;
    let spec = |section: DiskSection| {
        let frontend = Frontend::new(section.vhost_user, section.nbd, section.ublk, section.queues)
            .map_err(|wrong| de::Error::custom(format!("disk {}: {wrong}", section.name)))?;
        let weight = disk_weight(&section.name, section.weight).map_err(de::Error::custom)?;
        Ok(DiskSpec {
            name: section.name,
            size_bytes: section.size.bytes(),
            frontend,
            cap_bytes: section.cap.map(ByteSize::bytes),
            weight,
            dedup: section.dedup,
            format: section.format,
        })
    };
    sections.into_iter().map(spec).collect()
}

/// `, line N` and what stands there, because a value's error does not always name its key.
fn place_of(text: &str, offset: usize) -> String {
    let number = text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    let shown: String = line.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
    format!(", line {} (`{shown}`)", number + 1)
}

/// The lines of a message that has several.
fn joined(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
