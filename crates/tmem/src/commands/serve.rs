//! `tmem serve`: a keeper that starts a worker, or that worker.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use tmem_control::{
    BackgroundCpu, ByteSize, Config, ControlError, HttpListen, LogLevel, MaxCompressed, PoolCeiling,
    PoolSize, Reaction, Recompress, RecompressAge, RecompressLevel, RedisExpiry, RedisPrefix, RedisReplicas,
    Reserve, Sandbox, SpareWorker, TierMode, Watchdog, WorkerDeaths, WriteBackAge, ZeroOnFlush, poll_us,
};
use tmem_keeper::{Client, Keeper, KeeperOptions, Program};

use crate::{Outcome, descriptors, inheritance::Inheritance, oom, runtime_dir::Ownership, worker};

/// What `tmem serve` takes. Flags win over the file.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Configuration file; without it no file is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Hard limit of the pool, such as 4G; auto is what the host can spare from moment to moment [default: auto]
    #[arg(long, value_name = "SIZE|auto")]
    pool_size: Option<PoolSize>,
    /// What a pool of size auto leaves to the host; auto is 1/16 of its memory, 128M to 4G [default: auto]
    #[arg(long, value_name = "SIZE|auto")]
    reserve: Option<Reserve>,
    /// The most that a pool of size auto may grow to, however much the host can spare [default: none]
    #[arg(long, value_name = "SIZE|none")]
    pool_ceiling: Option<PoolCeiling>,
    /// How often a pool of size auto looks at the host, at least, in milliseconds, 10 to 10000 [default: 100]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    reaction_ms: Option<Reaction>,
    /// Where /, /metrics and /api/v1/status are served, reads only [default: 127.0.0.1:7780]
    #[arg(long, value_name = "ADDR|off")]
    http: Option<HttpListen>,
    /// Longest time a queue's thread polls after a request, in microseconds; 0 is never [default: 1000]
    #[arg(long, value_name = "N", value_parser = poll_us, allow_negative_numbers = true)]
    poll_us: Option<u32>,
    /// Largest compressed page worth keeping, in percent of a page; larger ones are refused [default: 100, which keeps all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_compressed: Option<MaxCompressed>,
    /// Whether cold pages are compressed harder: on or off [default: on]
    #[arg(long, value_name = "on|off")]
    recompress: Option<Recompress>,
    /// After how many seconds without a put or a get a page is cold [default: 60]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    recompress_age: Option<RecompressAge>,
    /// Level of Zstandard for cold pages, 1 to 19 [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    recompress_level: Option<RecompressLevel>,
    /// The most of one CPU that compaction and recompression take, in percent [default: 20]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    background_cpu: Option<BackgroundCpu>,
    /// File, block device or Redis server (redis://HOST:PORT) for pages that do not fit in memory [default: none]
    #[arg(long, value_name = "PATH|URL")]
    tier: Option<PathBuf>,
    /// How large the tier's file may become, or how much goes to the server, such as 16G; of a device, all of it if not given
    #[arg(long, value_name = "SIZE")]
    tier_size: Option<ByteSize>,
    /// What the keys in Redis begin with [default: tmem]
    #[arg(long, value_name = "NAME")]
    redis_prefix: Option<RedisPrefix>,
    /// After how many seconds keys in Redis go that no running daemon needs, 60 to 2592000 [default: 86400]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    redis_expiry: Option<RedisExpiry>,
    /// How many replicas have to have pages before these leave memory, 0 to 8 [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    redis_replicas: Option<RedisReplicas>,
    /// File with the password of the Redis server
    #[arg(long, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,
    /// Certificates of the authorities that its own is from, in PEM [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// When pages go there: write-back, when they have to, or write-through, as soon as an extent is full [default: write-back]
    #[arg(long, value_name = "MODE")]
    tier_mode: Option<TierMode>,
    /// After how many seconds without use a cold page goes there, or off: only when the pool needs room [default: off]
    #[arg(long, value_name = "N|off", allow_negative_numbers = true)]
    write_back_age: Option<WriteBackAge>,
    /// Whether the blocks of forgotten pages are overwritten with zeroes at once: on or off [default: off]
    #[arg(long, value_name = "on|off")]
    zero_on_flush: Option<ZeroOnFlush>,
    /// Certificate of the NBD server, in PEM; with the two below, NBD is served beyond this host
    #[arg(long, value_name = "FILE")]
    nbd_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    nbd_tls_key: Option<PathBuf>,
    /// Certificates of the authorities whose clients are let in
    #[arg(long, value_name = "FILE")]
    nbd_tls_client_ca: Option<PathBuf>,
    /// With so many deaths of workers in a minute no other is started; 0 is any number [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    worker_deaths: Option<WorkerDeaths>,
    /// A worker with a thread that has been at one request for so many seconds is killed and replaced, or off [default: 60]
    #[arg(long, value_name = "N|off", allow_negative_numbers = true)]
    watchdog: Option<Watchdog>,
    /// Whether a host that is its own swap (ublk) has another process stand by for the one that serves: on or off [default: off]
    #[arg(long, value_name = "on|off")]
    spare_worker: Option<SpareWorker>,
    /// Whether the process that serves gives up all that it does not need: on or off [default: on]
    #[arg(long, value_name = "on|off")]
    sandbox: Option<Sandbox>,
    /// The user that it then becomes [default: tmem, where there is one and the daemon is started by root]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What goes to stderr: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

