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
    BackgroundCpu, ByteSize, ControlError, DedupChoice, DiskFormat, DiskName, DiskSpec, Frontend, HttpListen,
    LogLevel, MaxCompressed, NbdAddress, PoolCeiling, PoolSize, Reaction, Recompress, RecompressAge,
    RecompressLevel, Reserve, Sandbox, SpareWorker, TierMode, Watchdog, WorkerDeaths, WriteBackAge,
    ZeroOnFlush, disk_service::disk_weight, one_line::one_line,
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
    /// The file or block device to which pages go that are not in memory any more.
    pub tier: Option<PathBuf>,
    /// How large it may become.
    pub tier_size: Option<ByteSize>,
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
    /// Where the tier is, and how large it may become, if there is to be one.
    ///
    /// # Errors
    /// [`ControlError::TierSizeAlone`].
    pub fn tier(&self) -> Result<Option<(&Path, Option<u64>)>, ControlError> {
        match (&self.tier, self.tier_size) {
            (Some(path), size) => Ok(Some((path, size.map(ByteSize::bytes)))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ControlError::TierSizeAlone),
        }
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
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../packaging/tmem.toml");

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("t.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(parse(""), Ok(Config::default()));
        let config = Config::default();
        assert_eq!(config.http.to_string(), "127.0.0.1:7780");
        assert_eq!(
            (config.poll_us, config.log_level, config.pool_size),
            (1000, LogLevel::Info, PoolSize::Auto)
        );
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "pool-size = \"4G\"\nreserve = \"2G\"\npool-ceiling = \"8G\"\nreaction-ms = 50\nhttp = \"off\"\npoll-us = 0\nmax-compressed = 50\nrecompress = \"off\"\n\
             recompress-age = 5\nrecompress-level = 19\nbackground-cpu = 100\nlog-level = \"debug\"\n\
             sandbox = \"on\"\nuser = \"nobody\"\nspare-worker = \"on\"\n\
             tier = \"/t\"\ntier-size = \"8G\"\ntier-mode = \"write-through\"\nwrite-back-age = 600\nzero-on-flush = \"on\"\nnbd-tls-cert = \"/c\"\nnbd-tls-key = \"/k\"\nnbd-tls-client-ca = \"/a\"\n\
             [[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/s/a\"\ncap = \"512M\"\nweight = 7\nformat = \"none\"\nqueues = 3\n\
             [[disk]]\nname = \"b\"\nsize = 1048576\nvhost-user = \"/s/b\"\n\
             [[disk]]\nname = \"c\"\nsize = \"1M\"\nnbd = \"[::1]:10809\"\n\
             [[disk]]\nname = \"d\"\nsize = \"1M\"\nublk = true\nqueues = 2\n",
        )
        .expect("config");
        assert_eq!(config.pool_size, PoolSize::Fixed(ByteSize::from_bytes(4 << 30)));
        assert_eq!((config.http, config.poll_us, config.log_level), (HttpListen::Off, 0, LogLevel::Debug));
        assert_eq!((config.pool_ceiling.bytes(), config.reaction.milliseconds()), (8 << 30, 50));
        assert_eq!(config.reserve, Reserve::Fixed(ByteSize::from_bytes(2 << 30)));
        assert_eq!((config.recompress, config.zero_on_flush), (Recompress::Off, ZeroOnFlush::On));
        assert_eq!((config.sandbox, config.user.as_deref()), (Sandbox::On, Some("nobody")));
        assert_eq!(config.spare_worker, SpareWorker::On);
        for (written, meant) in [("true", Sandbox::On), ("false", Sandbox::Off), ("\"off\"", Sandbox::Off)] {
            assert_eq!(parse(&format!("sandbox = {written}")).map(|config| config.sandbox), Ok(meant));
        }
        assert_eq!(config.max_compressed.percent(), 50);
        assert_eq!((config.recompress_age.seconds(), config.recompress_level.level()), (5, 19));
        assert_eq!(config.background_cpu.percent(), 100);
        assert_eq!(config.tier().expect("a tier"), Some((Path::new("/t"), Some(8 << 30))));
        assert!(matches!(
            parse("tier-size = \"1G\"").expect("config").tier(),
            Err(ControlError::TierSizeAlone)
        ));
        let options = config.write_back();
        assert_eq!((options.age, options.write_through), (Some(Duration::from_secs(600)), true));
        let tls = config.nbd_tls().expect("all three").expect("TLS");
        assert_eq!((tls.cert, tls.key, tls.client_ca), ("/c".into(), "/k".into(), "/a".into()));
        let [a, b, c, d] = config.disks.as_slice() else { panic!("four disks") };
        let vhost_user = |socket: &str, queues| Frontend::VhostUser { socket: socket.into(), queues };
        assert_eq!((a.size_bytes, a.cap_bytes, a.format), (2 << 30, Some(512 << 20), DiskFormat::None));
        assert_eq!((a.weight.get(), b.weight.get()), (7, 100));
        assert_eq!((b.size_bytes, b.cap_bytes, b.format), (1 << 20, None, DiskFormat::Swap));
        assert_eq!((&a.frontend, &b.frontend), (&vhost_user("/s/a", 3), &vhost_user("/s/b", 4)));
        assert_eq!(c.frontend, Frontend::Nbd("[::1]:10809".parse().expect("address")));
        assert_eq!(d.frontend, Frontend::Ublk { queues: Some(2), device: None });
    }

    #[test]
    fn unknown_keys_are_named_with_their_line() {
        let error = parse("http = \"off\"\npool-sise = \"4G\"\n").unwrap_err();
        assert!(
            error.contains("t.toml, line 2") && error.contains("pool-sise") && error.contains("pool-size"),
            "{error}"
        );
        let error =
            parse("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\npriority = 3\n").unwrap_err();
        assert!(error.contains("line 5") && error.contains("priority"), "{error}");
    }

    #[test]
    fn values_that_make_no_sense_are_one_line_that_names_them() {
        for (text, mentions) in [
            ("pool-size = \"4X\"", "4X"),
            ("pool-size = 0", "holds nothing"),
            ("pool-size = -5", "-5"),
            ("pool-size = 1.5", "a size such as"),
            ("http = \"everywhere\"", "everywhere"),
            ("poll-us = -1", "-1"),
            ("poll-us = 1000001", "1000001"),
            ("recompress = \"maybe\"", "maybe"),
            ("zero-on-flush = \"maybe\"", "maybe"),
            ("recompress = true", "expected a string"),
            ("recompress-age = -1", "-1"),
            ("recompress-age = 0", "1 to 86400"),
            ("recompress-age = \"1m\"", "expected i64"),
            ("recompress-level = 20", "1 to 19"),
            ("background-cpu = 0", "1 to 100"),
            ("pool-ceiling = \"auto\"", "auto"),
            ("pool-ceiling = 1000", "at least 1M"),
            ("pool-ceiling = 1.5", "a size such as"),
            ("reaction-ms = 9", "10 to 10000"),
            ("reaction-ms = \"1s\"", "expected i64"),
            ("max-compressed = 0", "1 to 100"),
            ("max-compressed = 101", "101"),
            ("background-cpu = 101", "101"),
            ("tier-mode = \"through\"", "write-through"),
            ("tier = 3", "expected path"),
            ("write-back-age = 0", "1 to 86400"),
            ("write-back-age = \"never\"", "off"),
            ("write-back-age = 1.5", "seconds or"),
            ("log-level = \"loud\"", "loud"),
            ("sandbox = \"perhaps\"", "perhaps"),
            ("sandbox = 1", "on, off, true or false"),
            ("spare-worker = \"perhaps\"", "on or off"),
            ("user = 998", "expected a string"),
            ("disk = 3", "disk"),
            ("[[disk]]\nsize = \"2G\"\nvhost-user = \"/a\"", "name"),
            ("[[disk]]\nname = \"a b\"\nsize = \"2G\"\nvhost-user = \"/a\"", "`a b`"),
            ("[[disk]]\nname = \"a\"\nsize = \"1K\"\nvhost-user = \"/a\"", "at least 1M"),
            ("[[disk]]\nname = \"a\"\nsize = \"-2G\"\nvhost-user = \"/a\"", "-2G"),
            ("[[disk]]\nname = \"a\"\nsize = -2\nvhost-user = \"/a\"", "negative"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"a.sock\"", "a.sock"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nformat = \"ext4\"", "ext4"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nqueues = 0", "queues"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nweight = 0", "1 to 10000"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"", "disk a: neither"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nvhost-user = \"/a\"\nnbd = \"/b\"", "exclude"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nublk = true\nnbd = \"/b\"", "exclude"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nublk = true\ndedup = \"tenant\"", "dedup tenant"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nublk = \"/dev/ublkb0\"", "boolean"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nnbd = \"localhost:10809\"", "localhost"),
            ("[[disk]]\nname = \"a\"\nsize = \"2G\"\nnbd = \"nbd.sock\"", "nbd.sock"),
            ("http = ", "line 1"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(
                error.contains(mentions) && !error.contains('\n') && error.contains("t.toml"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn two_disks_share_neither_name_nor_socket() {
        let disk = |name: &str, socket: &str| {
            format!("[[disk]]\nname = \"{name}\"\nsize = \"2M\"\nvhost-user = \"{socket}\"\n")
        };
        let error = parse(&(disk("a", "/a") + &disk("a", "/b"))).unwrap_err();
        assert!(error.contains("disk a") && error.contains("twice"), "{error}");
        let error = parse(&(disk("a", "/a") + &disk("b", "/a"))).unwrap_err();
        assert!(error.contains("disk b") && error.contains("/a"), "{error}");
        // But NBD has room for both at one address.
        let nbd = |name: &str| disk(name, "/a").replace("vhost-user", "nbd");
        assert!(parse(&(nbd("a") + &nbd("b"))).is_ok());
        assert!(parse(&(nbd("a") + &disk("b", "/a"))).is_err());
    }

    #[test]
    fn an_error_that_quotes_a_line_break_is_one_line() {
        let text = "[[disk]]\nname = \"a\"\nsize = \"2M\"\nvhost-user = \"b\\nc\"";
        let error = parse(text).unwrap_err();
        assert!(error.contains(r"`b\nc` is relative"), "{error}");
        assert!(!parse("tier-mode = \"a\\nb\"").unwrap_err().contains('\n'));
        assert!(!parse("\u{1b}[2J = 1").unwrap_err().contains('\u{1b}'));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::read(Path::new("/nowhere/tmem.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/tmem.toml"), "{error}");
    }

    #[test]
    fn the_sample_file_changes_nothing_as_it_is() {
        assert_eq!(parse(SAMPLE), Ok(Config::default()));
    }

    /// The sample shows each key as a comment `#key = value`; prose comments have a space after the `#`.
    #[test]
    fn every_key_of_the_sample_is_real_and_shows_its_default() {
        let shown: String = SAMPLE
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| !rest.is_empty() && !rest.starts_with(' '))
                    .unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let table: toml::Table = shown.parse().expect("sample with its comments taken off");
        let keys: Vec<_> = table.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "background-cpu",
                "disk",
                "http",
                "log-level",
                "max-compressed",
                "poll-us",
                "pool-ceiling",
                "pool-size",
                "reaction-ms",
                "recompress",
                "recompress-age",
                "recompress-level",
                "reserve",
                "sandbox",
                "spare-worker",
                "tier-mode",
                "watchdog",
                "worker-deaths",
                "write-back-age",
                "zero-on-flush"
            ],
            "every top-level key is in the sample"
        );
        let disk = table["disk"][0].as_table().expect("a disk section");
        let disk_keys: Vec<_> = disk.keys().map(String::as_str).collect();
        assert_eq!(disk_keys, ["cap", "dedup", "format", "name", "queues", "size", "vhost-user", "weight"]);

        let config = parse(&shown).expect("the values parse");
        let [disk] = config.disks.as_slice() else { panic!("one disk") };
        assert_eq!(disk.format, DiskFormat::default());
        assert!(matches!(disk.frontend, Frontend::VhostUser { queues: 4, .. }));
        assert_eq!((&disk.dedup, disk.weight), (&DedupChoice::default(), tmem_store::Weight::default()));
        assert_eq!(Config { disks: Vec::new(), ..config }, Config::default());
    }
}
