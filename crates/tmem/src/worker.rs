//! The worker: puts the parts together and serves until it is told to end.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tmem_control::{
    ADMIN_SOCKET, ByteSize, ClusterView, Config, Control, ControlError, DiskService, Frontend, HostMemory,
    HttpListen, Knobs, LogLevel, PoolSize, PoolSizing, Server, SpareWorker, ZeroOnFlush,
};
use tmem_faults::Point;
use tmem_keeper::Estate;
use tmem_nbd::{NbdOptions, NbdServer, TlsFiles, TlsIdentity};
use tmem_peers::LENT_PREFIX;
use tmem_store::{Store, Tier};
use tmem_transport::{DEFAULT_SOCKET_MODE, PollLimit, SocketFile};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    Outcome,
    cluster::{self, Cluster, ClusterPlan},
    commands::print,
    confine,
    disks::Disks,
    heartbeat::Heartbeat,
    inheritance::Inheritance,
    maintenance::Maintenance,
    memo::{Memo, Memory},
    notify,
    own_swap::OwnSwap,
    serving::Transports,
    sizing::Sizing,
    stacks, stocking,
    succession::{OneOfMany, now_seconds},
    tiers::{self, TendedTier, TierPlan},
    write_back::WriteBackThread,
};

/// Whether a configuration can be served as far as can be said without doing so.
pub(crate) fn check(config: &Config) -> Result<()> {
    pool_limit(config)?;
    tls(config)?;
    TierPlan::new(config)?;
    ClusterPlan::new(config)?;
    confine::check(config)
}

