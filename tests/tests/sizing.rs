//! A pool that sizes itself by what the host has left, on this host, with a program that wants the host's memory.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tmem_tests::{Daemon, fail, succeed, tool};

const MIB: u64 = 1 << 20;

/// The pool is asked for this within a second; a test machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);

fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    let kib: u64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Text that Zstandard makes much smaller than the codec for fresh pages does.
fn text(mib: u64, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity((mib * MIB) as usize + 32);
    while bytes.len() < (mib * MIB) as usize {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(format!("{:x} is {}\n", state >> 40, (state >> 20) % 1000).bytes());
    }
    bytes.truncate((mib * MIB) as usize);
    bytes
}

#[test]
fn r1_a_pool_gives_way_to_the_host_and_grows_again() -> Result<()> {
    let available = available_bytes()?;
    // Wide enough that what other tests take meanwhile makes no difference.
    let window = (available / 4).min(2048 * MIB);
    ensure!(
        window >= 512 * MIB,
        "this host has too little memory for the test: {available} bytes are available"
    );
    let reserve = format!("--reserve={}", available - window);
    let daemon = Daemon::start_with("auto", &[reserve], None)?;
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    for disk in ["kept", "other"] {
        daemon.add_nbd_disk(disk, "96M", &socket, &["--format", "none"])?;
    }
    let uri = |disk: &str| format!("nbd+unix:///{disk}?socket={socket}");
    let [kept, other, back] = ["kept", "other", "back"].map(|name| daemon.directory().join(name));
    fs::write(&kept, text(96, 1))?;
    fs::write(&other, text(96, 2))?;
    let path = |path: &std::path::Path| path.display().to_string();
    let copy = |from: &str, to: &str| tool("nbdcopy", &[from, to]);
    succeed(copy(&path(&kept), &uri("kept"))?)?;
    let full = daemon.pool("held_bytes")?;
    ensure!(full > 16 * MIB && full <= daemon.pool("limit_bytes")?, "{:#}", daemon.status()?);

    // Somebody wants more than the pool could take.
    let wanted = vec![1u8; (window + window / 4) as usize];
    daemon.wait_until("the limit falls below what is held", TIMEOUT, |daemon| {
        Ok(daemon.pool("limit_bytes")? < full)
    })?;
    daemon.wait_until("young pages are compressed harder", TIMEOUT, |daemon| {
        Ok(daemon.pool("held_bytes")? < full * 9 / 10)
    })?;
    let complaint = fail(copy(&path(&other), &uri("other"))?)?;
    ensure!(complaint.contains("Input/output error"), "{complaint}");
    ensure!(daemon.client("other", "refused_puts")? > 0, "{:#}", daemon.status()?);
    ensure!(std::hint::black_box(&wanted).iter().step_by(4096).all(|byte| *byte == 1));
    drop(wanted);

    daemon.wait_until("the pool may grow again", TIMEOUT, |daemon| {
        Ok(daemon.pool("limit_bytes")? > full + window / 4)
    })?;
    succeed(copy(&path(&other), &uri("other"))?)?;
    for (disk, file) in [("kept", &kept), ("other", &other)] {
        succeed(copy(&uri(disk), &path(&back))?)?;
        ensure!(fs::read(file)? == fs::read(&back)?, "disk {disk} came back as something else");
        fs::remove_file(&back)?;
    }
    ensure!(daemon.client("kept", "refused_puts")? == 0);
    daemon.stop().map(drop)
}
