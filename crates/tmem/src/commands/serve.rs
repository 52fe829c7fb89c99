//! `tmem serve`: puts the parts together and runs until it is told to end.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use tmem_control::{
    BackgroundCpu, ByteSize, Config, Control, ControlError, DiskService, Frontend, HostMemory, HttpListen,
    Knobs, LogLevel, MaxCompressed, PoolCeiling, PoolSize, PoolSizing, Reaction, Recompress, RecompressAge,
    RecompressLevel, Reserve, Server, TierMode, WriteBackAge, poll_us,
};
use tmem_nbd::{NbdOptions, NbdServer, TlsFiles, TlsIdentity};
use tmem_store::{Store, StoreOptions};
use tmem_tier::{FileTier, TierOptions};
use tmem_transport::PollLimit;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::print;
use crate::{
    Outcome, disks::Disks, maintenance::Maintenance, notify, oom, own_swap::OwnSwap, runtime_dir::Ownership,
    serving::Transports, sizing::Sizing, stocking, write_back::WriteBackThread,
};

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
    /// File or block device for pages that do not fit in memory [default: none]
    #[arg(long, value_name = "PATH")]
    tier: Option<PathBuf>,
    /// How large the tier's file may become, such as 16G; of a device, all of it if not given
    #[arg(long, value_name = "SIZE")]
    tier_size: Option<ByteSize>,
    /// When pages go there: write-back, when they have to, or write-through, as soon as an extent is full [default: write-back]
    #[arg(long, value_name = "MODE")]
    tier_mode: Option<TierMode>,
    /// After how many seconds without use a cold page goes there, or off: only when the pool needs room [default: off]
    #[arg(long, value_name = "N|off", allow_negative_numbers = true)]
    write_back_age: Option<WriteBackAge>,
    /// Certificate of the NBD server, in PEM; with the two below, NBD is served beyond this host
    #[arg(long, value_name = "FILE")]
    nbd_tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    nbd_tls_key: Option<PathBuf>,
    /// Certificates of the authorities whose clients are let in
    #[arg(long, value_name = "FILE")]
    nbd_tls_client_ca: Option<PathBuf>,
    /// What goes to stderr: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

impl Arguments {
    fn config(&self) -> Result<Config, ControlError> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
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
        config.tier_mode = self.tier_mode.unwrap_or(config.tier_mode);
        config.write_back_age = self.write_back_age.unwrap_or(config.write_back_age);
        config.log_level = self.log_level.unwrap_or(config.log_level);
        Ok(config)
    }
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: Arguments, runtime_dir: &Path) -> Outcome {
    let config = arguments.config()?;
    let (limit_bytes, rule) = pool_limit(&config)?;
    let poll_limit = PollLimit::from_us(config.poll_us);
    let nbd = NbdOptions { poll_limit: poll_limit.clone(), tls: tls(&config)? };
    let tier_options = config.tier()?.map(|(path, size_bytes)| TierOptions::new(path, size_bytes));
    start_logging(config.log_level);
    oom::be_spared();
    get_fit_for_swap(&config)?;
    let ownership = Ownership::take(runtime_dir)?;
    let store = Store::new(StoreOptions { limit_bytes }).context("cannot make the pool")?;
    store.set_recompression(config.recompression()).context("cannot set up recompression")?;
    store.set_max_payload_bytes(config.max_compressed.bytes());
    store.set_write_back_options(config.write_back());
    let tier = tier_options.map(|options| attach_tier(&store, options)).transpose()?;
    let knobs = Arc::new(Knobs::new(config.clone(), Arc::clone(&store), Arc::clone(&poll_limit.0)));
    let budget = {
        let knobs = Arc::clone(&knobs);
        move || knobs.background_cpu()
    };
    let own_swap = OwnSwap::default();
    let maintenance = Maintenance::start(Arc::clone(&store), budget, own_swap.clone())
        .context("cannot start the maintenance thread")?;
    let sizing =
        Sizing::start(Arc::clone(&store), Arc::clone(&knobs), rule, own_swap.clone(), maintenance.waker())
            .context("cannot start the sizing thread")?;
    let stock = stocking::start(Arc::clone(&store), own_swap.clone())?;
    let write_back = tier
        .as_ref()
        .map(|tier| WriteBackThread::start(Arc::clone(&store), Arc::clone(tier)))
        .transpose()
        .context("cannot start the write-back thread")?;
    let owner = runtime_dir.display().to_string();
    let transports = Transports { poll_limit, nbd: NbdServer::new(nbd), own_swap, owner };
    let disks = Arc::new(Disks::new(Arc::clone(&store), transports));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    let served = runtime.block_on(serve(&config, runtime_dir, store, &disks, knobs));
    // Ends the control plane first: a request in flight finishes, and none comes after it.
    drop(runtime);
    disks.stop_all();
    drop(write_back);
    drop(stock);
    drop(sizing);
    drop(maintenance);
    // Nothing in it is of use without the key, which goes with the store.
    drop(disks);
    tier.iter().for_each(|tier| tier.clear());
    drop(ownership);
    Ok(served?)
}