/// Serves until SIGTERM or SIGINT. `text` is that of the configuration's file.
pub(crate) fn run(
    config: Config,
    text: Option<String>,
    runtime_dir: &Path,
    inheritance: Inheritance,
) -> Outcome {
    let (limit_bytes, mut rule) = pool_limit(&config)?;
    let poll_limit = PollLimit::from_us(config.poll_us);
    let estate = Arc::clone(&inheritance.estate);
    let nbd = NbdOptions { poll_limit: poll_limit.clone(), tls: tls(&config)?, estate: Arc::clone(&estate) };
    let tier_plan = TierPlan::new(&config)?;
    start_logging(config.log_level);
    tiers::warn(&config);
    let goes_on = inheritance.memo.is_some();
    #[cfg(feature = "fault-injection")]
    crate::faults::arm(inheritance.worker_deaths)?;
    tmem_faults::pass(Point::Start);
    stacks::answer_when_asked().context("cannot prepare for SIGUSR1")?;
    get_fit_for_swap(&config)?;
    inheritance.make_room();
    // Syncs a file, which waits for memory where there is none.
    let mut cluster_plan = without_cluster_if(goes_on, cluster_plan(&config, &inheritance))?;
    let lent = cluster_plan.as_mut().and_then(ClusterPlan::take_lent);
    let left = inheritance.open_store(limit_bytes)?;
    let is_new = left.is_none();
    let store = left.map_or_else(|| inheritance.new_store(limit_bytes), Ok)?;
    if !is_new && config.pool_size == PoolSize::Auto {
        // Before anybody finds that more is held than what the host has left.
        store.set_limit_bytes(rule.limit_bytes(&HostMemory::read()?, store.held_bytes(), Duration::ZERO))?;
    }
    if store.span_bytes() < tmem_store::MAX_LIMIT_BYTES {
        log::info!(
            "addresses are few here: the pool can hold {} at most",
            ByteSize::from_bytes(store.span_bytes())
        );
    }
    store.set_recompression(config.recompression()).context("cannot set up recompression")?;
    store.set_max_payload_bytes(config.max_compressed.bytes());
    store.set_write_back_options(config.write_back());
    store.set_zero_on_flush(config.zero_on_flush == ZeroOnFlush::On);
    let tier = tier_plan.map(|plan| plan.open(&store, &estate, is_new)).transpose()?;
    let knobs = Arc::new(Knobs::new(config.clone(), Arc::clone(&store), Arc::clone(&poll_limit.0)));
    let memo = inheritance.memo.as_ref().filter(|_| !is_new);
    let first_started = memo.as_ref().map_or_else(now_seconds, |memo| memo.first_started);
    let left_disks = memo.map(|memo| memo.disks.clone());
    let disks = left_disks.clone().unwrap_or_default();
    // What another one has begun is over for good as soon as this node has begun a later one.
    let least_epoch = inheritance.least_epoch().filter(|_| cluster_plan.is_none());
    let memory = Memory::new(
        Arc::clone(&estate),
        Memo { config: text, knobs: knobs.values(), disks, first_started, least_epoch },
    )?;
    confine::confine(&config)?;
    let succession = Arc::new(OneOfMany {
        estate: Arc::clone(&estate),
        worker_deaths: inheritance.worker_deaths,
        first_started,
    });
    let budget = {
        let knobs = Arc::clone(&knobs);
        move || knobs.background_cpu()
    };
    inheritance.make_room();
    let cluster = cluster_plan
        .map(|plan| plan.start(&store, tier.as_ref(), &knobs, memory.clone()).map(Arc::new))
        .transpose();
    let cluster = without_cluster_if(goes_on, cluster)?;
    let peers = cluster.as_ref().and_then(|cluster| cluster.tier());
    // Peers have the disk behind them, where there are both.
    if let Some(tier) = peers.as_ref().or(tier.as_ref()) {
        store.attach_tier(Arc::clone(tier) as Arc<dyn Tier>)?;
    }
    let tended: Vec<Arc<dyn TendedTier>> = peers.into_iter().chain(tier).collect();
    let own_swap = OwnSwap::default();
    let maintenance = Maintenance::start(Arc::clone(&store), budget, own_swap.clone())
        .context("cannot start the maintenance thread")?;
    let sizing =
        Sizing::start(Arc::clone(&store), Arc::clone(&knobs), rule, own_swap.clone(), maintenance.waker())
            .context("cannot start the sizing thread")?;
    let stock = stocking::start(Arc::clone(&store), own_swap.clone())?;
    let write_back = (!tended.is_empty())
        .then(|| WriteBackThread::start(Arc::clone(&store), tended.clone()))
        .transpose()
        .context("cannot start the write-back thread")?;
    #[cfg(feature = "fault-injection")]
    let damage =
        crate::faults::Damage::start(&store).context("cannot start the threads that damage pages")?;
    let heartbeat = Heartbeat::start(Arc::clone(&estate)).context("cannot start the heartbeat thread")?;
    let owner = runtime_dir.display().to_string();
    let has_spare_worker = config.spare_worker == SpareWorker::On;
    let transports = Transports {
        poll_limit,
        nbd: NbdServer::new(nbd),
        own_swap,
        has_spare_worker,
        estate: Arc::clone(&estate),
        owner,
    };
    let disks = Arc::new(Disks::new(Arc::clone(&store), transports, memory.clone()));
    if let Some(left_disks) = &left_disks {
        inheritance.make_room();
        disks.go_on_with(left_disks)?;
        inheritance.give_all_back();
        inheritance.say_what_was_found();
    }
    cluster::free_soon(inheritance.take_given_up());
    match (&cluster, lent) {
        (Some(cluster), Some(lent)) => cluster.begin_lending(lent, &estate, &knobs, goes_on)?,
        (None, Some(lent)) => lent.give_up(),
        _ => {}
    }
    knobs.watch(move |values| {
        if let Err(error) = memory.change(|memo| memo.knobs = values) {
            log::warn!("the knobs would be as they were before if the daemon died now: {error:#}");
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control plane")?;
    let shown = Shown { knobs, succession, cluster: cluster.clone() };
    let served = runtime.block_on(serve(&config, left_disks.is_some(), runtime_dir, store, &disks, shown));
    // Ends the control plane first: a request in flight finishes, and none comes after it.
    drop(runtime);
    disks.stop_all();
    #[cfg(feature = "fault-injection")]
    drop(damage);
    drop(write_back);
    drop(stock);
    drop(sizing);
    drop(maintenance);
    // Nothing in it is of use without the key, which goes with the store.
    drop(disks);
    tended.iter().for_each(|tier| tier.clear());
    cluster.iter().for_each(|cluster| cluster.leave());
    drop(heartbeat);
    Ok(served?)
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
        // Its keeper is one, for it may come to start one that serves swap.
        tmem_ublk::prepare_ordinary_process();
        return Ok(());
    }
    match tmem_ublk::prepare_process() {
        // The kernel has ublk, but nobody may ever ask for it; whoever does so is told.
        Err(error) if !is_asked_for => log::debug!("disks on ublk are not possible: {error}"),
        result => result.context("the configuration's disks")?,
    }
    if config.spare_worker == SpareWorker::On
        && let Err(error) = tmem_store::never_swap_memory_files()
    {
        log::debug!("pages are in memory files that this host may swap out: {error}");
    }
    Ok(())
}

/// What there is to be of a cluster, with what this node has lent.
fn cluster_plan(config: &Config, inheritance: &Inheritance) -> Result<Option<ClusterPlan>> {
    let (left, keeper) = (inheritance.estate.take_all(LENT_PREFIX), inheritance.keeper());
    match ClusterPlan::new(config) {
        Ok(Some(mut plan)) => {
            plan.warn(config);
            let given_up =
                plan.come_into(left, keeper, inheritance.has_store(), inheritance.least_epoch())?;
            inheritance.free_later(given_up);
            Ok(Some(plan))
        }
        none => {
            inheritance.free_later(tmem_peers::give_up(left, &*keeper));
            none
        }
    }
}

/// Guests wait for what memory has: whatever is wrong with the cluster must not keep a worker from serving that.
fn without_cluster_if<T>(goes_on: bool, cluster: Result<Option<T>>) -> Result<Option<T>> {
    match cluster {
        Err(error) if goes_on => {
            log::error!("goes on without the cluster, and what is at peers alone cannot be read: {error:#}");
            Ok(None)
        }
        cluster => cluster,
    }
}

/// What makes TLS on NBD possible, if it is configured.
fn tls(config: &Config) -> Result<Option<TlsIdentity>> {
    let Some(tls) = config.nbd_tls()? else { return Ok(None) };
    let files = TlsFiles { cert: tls.cert, key: tls.key, client_ca: tls.client_ca };
    Ok(Some(TlsIdentity::load(&files)?))
}

/// What the control plane shows, beside the store and its disks.
struct Shown {
    knobs: Arc<Knobs>,
    succession: Arc<OneOfMany>,
    cluster: Option<Arc<Cluster>>,
}

async fn serve(
    config: &Config,
    goes_on: bool,
    runtime_dir: &Path,
    store: Arc<Store>,
    disks: &Arc<Disks>,
    shown: Shown,
) -> Result<()> {
    let Shown { knobs, succession, cluster } = shown;
    // Caught from here on, so that whoever ends the daemon while it starts does not leave sockets behind.
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let admin = SocketFile::make(&runtime_dir.join(ADMIN_SOCKET), DEFAULT_SOCKET_MODE, &succession.estate)
        .context("the admin socket: choose another directory with --runtime-dir")?;
    let server = listen(&admin, config.http, &succession.estate)?;
    for spec in config.disks.iter().filter(|_| !goes_on) {
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
    let control =
        Control::new(store, service, knobs, Arc::<OneOfMany>::clone(&succession), server.http_address());
    let control = control.with_sandbox(confine::in_effect());
    let control = Arc::new(control.with_cluster(cluster.map(|cluster| cluster as Arc<dyn ClusterView>)));
    succession.estate.release_rest();
    if let Some(keeper) = succession.estate.keeper() {
        keeper.ready().context("cannot tell the keeper")?;
    }
    confine::announce();
    // Ends with the runtime.
    tokio::spawn(Arc::clone(&control).keep_history());
    announce(&server, limit_bytes, config, goes_on);
    server.run(control, end_asked_for(&mut terminate, &mut interrupt)).await;
    admin.remove();
    Ok(())
}

/// Has the HTTP listener made, too, if there is to be one.
fn listen(admin: &SocketFile, http: HttpListen, estate: &Estate) -> Result<Server> {
    let http = match http {
        HttpListen::Off => None,
        HttpListen::On(address) => {
            let bound = estate.bind_tcp(address);
            Some(bound.map_err(|source| ControlError::Http { address, source })?)
        }
    };
    let listener = admin.listener.try_clone().context("cannot serve the admin socket")?;
    Server::new(listener, admin.path(), http).context("cannot start the control plane")
}

/// Where the daemon listens, for people and scripts that wait for this line, and for systemd.
fn announce(server: &Server, limit_bytes: u64, config: &Config, goes_on: bool) {
    let limit = ByteSize::from_bytes(limit_bytes).rounded();
    let limit = match config.pool_size {
        PoolSize::Auto => format!("{limit} now, and what the host can spare from here on"),
        PoolSize::Fixed(_) => limit,
    };
    let http = server.http_address().map_or("no http".to_owned(), |address| format!("http://{address}/"));
    let text = format!("admin socket {}, {http}, pool limit {limit}", server.admin_path().display());
    if goes_on {
        log::info!("goes on: {text}");
    } else if let Err(error) = print(&format!("tmem {} is ready: {text}\n", env!("CARGO_PKG_VERSION"))) {
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
pub(crate) fn start_logging(level: LogLevel) {
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
