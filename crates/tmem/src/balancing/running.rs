//! The loop: a decision each interval, a report to the daemon each second.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tmem_balance::{Balancer, CommittedAs, Policy, Reason, Reuse, ReuseOptions, Static, Verdict};
use tmem_control::{
    AdminClient, AdminError, BalanceDecision, BalanceOrder, BalanceReport, BalanceSettings, BalancedGuest,
    ByteSize, ControlError, GuestAddress, LimitChanges, PolicyName, Reserve, StopHow, WholeHost,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    looking::{LEAST_CHANGE_BYTES, Managed, look, tell},
    records::{Records, decision},
    scene::{budget_bytes, limits, scene},
};
use crate::figures::size;

/// While memory is on its way from one to another, or somebody waits for some, decisions are so far apart at most.
const UNREST: Duration = Duration::from_secs(2);
/// So often the daemon is told what goes on, and asked what people want.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A balancer that was killed is forgotten by then.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(30);
/// Memory that a guest was given it has touched by then, so that the host does not count it as its own any more.
const TOUCHED_WITHIN: Duration = Duration::from_secs(30);
/// The daemon has answered by then, or is taken to be away.
const DAEMON_ANSWERS: Duration = Duration::from_secs(5);
/// Decisions that wait for a daemon that is away. It keeps no more.
const MAX_UNTOLD: usize = 100;

/// A balancer that runs.
pub(crate) struct Balancing {
    settings: BalanceSettings,
    reserve: Reserve,
    admin: Arc<AdminClient>,
    records: Records,
    guests: Vec<Managed>,
    balancer: Balancer,
    started: Instant,
    budget_bytes: u64,
    /// What was given to guests a short while ago, and when.
    promises: VecDeque<(Instant, u64)>,
    /// By guest; empty before the first decision.
    verdicts: Vec<Option<Verdict>>,
    /// Decisions that the daemon has not been told.
    untold: Vec<BalanceDecision>,
    heard: u64,
    daemon: Daemon,
}

/// Whether the daemon was there last time, so that it is said once when that changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Unknown,
    There,
    Away,
}

/// The policy of that name.
pub(crate) fn policy(settings: &BalanceSettings) -> Box<dyn Policy> {
    match settings.policy {
        PolicyName::Reuse => Box::new(Reuse::new(ReuseOptions {
            idle_part: settings.idle_swap_ins.part(),
            idle_pressure: settings.idle_pressure.part(),
            probe_part: settings.step.part(),
            is_dry_run: settings.dry_run,
        })),
        PolicyName::CommittedAs => Box::new(CommittedAs),
        PolicyName::Static => Box::new(Static),
    }
}

impl Balancing {
    /// With the daemon of this client, if there is one. Nothing is asked yet.
    pub(crate) fn new(
        settings: BalanceSettings,
        reserve: Reserve,
        admin: AdminClient,
        records: Records,
    ) -> Balancing {
        let guests: Vec<_> = settings.guests.iter().cloned().map(Managed::new).collect();
        let balancer = Balancer::new(policy(&settings));
        Balancing {
            settings,
            reserve,
            admin: Arc::new(admin.with_patience(DAEMON_ANSWERS)),
            records,
            verdicts: vec![None; guests.len()],
            guests,
            balancer,
            started: Instant::now(),
            budget_bytes: 0,
            promises: VecDeque::new(),
            untold: Vec::new(),
            heard: 0,
            daemon: Daemon::Unknown,
        }
    }

