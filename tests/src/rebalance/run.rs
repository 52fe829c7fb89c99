//! One policy over the whole scenario.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    machine::Machine,
    scenario::{Arrangement, Scenario},
};
use crate::{Daemon, Process, build_guest_program, places};

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// From filling the memory of both guests to the first figure, so that what that has set going is over.
const RESTS: Duration = Duration::from_secs(5);
const NAMES: [&str; 2] = ["large", "small"];

/// How things are at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Since the first phase began, in seconds.
    pub at: f64,
    /// Of both guests: what they have, in bytes.
    pub size_bytes: [u64; 2],
    /// What their programs have done so far, in operations.
    pub work: [u64; 2],
    /// Their swap-ins so far.
    pub swap_ins: [u64; 2],
}

/// What happened under one arrangement.
#[derive(Debug)]
pub struct Run {
    /// Which.
    pub arrangement: Arrangement,
    /// One a second.
    pub samples: Vec<Sample>,
}

/// Boots both guests anew, and runs the scenario.
///
/// # Errors
/// A guest does not come up, dies, or has a wrong page; it was told to stop.
pub fn run(
    scenario: &Scenario,
    arrangement: Arrangement,
    trace: Option<&Path>,
    stop: &AtomicBool,
) -> Result<Run> {
    say(&format!("{}: booting", arrangement.name()));
    let daemon = Daemon::start("512M")?;
    let program = build_guest_program("shifts", daemon.directory())?;
    let mut machines = NAMES
        .iter()
        .map(|name| Machine::boot(&daemon, name, scenario, &program))
        .collect::<Result<Vec<_>>>()?;
    for (machine, mib) in machines.iter_mut().zip(scenario.sizes_mib(arrangement)) {
        machine.set_size(mib << 20)?;
    }
    sleep(RESTS);
    let balancer = if arrangement.has_balancer() {
        Some(balancer(&daemon, scenario, arrangement, &machines, trace)?)
    } else {
        None
    };
    let samples = watch(&daemon, scenario, arrangement, &mut machines, stop)?;
    if let Some(mut balancer) = balancer {
        daemon.tmem_ok(&["balance", "stop"])?;
        let ended = balancer.wait(Duration::from_secs(10))?;
        ensure!(ended.success(), "the balancer ended with {ended}:\n{}", balancer.lines().join("\n"));
    }
    for machine in machines {
        machine.finish()?;
    }
    daemon.stop()?;
    Ok(Run { arrangement, samples })
}

fn balancer(
    daemon: &Daemon,
    scenario: &Scenario,
    arrangement: Arrangement,
    machines: &[Machine],
    trace: Option<&Path>,
) -> Result<Process> {
    let mut command = Command::new(places::tmem_binary()?);
    command.arg("--runtime-dir").arg(daemon.directory().join("run")).args(["balance", "start"]);
    command.args(["--policy", arrangement.name(), "--budget", &format!("{}M", scenario.budget_mib())]);
    for machine in machines {
        let name = machine.name();
        command.arg("--qmp").arg(format!("{name}={}", machine.balancers_monitor.display()));
        command.arg("--agent").arg(format!("{name}={}", machine.agent.display()));
        command.args(["--floor", &format!("{name}={}M", scenario.floor_mib)]);
    }
    command.args(trace.map(|trace| format!("--trace={}", trace.display())));
    Process::start("tmem balance", &mut command)
}

fn watch(
    daemon: &Daemon,
    scenario: &Scenario,
    arrangement: Arrangement,
    machines: &mut [Machine],
    stop: &AtomicBool,
) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let mut samples = Vec::new();
    let mut work = [0; 2];
    let swap_ins_before = swap_ins(daemon)?;
    for machine in machines.iter_mut() {
        machine.work()?;
    }
    for (phase, busy) in (0..).zip(Scenario::busy(arrangement)) {
        for (index, machine) in machines.iter_mut().enumerate() {
            machine.tell(index == busy)?;
        }
        let end = start + scenario.phase * (phase + 1);
        while Instant::now() < end {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            sleep(SAMPLE_EVERY.min(end.saturating_duration_since(Instant::now())));
            let mut sample = Sample { at: start.elapsed().as_secs_f64(), ..Sample::default() };
            let now = swap_ins(daemon)?;
            for (index, machine) in machines.iter_mut().enumerate() {
                work[index] += machine.work()?;
                sample.size_bytes[index] = machine.size_bytes()?;
                sample.swap_ins[index] = now[index] - swap_ins_before[index];
            }
            sample.work = work;
            samples.push(sample);
            progress(scenario, arrangement, &samples);
        }
    }
    Ok(samples)
}

fn swap_ins(daemon: &Daemon) -> Result<[u64; 2]> {
    let status = daemon.status()?;
    let clients = status["clients"].as_array().context("no clients")?;
    let of = |name: &str| {
        let client = clients.iter().find(|client| client["name"] == name);
        client.and_then(|client| client["gets"].as_u64()).with_context(|| format!("no gets of {name}"))
    };
    Ok([of(NAMES[0])?, of(NAMES[1])?])
}

/// A line every ten seconds.
fn progress(scenario: &Scenario, arrangement: Arrangement, samples: &[Sample]) {
    let Some(last) = samples.last() else { return };
    if !samples.len().is_multiple_of(10) {
        return;
    }
    let before = samples.len().checked_sub(11).map_or(Sample::default(), |at| samples[at]);
    let mib = last.size_bytes.map(|bytes| bytes >> 20);
    let done = [0, 1].map(|index| (last.work[index] - before.work[index]) as f64 / (last.at - before.at));
    let swapped =
        [0, 1].map(|index| (last.swap_ins[index] - before.swap_ins[index]) as f64 / (last.at - before.at));
    say(&format!(
        "{}: {:.0} of {} s; MiB {} and {}, operations a second {:.0} and {:.0}, swap-ins a second {:.0} and {:.0}",
        arrangement.name(),
        last.at,
        (scenario.phase * 2).as_secs(),
        mib[0],
        mib[1],
        done[0],
        done[1],
        swapped[0],
        swapped[1]
    ));
}

fn say(text: &str) {
    eprintln!("==> {text}");
}
