//! The process that serves is killed over and over while guests swap (rule 1): no guest sees an error, a wrong byte, or a long stall.
//!
//! `TMEM_KILLS` says how often, `TMEM_STORED_MIB` how much memory the User-mode Linux guest's program has, `TMEM_SEED` repeats a run.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tmem_tests::{Daemon, QemuGuest, Random, UmlGuest, build_checker};

const BOOT: Duration = Duration::from_secs(120);
/// A kill every 0.5 to 3 s, on a machine that is slow.
const PER_KILL: Duration = Duration::from_secs(4);
/// A worker that was killed is followed by one that serves by then, however busy the machine.
const BACK: Duration = Duration::from_secs(30);

/// A number that the environment may give.
fn given(name: &str, default: u64) -> Result<u64> {
    env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// Kills the worker `kills` times, each 0.5 to 3 s after the one before.
fn kill_over_and_over(daemon: &Daemon, kills: u64, seed: u64) -> Result<()> {
    println!("TMEM_SEED={seed} TMEM_KILLS={kills}");
    let mut random = Random::new(seed);
    for kill in 0..kills {
        thread::sleep(Duration::from_millis(500 + random.below(2500)));
        let worker = daemon.kill_worker()?;
        daemon.wait_for_worker_after(worker, BACK).with_context(|| format!("kill {}", kill + 1))?;
    }
    Ok(())
}

fn stalls_ms(console: &[String]) -> Vec<u64> {
    let mut stalls: Vec<u64> =
        console.iter().filter_map(|line| line.strip_prefix("@stall ")?.trim().parse().ok()).collect();
    stalls.sort_unstable();
    stalls
}

/// Percentiles of the longest stalls, one for each kill: what else stalls on a busy machine is shorter, or makes this worse than it is.
fn report(who: &str, console: &[String], kills: u64) {
    let mut stalls = stalls_ms(console);
    stalls.drain(..stalls.len().saturating_sub(kills as usize));
    let at =
        |part: f64| stalls.get(((stalls.len() as f64 * part) as usize).min(stalls.len().saturating_sub(1)));
    println!(
        "{who}: {} stalls of more than 20 ms among {kills} kills; ms p50 {:?}, p99 {:?}, longest {:?}",
        stalls.len(),
        at(0.5),
        at(0.99),
        stalls.last()
    );
}

fn ended_well(console: &[String]) -> Result<()> {
    let verified = console.iter().any(|line| line.starts_with("VERIFIED "));
    let wrong = console.iter().find(|line| line.contains("I/O error") || line.contains("MISMATCH"));
    ensure!(verified && wrong.is_none(), "{wrong:?} among:\n{}", console.join("\n"));
    Ok(())
}

/// QEMU's own NBD client connects again and sends once more what was not answered; its guest sees nothing of it.
#[test]
fn r1_a_guest_over_qemus_nbd_client_survives_the_death_of_the_worker() -> Result<()> {
    let (kills, seed) = (given("TMEM_KILLS", 20)?.div_ceil(4), given("TMEM_SEED", 0x6e62)?);
    let daemon = Daemon::start_with("512M", &["--worker-deaths", "0"].map(str::to_owned), None)?;
    let checker = build_checker(daemon.directory())?;
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    daemon.add_nbd_disk("swap", "512M", &socket, &[])?;
    let seconds = kills * PER_KILL.as_secs();
    let script = format!("swapon -d /dev/vda\n/check_pages 160 41 1 kind=light seconds={seconds} stalls\n");
    let qemu = QemuGuest::boot(&daemon, "swap", &checker, &script)?;
    qemu.wait_for("filled ", BOOT)?;
    kill_over_and_over(&daemon, kills, seed)?;
    let console = qemu.finish(Duration::from_secs(seconds) + BOOT)?;
    ended_well(&console)?;
    report("qemu over NBD", &console, kills);
    daemon.stop().map(drop)
}

/// The kernel's client loses its connection. A new one finds everything there.
#[test]
fn r1_the_kernels_nbd_client_can_connect_again() -> Result<()> {
    let daemon = Daemon::start("64M")?;
    let checker = build_checker(daemon.directory())?;
    let place = daemon.add_nbd_disk("disk", "64M", "127.0.0.1:0", &["--format", "none"])?;
    let port = place.strip_prefix("127.0.0.1:").context("a port")?;
    let script = format!(
        "connect() {{ nbd-client 10.0.2.2 {port} /dev/nbd0 -N disk -L -b 4096; }}\n\
         compare() {{ dd if=/dev/nbd0 iflag=direct bs=4k count=50 2> /dev/null | cmp -n 204800 - /check_pages; }}\n\
         connect\n\
         until dd if=/check_pages of=/dev/nbd0 bs=4k oflag=direct count=50 2> /dev/null; do sleep 0.1; done\n\
         compare\n\
         echo '@written'\n\
         while compare 2> /dev/null; do sleep 0.2; done\n\
         echo '@lost'\n\
         nbd-client -d /dev/nbd0 || true\n\
         until connect 2> /dev/null && sleep 0.5 && compare; do sleep 0.2; done\n\
         echo '@same'\n"
    );
    let guest = QemuGuest::boot_with_nbd_client(&checker, &script)?;
    guest.wait_for("@written", BOOT)?;
    let dead = daemon.kill_worker()?;
    daemon.wait_for_worker_after(dead, BACK)?;
    guest.wait_for("@lost", BOOT)?;
    let console = guest.finish(BOOT)?;
    ensure!(console.iter().any(|line| line == "@same"), "{}", console.join("\n"));
    daemon.stop().map(drop)
}

/// The program on disk takes over again and again, under the same load.
#[test]
fn r1_guests_survive_upgrades() -> Result<()> {
    let upgrades = given("TMEM_UPGRADES", 5)?;
    let daemon = Daemon::start("1G")?;
    let checker = build_checker(daemon.directory())?;
    daemon.add_disk("uml", "512M", &[])?;
    let seconds = upgrades * 4;
    let script = format!("swapon LABEL=tmem\n{} 256 13 1 seconds={seconds} stalls\n", checker.display());
    let uml = UmlGuest::boot(&daemon, "uml", &script)?;
    uml.wait_for("filled ", BOOT)?;
    for _ in 0..upgrades {
        thread::sleep(Duration::from_millis(1500));
        let before = daemon.worker()?;
        let said = daemon.tmem_ok(&["upgrade"])?;
        ensure!(said.contains(&format!("has taken over from {before}")), "{said}");
    }
    let console = uml.finish(Duration::from_secs(seconds) + BOOT)?;
    ended_well(&console)?;
    report("upgrades, uml", &console, upgrades);
    ensure!(daemon.status()?["worker_deaths"] == 0, "{:#}", daemon.status()?);
    daemon.stop().map(drop)
}

#[test]
fn r1_guests_survive_the_death_of_the_worker_over_and_over() -> Result<()> {
    let (kills, seed) = (given("TMEM_KILLS", 20)?, given("TMEM_SEED", 0x7a6d)?);
    let stored_mib = given("TMEM_STORED_MIB", 256)?;
    let daemon = Daemon::start_with("2G", &["--worker-deaths", "0"].map(str::to_owned), None)?;
    let checker = build_checker(daemon.directory())?;
    daemon.add_disk("uml", &format!("{}M", 2 * stored_mib), &[])?;
    daemon.add_disk("qemu", "512M", &[])?;
    let seconds = kills * PER_KILL.as_secs();
    let checker_path = checker.display();
    let script = format!("swapon LABEL=tmem\n{checker_path} {stored_mib} 11 1 seconds={seconds} stalls\n");
    let uml = UmlGuest::boot(&daemon, "uml", &script)?;
    let script = format!("swapon -d /dev/vda\n/check_pages 160 12 1 kind=light seconds={seconds} stalls\n");
    let qemu = QemuGuest::boot(&daemon, "qemu", &checker, &script)?;
    uml.wait_for("filled ", BOOT)?;
    qemu.wait_for("filled ", BOOT)?;
    let start = Instant::now();
    kill_over_and_over(&daemon, kills, seed)?;
    println!("{kills} kills in {:.0?}", start.elapsed());
    let gib = daemon.pool("logical_bytes")? as f64 / f64::from(1 << 30);
    println!(
        "{gib:.2} GiB stored, {:.2} GiB of memory held",
        daemon.pool("held_bytes")? as f64 / f64::from(1 << 30)
    );
    let rest = Duration::from_secs(seconds) + BOOT;
    for (who, console) in [("uml", uml.finish(rest)?), ("qemu", qemu.finish(rest)?)] {
        ended_well(&console)?;
        report(who, &console, kills);
    }
    for disk in ["uml", "qemu"] {
        for counter in ["refused_puts", "checksum_errors"] {
            ensure!(daemon.client(disk, counter)? == 0, "{counter}: {}", daemon.status()?);
        }
    }
    daemon.stop().map(drop)
}