    /// Until it is told to end, by a signal or over the daemon.
    ///
    /// # Errors
    /// No daemon although guests need one, another balancer is there, or the OS refuses what it needs.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let [terminate, interrupt] = &mut ends;
        self.begin().await?;
        let mut next_decision = tokio::time::Instant::now();
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = sleep_until(next_decision) => {
                    self.decide().await?;
                    next_decision = tokio::time::Instant::now() + self.until_next();
                }
                _ = reports.tick() => if let Some(how) = self.report().await? {
                    if how == StopHow::Restore {
                        self.restore().await?;
                    }
                    break;
                },
            }
        }
        let last = BalanceReport { is_ending: true, ..self.what_is() };
        let _nobody_to_tell = self.ask(move |admin| admin.report_balance(&last)).await;
        log::info!("ends");
        Ok(())
    }

    async fn begin(&mut self) -> Result<()> {
        match self.introduce().await {
            Ok(()) => self.daemon = Daemon::There,
            Err(ControlError::NoDaemon { .. }) if !self.needs_daemon() => {
                self.daemon = Daemon::Away;
                log::info!("no tmem daemon here: goes by what cgroups say of their own swap-ins");
            }
            Err(error) => return Err(error).context("guests' swap-ins are what the daemon counts"),
        }
        let settings = &self.settings;
        log::info!(
            "policy {}, every {} s, {} guests{}",
            settings.policy.as_str(),
            settings.interval.time().as_secs(),
            self.guests.len(),
            if settings.dry_run { "; dry run: only says what it would do" } else { "" }
        );
        Ok(())
    }

    /// How long it may take until the next decision.
    fn until_next(&self) -> Duration {
        let is_moving = |reason: &Reason| {
            use Reason::{Follows, Gives, Grows, New, Waits};
            matches!(reason, New | Grows { .. } | Waits { .. } | Gives { .. } | Follows)
        };
        let usual = self.settings.interval.time();
        let moves = self.verdicts.iter().flatten().any(|verdict| is_moving(&verdict.reason));
        if moves { usual.min(UNREST) } else { usual }
    }

    /// A guest's swap-ins are what the daemon counts; a cgroup counts its own.
    fn needs_daemon(&self) -> bool {
        self.guests.iter().any(|guest| !matches!(guest.spec.address, GuestAddress::Cgroup(_)))
    }

    /// The first report. The daemon forgets a balancer that was killed after a while; so long this one waits.
    async fn introduce(&self) -> Result<(), ControlError> {
        let end = Instant::now() + FORGOTTEN_WITHIN;
        loop {
            let report = self.what_is();
            let refused = match self.ask(move |admin| admin.report_balance(&report)).await {
                Err(error @ ControlError::Admin(AdminError::Conflict(_))) => error,
                other => return other.map(drop),
            };
            let other = self.ask(AdminClient::status).await?.balance;
            match other.map(|report| report.pid) {
                Some(pid) if is_alive(pid) || Instant::now() > end => return Err(refused),
                Some(pid) => {
                    log::info!("the balancer before this one (process id {pid}) has not said good-bye; waits")
                }
                None => {}
            }
            sleep(REPORT_EVERY).await;
        }
    }

    /// One look, one decision.
    async fn decide(&mut self) -> Result<()> {
        // First the daemon, which may take its time: guests are to be as they were seen.
        let status = match self.ask(AdminClient::status).await {
            Ok(status) => Some(status),
            Err(error) => {
                self.is_away(&error);
                None
            }
        };
        self.look().await?;
        if status.is_none() && self.needs_daemon() {
            return Ok(());
        }
        let at = self.started.elapsed();
        let (indexes, scene) = scene(at, &mut self.guests, status.as_ref(), self.budget_bytes);
        self.records.see(&scene);
        self.verdicts.fill(None);
        let mut targets = Vec::new();
        for (index, verdict) in indexes.into_iter().zip(self.balancer.decide(&scene)) {
            let guest = &mut self.guests[index];
            let (size_bytes, target_bytes) = (verdict.size_bytes, verdict.target_bytes);
            if guest.has_to_hear(target_bytes) {
                targets.push((index, target_bytes));
            }
            let before_bytes = guest.decided.unwrap_or(size_bytes);
            let is_change = |from_bytes: u64| target_bytes.abs_diff(from_bytes) >= LEAST_CHANGE_BYTES;
            if guest.answers && is_change(size_bytes) && is_change(before_bytes) {
                let decision = decision(&verdict);
                self.records.decide(&decision, self.settings.dry_run);
                self.untold.push(decision);
                let more_bytes = target_bytes.saturating_sub(before_bytes.max(size_bytes));
                self.promises.push_back((Instant::now(), more_bytes));
            }
            if guest.answers {
                guest.decided = Some(target_bytes);
            }
            self.verdicts[index] = Some(verdict);
        }
        self.untold.drain(..self.untold.len().saturating_sub(MAX_UNTOLD));
        if !self.settings.dry_run {
            tell(&mut self.guests, targets).await;
        }
        Ok(())
    }

    /// At the guests, and at what the host can give them.
    async fn look(&mut self) -> Result<()> {
        look(&mut self.guests).await;
        while self.promises.front().is_some_and(|(at, _)| at.elapsed() >= TOUCHED_WITHIN) {
            self.promises.pop_front();
        }
        let promised_bytes = self.promises.iter().map(|(_, bytes)| bytes).sum();
        let (budget, reserve) = (self.settings.budget, self.reserve);
        self.budget_bytes =
            budget_bytes(budget, self.held_bytes(), promised_bytes, &WholeHost::read()?, reserve);
        Ok(())
    }

    /// What guests have, and what silent ones may have.
    fn held_bytes(&self) -> u64 {
        self.guests.iter().map(Managed::counted_bytes).fold(0, u64::saturating_add)
    }

    /// Tells the daemon, and takes along what people want. Gives how to end, if it is to.
    async fn report(&mut self) -> Result<Option<StopHow>> {
        let report = BalanceReport { decisions: self.untold.clone(), ..self.what_is() };
        let told = report.decisions.len();
        let orders = match self.ask(move |admin| admin.report_balance(&report)).await {
            Ok(answer) => answer.orders,
            // Two would take from each other's guests what they gave.
            Err(ControlError::Admin(AdminError::Conflict(why))) => anyhow::bail!(why),
            Err(error) => {
                self.is_away(&error);
                return Ok(None);
            }
        };
        if self.daemon != Daemon::There {
            log::info!("the tmem daemon is there");
        }
        self.daemon = Daemon::There;
        self.untold.drain(..told);
        for numbered in orders {
            // One that it has heard of is in the answer until the daemon knows that.
            if numbered.number <= self.heard {
                continue;
            }
            self.heard = numbered.number;
            if let Some(how) = self.obey(numbered.order) {
                return Ok(Some(how));
            }
        }
        Ok(None)
    }

    fn obey(&mut self, order: BalanceOrder) -> Option<StopHow> {
        for (name, changes) in order.guests {
            match self.guests.iter_mut().find(|guest| guest.spec.name.as_str() == name) {
                Some(guest) => change_limits(guest, changes),
                None => log::warn!("told of guest {name}, which is not looked after here"),
            }
        }
        if let Some(dry_run) = order.dry_run {
            self.settings.dry_run = dry_run;
            self.balancer = Balancer::new(policy(&self.settings));
            log::info!(
                "{}",
                if dry_run { "from now on only says what it would do" } else { "from now on does it" }
            );
        }
        order.stop
    }

    /// Everybody gets its ceiling, as far as the host has memory.
    async fn restore(&mut self) -> Result<()> {
        self.look().await?;
        let asks: Vec<(usize, u64, u64)> = (0..)
            .zip(&self.guests)
            .filter_map(|(index, guest)| {
                let seen = guest.seen.as_ref().filter(|_| guest.answers)?;
                let ceiling_bytes = limits(&guest.spec, seen.max_bytes).ceiling_bytes;
                Some((index, seen.size_bytes, ceiling_bytes.saturating_sub(seen.size_bytes)))
            })
            .collect();
        let asked_bytes: u64 = asks.iter().map(|(_, _, more_bytes)| more_bytes).sum();
        let room_bytes = self.budget_bytes.saturating_sub(self.held_bytes()).min(asked_bytes);
        let part = room_bytes as f64 / asked_bytes.max(1) as f64;
        let targets: Vec<_> = asks
            .into_iter()
            .map(|(index, size_bytes, more_bytes)| (index, size_bytes + (more_bytes as f64 * part) as u64))
            .collect();
        if !self.settings.dry_run {
            log::info!("gives {} back to guests", size(room_bytes));
            tell(&mut self.guests, targets).await;
        }
        Ok(())
    }

    /// What there is to report, without decisions.
    fn what_is(&self) -> BalanceReport {
        BalanceReport {
            pid: std::process::id(),
            policy: self.balancer.policy().to_owned(),
            dry_run: self.settings.dry_run,
            interval_seconds: self.settings.interval.time().as_secs_f64(),
            budget_bytes: self.budget_bytes,
            guests: self
                .guests
                .iter()
                .zip(&self.verdicts)
                .map(|(guest, verdict)| shown(guest, verdict.as_ref()))
                .collect(),
            decisions: Vec::new(),
            heard: self.heard,
            is_ending: false,
        }
    }

    /// Says once that the daemon is away.
    fn is_away(&mut self, error: &ControlError) {
        if self.daemon == Daemon::There {
            let left = if self.needs_daemon() { "; guests stay as they are until it is back" } else { "" };
            log::warn!("{error}{left}");
        }
        self.daemon = Daemon::Away;
    }

    /// Asks the daemon, on a thread where that holds up nobody.
    async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&AdminClient) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let admin = Arc::clone(&self.admin);
        let asked = spawn_blocking(move || what(&admin)).await;
        asked.unwrap_or_else(|error| Err(ControlError::HostMemory(io::Error::other(error))))
    }
}

