//! Real guests are asked and told: one under QEMU with a balloon and an agent, and a cgroup in another.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tmem_actuator::{Address, Guest, Seen};
use tmem_tests::{QemuGuest, build_checker, succeed, tool};
use tokio::runtime::Runtime;

/// Emulated code is slow, and a busy machine makes it slower.
const QEMU: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;
const MEMORY_MIB: u64 = 256;
const DEVICE: &str = "virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on";
/// Memory as guests with a disk on vhost-user have it.
const BALLOON: [&str; 6] = [
    "-device",
    DEVICE,
    "-object",
    "memory-backend-memfd,id=mem,size=256M,share=on",
    "-numa",
    "node,memdev=mem",
];

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

fn guest(sockets: &Path, agent: bool) -> Guest {
    let agent = agent.then(|| sockets.join("qga"));
    Guest::new(Address::Qemu { monitor: sockets.join("qmp"), agent })
}

/// Looks until something is seen.
fn look_until(
    runtime: &Runtime,
    guest: &mut Guest,
    what: &str,
    mut condition: impl FnMut(&Seen) -> bool,
) -> Result<Seen> {
    let deadline = Instant::now() + QEMU;
    loop {
        let seen = runtime.block_on(guest.look());
        match seen {
            Ok(seen) if condition(&seen) => return Ok(seen),
            seen if Instant::now() > deadline => bail!("{what} was not seen; last there was {seen:?}"),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

#[test]
fn a_guest_under_qemu_is_asked_and_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let checker = build_checker(directory.path())?;
    let script = "
agent
mount -t ramfs none /mnt
dd if=/dev/zero of=/mnt/filled bs=1M count=100
echo @filled
# The host says when it has looked, by what it leaves the guest.
until [ $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo) -lt 60000 ]; do sleep 0.5; done
rm /mnt/filled
echo @freed
sleep 1000
";
    let booted = QemuGuest::boot_with_balloon(MEMORY_MIB, directory.path(), &BALLOON, &checker, script)?;
    let runtime = runtime()?;
    booted.wait_for("@filled", QEMU)?;
    let mut guest = guest(directory.path(), true);

    let seen = look_until(&runtime, &mut guest, "all that a guest says", |seen| {
        seen.report.is_some_and(|report| report.available_bytes.is_some() && report.pressure.is_some())
    })?;
    println!("before: {seen:?}");
    ensure!(seen.size_bytes == MEMORY_MIB * MIB && seen.max_bytes == MEMORY_MIB * MIB, "{seen:?}");
    let report = seen.report.context("a report")?;
    let before_bytes = report.available_bytes.context("what is available")?;
    ensure!((20 * MIB..156 * MIB).contains(&before_bytes), "100 MiB are taken: {seen:?}");
    ensure!(report.committed_bytes.is_some_and(|bytes| (MIB..1 << 40).contains(&bytes)), "{seen:?}");
    ensure!(seen.swap_ins.is_none(), "{seen:?}");

    // Down: what is available goes with what it has.
    let target_bytes = seen.size_bytes - (before_bytes - 40 * MIB).max(8 * MIB);
    runtime.block_on(guest.set(target_bytes))?;
    let smaller = look_until(&runtime, &mut guest, "the target", |seen| seen.size_bytes == target_bytes)?;
    println!("told {target_bytes}: {smaller:?}");
    booted.wait_for("@freed", QEMU)?;
    let told_kib = booted.resident_kib()?;

    // Up, and nothing of it is the host's yet: it is only when the guest uses it.
    runtime.block_on(guest.set(u64::MAX))?;
    let whole = look_until(&runtime, &mut guest, "all of it", |seen| seen.size_bytes == seen.max_bytes)?;
    ensure!(whole.max_bytes == MEMORY_MIB * MIB, "{whole:?}");
    let freed = |seen: &Seen| {
        seen.report
            .and_then(|report| report.available_bytes)
            .is_some_and(|bytes| bytes > before_bytes + 90 * MIB)
    };
    let seen = look_until(&runtime, &mut guest, "more that is available", freed)?;
    println!("after: {seen:?}, {told_kib} KiB of the host, then {}", booted.resident_kib()?);

    // What is free the guest reports by itself, and the host has it back.
    let deadline = Instant::now() + QEMU;
    while booted.resident_kib()? + 60 * 1024 > told_kib {
        ensure!(Instant::now() < deadline, "of {told_kib} KiB it still has {}", booted.resident_kib()?);
        std::thread::sleep(Duration::from_millis(500));
    }

    // A monitor answers one client. The other finds out within the time of a call.
    let error = runtime.block_on(self::guest(directory.path(), false).look());
    let error = error.err().context("two at one monitor")?.to_string();
    ensure!(error.contains("one client"), "{error}");
    drop(guest);
    let mut next = self::guest(directory.path(), false);
    let seen = look_until(&runtime, &mut next, "the guest again", |seen| seen.report.is_some())?;
    ensure!(seen.report.is_some_and(|report| report.pressure.is_none()), "without an agent: {seen:?}");
    // A guest that is gone is an error, and nothing hangs.
    drop(booted);
    ensure!(runtime.block_on(next.look()).is_err() && runtime.block_on(next.set(MIB)).is_err());
    Ok(())
}

#[test]
fn a_guest_without_a_balloon_is_told_what_to_add() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let checker = build_checker(directory.path())?;
    let booted =
        QemuGuest::boot_with_balloon(128, directory.path(), &[], &checker, "echo @up\nsleep 1000\n")?;
    booted.wait_for("@up", QEMU)?;
    let error = runtime()?.block_on(guest(directory.path(), false).look());
    let error = error.err().context("there is no balloon")?.to_string();
    ensure!(error.contains(DEVICE), "{error}");
    Ok(())
}

