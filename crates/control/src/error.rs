//! Everything that can go wrong in this crate, except what the admin API answers ([`crate::AdminError`]).

use std::{io, path::PathBuf};

use crate::{AdminError, ByteSize};

/// What failed, on what, and the way out. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A size that cannot be read or makes no sense.
    #[error("`{text}` is not a size: {why}")]
    Size {
        /// What was written.
        text: String,
        /// What is wrong with it, and what to write.
        why: &'static str,
    },
    /// A disk name with characters that are not safe everywhere.
    #[error("`{text}` is not a disk name: use 1 to 63 of A-Z a-z 0-9 . _ - (and neither `.` nor `..`)")]
    Name {
        /// What was written.
        text: String,
    },
    /// A dedup domain with characters that are not safe everywhere.
    #[error("`{text}` is no dedup domain: write `alone`, `off`, or a name of 1 to 63 of A-Z a-z 0-9 . _ -")]
    DedupDomain {
        /// What was written.
        text: String,
    },
    /// An address for the TCP listener that cannot be read.
    #[error("`{text}` is not an address: write IP:PORT such as 127.0.0.1:7780 or [::1]:7780, or `off`")]
    Listen {
        /// What was written.
        text: String,
    },
    /// An address for NBD that cannot be read.
    #[error(
        "`{text}` is not an NBD address: write IP:PORT such as 127.0.0.1:10809 or [::1]:10809, or the path of a socket"
    )]
    NbdAddress {
        /// What was written.
        text: String,
    },
    /// Some of the files that TLS on NBD takes, and not the others.
    #[error("{given} is given without {missing}: TLS on NBD takes the three together")]
    NbdTls {
        /// Which are there.
        given: String,
        /// Which are not.
        missing: String,
    },
    /// An unknown policy of the balancer.
    #[error("`{text}` is no policy: write reuse, committed-as or static")]
    Policy {
        /// What was written.
        text: String,
    },
    /// A time between decisions that cannot be read or makes no sense.
    #[error("`{text}` is no interval: write a number of seconds, 1 to 3600")]
    Interval {
        /// What was written.
        text: String,
    },
    /// A part that cannot be read or makes no sense.
    #[error("`{text}` is no part in percent: write a number, 0 to 100")]
    Percent {
        /// What was written.
        text: String,
    },
    /// A guest of the balancer's that cannot be looked after as it is written.
    #[error("guest {name}: {why}")]
    Guest {
        /// Its name, if it has one.
        name: String,
        /// What is wrong with it, and what to write.
        why: &'static str,
    },
    /// An unknown log level.
    #[error("`{text}` is not a log level: write error, warn, info, debug or trace")]
    LogLevel {
        /// What was written.
        text: String,
    },
    /// An unknown disk format.
    #[error("`{text}` is not a disk format: write swap or none")]
    Format {
        /// What was written.
        text: String,
    },
    /// A polling limit that makes no sense.
    #[error("`{text}` is not a polling limit: write microseconds, 0 (never poll) to 1000000")]
    Poll {
        /// What was written.
        text: String,
    },
    /// Recompression is neither on nor off.
    #[error("`{text}` says nothing about recompression: write on or off")]
    Recompress {
        /// What was written.
        text: String,
    },
    /// An age for recompression that makes no sense.
    #[error("`{text}` is not an age for recompression: write seconds, 1 to 86400 (a day)")]
    RecompressAge {
        /// What was written.
        text: String,
    },
    /// Zeroing is neither on nor off.
    #[error("`{text}` says nothing about zeroing what is forgotten: write on or off")]
    ZeroOnFlush {
        /// What was written.
        text: String,
    },
    /// Encryption of pages at peers is neither on nor off.
    #[error("`{text}` says nothing about encrypting pages that go to other hosts: write on or off")]
    EncryptPages {
        /// What was written.
        text: String,
    },
    /// A way to use the tier that does not exist.
    #[error("`{text}` is not a way to use the tier: write write-back or write-through")]
    TierMode {
        /// What was written.
        text: String,
    },
    /// An age for write-back that makes no sense.
    #[error("`{text}` is not an age for write-back: write seconds, 1 to 86400 (a day), or off")]
    WriteBackAge {
        /// What was written.
        text: String,
    },
    /// A size for the tier, and no tier.
    #[error("tier-size is given and tier is not: say with tier which file or block device it is")]
    TierSizeAlone,
    /// The section `[cluster]` makes no sense.
    #[error("[cluster]: {why}")]
    Cluster {
        /// In words.
        why: &'static str,
    },
    /// A key that says how etcd is spoken to, and makes no sense.
    #[error("[cluster] {key}: {why}")]
    EtcdKey {
        /// Which.
        key: &'static str,
        /// In words.
        why: &'static str,
    },
    /// One of two such keys that go together.
    #[error("[cluster] {key} is given without {missing}: give both, or none of them")]
    EtcdKeyAlone {
        /// Which is there.
        key: &'static str,
        /// Which is not.
        missing: &'static str,
    },
    /// A number of copies that is none.
    #[error("`{text}` is no number of copies: write 1 to 4")]
    ClusterCopies {
        /// What was written.
        text: String,
    },
    /// A server has no size of its own.
    #[error("the tier is a Redis server: say with tier-size how much of it may be used")]
    TierSizeNeeded,
    /// A prefix that would mix with others, or with what is behind it.
    #[error("`{text}` is no prefix for keys in Redis: write 1 to 64 letters, digits, and any of . _ - /")]
    RedisPrefix {
        /// What was written.
        text: String,
    },
    /// A time for keys that makes no sense.
    #[error("`{text}` is no time for keys in Redis to expire: write seconds, 60 to 2592000 (30 days)")]
    RedisExpiry {
        /// What was written.
        text: String,
    },
    /// A number of replicas that makes no sense.
    #[error("`{text}` is no number of Redis replicas to wait for: write 0 to 8")]
    RedisReplicas {
        /// What was written.
        text: String,
    },
    /// A level of recompression that does not exist.
    #[error("`{text}` is not a level of recompression: write 1 to 19")]
    RecompressLevel {
        /// What was written.
        text: String,
    },
    /// Neither on nor off.
    #[error("`{text}` is not a choice for the spare worker: write on or off")]
    SpareWorker {
        /// What was written.
        text: String,
    },
    /// Neither on nor off.
    #[error("`{text}` is not a choice for the sandbox: write on or off")]
    Sandbox {
        /// What was written.
        text: String,
    },
    /// A user for a process that is not to become one.
    #[error(
        "user {name}: only a confined process becomes another user; leave out `sandbox = \"off\"`, or give --sandbox on"
    )]
    UserWithoutSandbox {
        /// The user's name.
        name: String,
    },
    /// A share of a CPU that makes no sense.
    #[error("`{text}` is not a share of a CPU: write percent of one CPU, 1 to 100")]
    BackgroundCpu {
        /// What was written.
        text: String,
    },
    /// A number of deaths that makes no sense.
    #[error("`{text}` is no number of deaths in a minute: write 1 to 1000, or 0 for any number")]
    WorkerDeaths {
        /// What was given.
        text: String,
    },
    /// A time for the watchdog that makes no sense.
    #[error("`{text}` is no time for the watchdog: write seconds, 1 to 3600, or off")]
    Watchdog {
        /// What was given.
        text: String,
    },
    /// A reaction time that makes no sense.
    #[error("`{text}` is not a reaction time: write milliseconds, 10 to 10000")]
    Reaction {
        /// What was written.
        text: String,
    },
    /// A size of compressed pages that makes no sense.
    #[error("`{text}` is not a size of compressed pages: write percent of a page, 1 to 100 (keep all)")]
    MaxCompressed {
        /// What was written.
        text: String,
    },
    /// A weight that makes no sense.
    #[error(transparent)]
    Weight(tmem_store::StoreError),
    /// A reserve that leaves the pool nothing.
    #[error(
        "reserve {asked}: this host has {host} in all, so the pool would never get any; give less, or `auto`"
    )]
    ReserveTooLarge {
        /// What was asked for.
        asked: ByteSize,
        /// The host's memory.
        host: String,
    },
    /// The pool's size does not fit this host.
    #[error(
        "pool-size {asked}: this host has {host} of memory, or its cgroup leaves the daemon as much; give a smaller size, or `auto`"
    )]
    PoolTooLarge {
        /// What was asked for.
        asked: ByteSize,
        /// What there is, readable.
        host: String,
    },
    /// The configuration file cannot be read.
    #[error("cannot read configuration {path}: {source}; check the path given to --config")]
    ConfigRead {
        /// The file.
        path: PathBuf,
        /// What the OS said.
        source: io::Error,
    },
    /// The configuration file says something that cannot be.
    #[error("configuration {path}{place}: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// `, line N`, or nothing where no line is known.
        place: String,
        /// What is wrong, naming the key.
        message: String,
    },
    /// The host does not say how much memory it has.
    #[error("cannot read this host's memory from /proc/meminfo: {0}; give the pool a size with --pool-size")]
    HostMemory(io::Error),
    /// The TCP listener cannot be made.
    #[error(
        "cannot listen on http address {address}: {source}; choose another with --http IP:PORT, or --http off"
    )]
    Http {
        /// The address.
        address: std::net::SocketAddr,
        /// What the OS said.
        source: io::Error,
    },
    /// Nobody answers on the admin socket.
    #[error("no daemon answers on {path} ({source}): start one with `tmem serve`, or name its --runtime-dir")]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the OS said.
        source: io::Error,
    },
    /// The daemon's end of the conversation broke.
    #[error("the daemon behind {path} broke off: {why}; see its log")]
    Conversation {
        /// The socket.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The daemon said no.
    #[error(transparent)]
    Admin(#[from] AdminError),
}
