//! The balancer with real guests under QEMU, among monitors that hang and guests that lie.

mod balance {
    pub mod liar;
}

use std::{os::unix::net::UnixListener, process::Command, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use balance::liar::Liar;
use serde_json::Value;
use tmem_tests::{
    Daemon, Process, build_guest_program,
    rebalance::{Machine, Scenario},
};

/// Emulated guests swap what they have to give.
const PATIENCE: Duration = Duration::from_secs(240);
const MIB: u64 = 1 << 20;

fn guest(daemon: &Daemon, name: &str) -> Result<Value> {
    let status = daemon.status()?;
    let guests = status["balance"]["guests"].as_array().context("no balancer reports")?;
    guests
        .iter()
        .find(|guest| guest["name"] == name)
        .cloned()
        .with_context(|| format!("no {name}: {guests:?}"))
}

/// The idle guest gives, the busy one gets, and no page of either is wrong. Beside them: a monitor that says nothing, one where nobody is, a guest
/// that never gives anything and says that it has nothing to spare, and one that says it has everything to spare, and gives whatever it is told to.
#[test]
fn memory_goes_to_the_guest_that_swaps_whatever_others_do() -> Result<()> {
    let scenario = Scenario {
        ceiling_mib: 192,
        floor_mib: 64,
        working_set_mib: 72,
        large_mib: 160,
        small_mib: 80,
        ..Scenario::quick()
    };
    let daemon = Daemon::start("512M")?;
    let program = build_guest_program("shifts", daemon.directory())?;
    let mut large = Machine::boot(&daemon, "large", &scenario, &program)?;
    let mut small = Machine::boot(&daemon, "small", &scenario, &program)?;
    large.set_size(scenario.large_mib * MIB)?;
    small.set_size(scenario.small_mib * MIB)?;

    let place = |name: &str| daemon.directory().join(name);
    let _silent = UnixListener::bind(place("silent"))?;
    let poor = Liar::new(&place("poor"), 128 * MIB, 0, false)?;
    let rich = Liar::new(&place("rich"), 128 * MIB, 128 * MIB, true)?;
    for name in ["poor", "rich"] {
        // Their swap-ins are known: there are none.
        daemon.add_disk(name, "64M", &[])?;
    }
    let mut command = Command::new(daemon.binary());
    command
        .arg("--runtime-dir")
        .arg(place("run"))
        .args(["balance", "--budget", "496M", "--step", "40", "--floor", "poor=96M"]);
    for machine in [&large, &small] {
        command.args(["--qmp", &format!("{}={}", machine.name(), machine.balancers_monitor.display())]);
        command.args(["--floor", &format!("{}={}M", machine.name(), scenario.floor_mib)]);
    }
    for name in ["silent", "gone", "poor", "rich"] {
        command.args(["--qmp", &format!("{name}={}", place(name).display())]);
    }
    let mut balancer = Process::start("tmem balance", &mut command)?;
    small.tell(true)?;
    let enough = |daemon: &Daemon| {
        let [large, small] = ["large", "small"].map(|name| guest(daemon, name));
        let bytes = |guest: Result<Value>| anyhow::Ok(guest?["size_bytes"].as_u64().unwrap_or(0));
        anyhow::Ok(bytes(large)? <= 125 * MIB && bytes(small)? >= 115 * MIB)
    };
    daemon.wait_until("memory has moved", PATIENCE, |daemon| Ok(enough(daemon).unwrap_or(false)))?;

    daemon.wait_until("the poor one is tried", PATIENCE, |_| Ok(poor.least_told_bytes() != u64::MAX))?;
    // A quarter of what it has is its floor.
    daemon.wait_until("the rich one gives", PATIENCE, |_| Ok(rich.least_told_bytes() <= 40 * MIB))?;
    sleep(Duration::from_secs(12)); // in which more would be taken, if floors did not hold
    ensure!(poor.least_told_bytes() >= 96 * MIB, "below its floor: {}", poor.least_told_bytes());
    ensure!(rich.least_told_bytes() >= 32 * MIB, "below a quarter: {}", rich.least_told_bytes());
    let [silent, gone] = [guest(&daemon, "silent")?, guest(&daemon, "gone")?];
    for (guest, trouble) in [(&silent, "says nothing"), (&gone, "cannot be reached")] {
        let said = guest["trouble"].as_str().unwrap_or_default();
        ensure!(guest["answers"] == false && said.contains(trouble), "{guest}");
    }

    daemon.tmem_ok(&["balance", "stop"])?;
    let ended = balancer.wait(Duration::from_secs(30))?;
    ensure!(ended.success(), "the balancer ended with {ended}:\n{}", balancer.lines().join("\n"));
    for machine in [large, small] {
        machine.finish()?;
    }
    daemon.stop().map(drop)
}