/// What `keep` has seen, the n-th time.
fn seen(console: &[String], n: usize) -> Result<[f64; 5]> {
    let line = console.iter().filter_map(|line| line.strip_prefix("@seen ")).nth(n);
    let line = line.with_context(|| format!("no look number {n}:\n{}", console.join("\n")))?;
    let numbers: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    numbers.try_into().ok().with_context(|| format!("not five numbers: {line}"))
}

#[test]
fn a_cgroup_in_a_guest_is_asked_and_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let checker = build_checker(directory.path())?;
    let swap = directory.path().join("swap");
    std::fs::File::create(&swap)?.set_len(256 * MIB)?;
    succeed(tool("mkswap", &[swap.to_str().context("a path")?])?)?;
    // A file in memory is the cgroup's, and stays when who wrote it has ended. It can only be swapped out.
    let script = "
echo 1 > /proc/sys/kernel/printk
cd /sys/fs/cgroup/small
mount -t tmpfs none /mnt
inside() { sh -c \"echo \\$\\$ > cgroup.procs; $1\"; }
keep .
inside 'dd if=/dev/zero of=/mnt/held bs=1M count=60 2> /dev/null'
keep .
# Without swap there is nothing to reclaim. That is no error, and the limit stands.
keep . 41943040
echo \"@high $(cat memory.high)\"
swapon /dev/vda
keep . 41943040
echo \"@current $(cat memory.current)\"
inside 'cat /mnt/held > /dev/null'
keep .
keep . 83886080
echo \"@high $(cat memory.high)\"
echo 104857600 > memory.max
keep . 104857600
echo \"@high $(cat memory.high)\"
";
    let program = env!("CARGO_BIN_EXE_keep");
    let console = QemuGuest::boot_with_cgroup(program, &swap, &checker, script)?.finish(QEMU)?;
    let all = console.join("\n");
    println!("{all}");
    let marked =
        |mark: &str, n| console.iter().filter_map(|line| line.strip_prefix(mark)).nth(n).map(str::trim);
    let mib = |bytes: f64| bytes / MIB as f64;

    let [empty, host, ..] = seen(&console, 0)?;
    ensure!(mib(empty) < 4.0 && (250.0..384.0).contains(&mib(host)), "an empty one: {all}");
    let [filled, _, available, swap_ins, _] = seen(&console, 1)?;
    ensure!((60.0..70.0).contains(&mib(filled)) && swap_ins < 1.0, "a full one: {all}");
    ensure!(mib(available) < 10.0, "nothing of it goes without swap: {all}");
    let [stuck, ..] = seen(&console, 2)?;
    ensure!(mib(stuck) > 59.0 && marked("@high ", 0) == Some("41943040"), "without swap: {all}");
    let [told, ..] = seen(&console, 3)?;
    let current: f64 = marked("@current ", 0).context("what it uses")?.parse()?;
    ensure!((told - 40.0 * MIB as f64).abs() < 1.0 && mib(current) < 41.0, "told 40 MiB: {all}");
    let [_, _, _, swap_ins, _] = seen(&console, 4)?;
    ensure!(swap_ins > 1000.0, "20 MiB came back: {all}");
    let [more, _, available, ..] = seen(&console, 5)?;
    ensure!(mib(more) > 79.0 && mib(available) > 15.0, "given 80 MiB: {all}");
    ensure!(marked("@high ", 1) == Some("83886080") && marked("@high ", 2) == Some("max"), "{all}");
    let [_, max, ..] = seen(&console, 6)?;
    ensure!((mib(max) - 100.0).abs() < 0.1, "the cgroup's own maximum: {all}");
    Ok(())
}