impl Arguments {
    /// The configuration file's text.
    fn text(&self) -> Result<Option<String>, ControlError> {
        self.config.as_deref().map(Config::text).transpose()
    }

    /// What file and flags say together.
    fn config(&self, text: Option<&str>) -> Result<Config, ControlError> {
        let path = self.config.as_deref().unwrap_or(Path::new(""));
        let mut config = text.map_or_else(|| Ok(Config::default()), |text| Config::parse(text, path))?;
        config.pool_size = self.pool_size.unwrap_or(config.pool_size);
        config.reserve = self.reserve.unwrap_or(config.reserve);
        config.pool_ceiling = self.pool_ceiling.unwrap_or(config.pool_ceiling);
        config.reaction = self.reaction_ms.unwrap_or(config.reaction);
        config.http = self.http.unwrap_or(config.http);
        config.poll_us = self.poll_us.unwrap_or(config.poll_us);
        config.max_compressed = self.max_compressed.unwrap_or(config.max_compressed);
        config.recompress = self.recompress.unwrap_or(config.recompress);
        config.recompress_age = self.recompress_age.unwrap_or(config.recompress_age);
        config.recompress_level = self.recompress_level.unwrap_or(config.recompress_level);
        config.background_cpu = self.background_cpu.unwrap_or(config.background_cpu);
        let flag_or = |flag: &Option<PathBuf>, file: Option<PathBuf>| flag.clone().or(file);
        config.nbd_tls_cert = flag_or(&self.nbd_tls_cert, config.nbd_tls_cert);
        config.nbd_tls_key = flag_or(&self.nbd_tls_key, config.nbd_tls_key);
        config.nbd_tls_client_ca = flag_or(&self.nbd_tls_client_ca, config.nbd_tls_client_ca);
        config.tier = flag_or(&self.tier, config.tier);
        config.tier_size = self.tier_size.or(config.tier_size);
        config.redis_prefix = self.redis_prefix.clone().unwrap_or(config.redis_prefix);
        config.redis_expiry = self.redis_expiry.unwrap_or(config.redis_expiry);
        config.redis_replicas = self.redis_replicas.unwrap_or(config.redis_replicas);
        config.redis_password_file = flag_or(&self.redis_password_file, config.redis_password_file);
        config.redis_ca = flag_or(&self.redis_ca, config.redis_ca);
        config.tier_mode = self.tier_mode.unwrap_or(config.tier_mode);
        config.write_back_age = self.write_back_age.unwrap_or(config.write_back_age);
        config.zero_on_flush = self.zero_on_flush.unwrap_or(config.zero_on_flush);
        config.worker_deaths = self.worker_deaths.unwrap_or(config.worker_deaths);
        config.watchdog = self.watchdog.unwrap_or(config.watchdog);
        config.spare_worker = self.spare_worker.unwrap_or(config.spare_worker);
        config.sandbox = self.sandbox.unwrap_or(config.sandbox);
        config.user = self.user.clone().or(config.user);
        config.log_level = self.log_level.unwrap_or(config.log_level);
        Ok(config)
    }
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: Arguments, runtime_dir: &Path) -> Outcome {
    match Client::from_environment().context(tmem_keeper::SOCKET_VARIABLE)? {
        Some(keeper) => work(&arguments, runtime_dir, keeper),
        None => keep(&arguments, runtime_dir),
    }
}

/// The first process: it starts the worker, and another when that one dies. What is wrong with the configuration it says itself.
fn keep(arguments: &Arguments, runtime_dir: &Path) -> Outcome {
    let config = match checked_config(arguments) {
        // What is held is worth more than what the file says. Workers go by what was read before, and so do most keepers.
        Err(error) if tmem_keeper::is_heir() => {
            eprintln!(
                "tmem: warn: {error:#}: goes on with what was read before, and with watchdog and worker-deaths as they are by default"
            );
            arguments.config(None)?
        }
        config => config?,
    };
    #[cfg(feature = "fault-injection")]
    crate::faults::plan()?;
    descriptors::allow_all();
    let ownership = Ownership::take(runtime_dir)?;
    let path = env::current_exe().context("cannot find this program's file")?;
    let program =
        Program::new(path, env::args_os(), oom::spare_keeper()).context("cannot start this program again")?;
    let options = KeeperOptions {
        deaths_per_minute: config.worker_deaths.per_minute(),
        start: KeeperOptions::START,
        patience: config.watchdog.time(),
        tier: config.tier()?.map(|(path, _)| path.to_owned()),
    };
    let code = Keeper::new(&program, options)?.run();
    drop(ownership);
    std::process::exit(code.into());
}

fn checked_config(arguments: &Arguments) -> anyhow::Result<Config> {
    let config = arguments.config(arguments.text()?.as_deref())?;
    worker::check(&config)?;
    Ok(config)
}

/// The process that does all the rest.
fn work(arguments: &Arguments, runtime_dir: &Path, keeper: Client) -> Outcome {
    oom::spare_worker();
    let inheritance = Inheritance::come_into(keeper)?;
    // The file may have changed since, and be half written; what was read at first holds as long as there is a daemon.
    let text = match &inheritance.memo {
        Some(memo) => memo.config.clone(),
        None => arguments.text()?,
    };
    let mut config = arguments.config(text.as_deref())?;
    if let Some(memo) = &inheritance.memo {
        config.set_knobs(&memo.knobs)?;
    }
    worker::run(config, text, runtime_dir, inheritance)
}