/// Opens the tier and gives it to the store, which is empty.
fn attach_tier(store: &Store, options: TierOptions) -> Result<Arc<FileTier>> {
    let tier = Arc::new(FileTier::new(options)?);
    // What another daemon left there is of no use to anybody.
    tier.clear();
    store.attach_tier(Arc::<FileTier>::clone(&tier))?;
    Ok(tier)
}

/// The pool's limit at first, and the rule that changes it while the pool sizes itself.
fn pool_limit(config: &Config) -> Result<(u64, PoolSizing), ControlError> {
    let host = HostMemory::read()?;
    let mut rule = PoolSizing::new(config.reserve.bytes(host.total_bytes)?);
    rule.set_ceiling_bytes(config.pool_ceiling.bytes());
    let limit_bytes = match config.pool_size.fixed_bytes()? {
        Some(limit_bytes) => limit_bytes,
        None => rule.limit_bytes(&host, 0, Duration::ZERO),
    };
    Ok((limit_bytes, rule))
}

/// Where this host may come to swap to the daemon, all of its threads have to be I/O flushers: those to come inherit it from
/// this one. They share one heap, too.
fn get_fit_for_swap(config: &Config) -> Result<()> {
    let is_asked_for = config.disks.iter().any(|disk| matches!(disk.frontend, Frontend::Ublk { .. }));
    if !is_asked_for && !tmem_ublk::is_available() {
        return Ok(());
    }
    match tmem_ublk::prepare_process() {
        // The kernel has ublk, but nobody may ever ask for it; whoever does so is told.
        Err(error) if !is_asked_for => log::debug!("disks on ublk are not possible: {error}"),
        result => result.context("the configuration's disks")?,
    }
    Ok(())
}

/// What makes TLS on NBD possible, if it is configured.
fn tls(config: &Config) -> Result<Option<TlsIdentity>> {
    let Some(tls) = config.nbd_tls()? else { return Ok(None) };
    let files = TlsFiles { cert: tls.cert, key: tls.key, client_ca: tls.client_ca };
    Ok(Some(TlsIdentity::load(&files)?))
}

async fn serve(
    config: &Config,
    runtime_dir: &Path,
    store: Arc<Store>,
    disks: &Arc<Disks>,
    knobs: Arc<Knobs>,
) -> Result<()> {
    // Caught from here on, so that whoever ends the daemon while it starts does not leave sockets behind.
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let server = Server::bind(runtime_dir, config.http)?;
    for spec in &config.disks {
        disks.add(spec).context("the configuration's disks")?;
    }
    match tmem_ublk::end_left_devices(&runtime_dir.display().to_string()) {
        0 => {}
        ended => {
            log::warn!("ended {ended} ublk devices of a daemon that died; what was stored on them is lost")
        }
    }
    let service: Arc<dyn DiskService> = Arc::<Disks>::clone(disks);
    let limit_bytes = store.limit_bytes();
    let control = Arc::new(Control::new(store, service, knobs, server.http_address()));
    announce(&server, limit_bytes, config);
    server.run(control, end_asked_for(&mut terminate, &mut interrupt)).await;
    Ok(())
}

/// Where the daemon listens, for people and scripts that wait for this line, and for systemd.
fn announce(server: &Server, limit_bytes: u64, config: &Config) {
    let limit = ByteSize::from_bytes(limit_bytes).rounded();
    let limit = match config.pool_size {
        PoolSize::Auto => format!("{limit} now, and what the host can spare from here on"),
        PoolSize::Fixed(_) => limit,
    };
    let http = server.http_address().map_or("no http".to_owned(), |address| format!("http://{address}/"));
    let text = format!("admin socket {}, {http}, pool limit {limit}", server.admin_path().display());
    if let Err(error) = print(&format!("tmem {} is ready: {text}\n", env!("CARGO_PKG_VERSION"))) {
        log::warn!("cannot write to stdout: {error:?}");
    }
    notify::ready(&text);
}

async fn end_asked_for(terminate: &mut Signal, interrupt: &mut Signal) {
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    log::info!("{name}: stopping");
    notify::stopping();
}

/// To stderr, a line each, without a clock: journald has one.
fn start_logging(level: LogLevel) {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Trace)
        .format(|buffer, record| {
            use std::io::Write;
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(buffer, "tmem: {level}: {}", record.args())
        })
        .init();
    // The level can change while the daemon runs, which the logger's own filter cannot.
    log::set_max_level(level.filter());
}