/// Whether there is such a process here.
fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn change_limits(guest: &mut Managed, changes: LimitChanges) {
    let LimitChanges { floor_bytes, ceiling_bytes, weight } = changes;
    let spec = &mut guest.spec;
    spec.floor = floor_bytes.map(ByteSize::from_bytes).or(spec.floor);
    spec.ceiling = ceiling_bytes.map(ByteSize::from_bytes).or(spec.ceiling);
    spec.weight = weight.unwrap_or(spec.weight);
    log::info!("guest {}: new limits", spec.name);
}

/// A guest as the daemon shows it.
fn shown(guest: &Managed, verdict: Option<&Verdict>) -> BalancedGuest {
    let seen = guest.seen.as_ref();
    let limits = limits(&guest.spec, seen.map_or(0, |seen| seen.max_bytes));
    let size_bytes = seen.map_or(0, |seen| seen.size_bytes);
    let report = seen.and_then(|seen| seen.report);
    BalancedGuest {
        name: guest.spec.name.to_string(),
        kind: guest.kind.to_owned(),
        size_bytes,
        target_bytes: verdict.map_or(size_bytes, |verdict| verdict.target_bytes),
        floor_bytes: limits.floor_bytes,
        ceiling_bytes: limits.ceiling_bytes,
        weight: limits.weight,
        answers: guest.answers,
        available_bytes: report.and_then(|report| report.available_bytes),
        pressure: report.and_then(|report| report.pressure),
        reason: verdict.map_or_else(String::new, |verdict| verdict.reason.to_string()),
        trouble: guest.trouble.clone(),
    }
}
