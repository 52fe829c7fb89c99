//! A worker that crashes again and again (rule 1): pages are held until somebody has looked into it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tmem_tests::{Daemon, succeed, tool};

/// A worker that died is followed by one that serves by then, however busy the machine.
const BACK: Duration = Duration::from_secs(30);
/// As many as the daemon takes in a minute if nobody says otherwise.
const DEATHS: u32 = 5;

fn send(process: u32, signal: libc::c_int) -> Result<()> {
    let id = libc::pid_t::try_from(process)?;
    // SAFETY: kill() touches no memory. The process is this daemon's keeper, or its child that it has not waited for.
    unsafe { libc::kill(id, signal) };
    Ok(())
}

fn parent(process: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no PPid")?;
    Ok(line.trim().parse()?)
}

/// Crashes the process that serves. Gives its id.
fn crash(daemon: &Daemon) -> Result<u32> {
    let worker = daemon.worker()?;
    let start = Instant::now();
    // The language's runtime looks at the first such signal and lets it pass if no instruction was at fault.
    while daemon.worker().is_ok_and(|now| now == worker) {
        ensure!(start.elapsed() < BACK, "worker {worker} survives SIGSEGV");
        send(worker, libc::SIGSEGV)?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(worker)
}

fn words(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|line: u64| format!("line {} of an image\n", line.wrapping_mul(0x9e37_79b9)).into_bytes())
        .take(len)
        .collect()
}

#[test]
fn r1_pages_are_held_when_workers_crash_too_often_and_are_there_after_sighup() -> Result<()> {
    let daemon = Daemon::start("256M")?;
    let socket = daemon.directory().join("nbd.sock").display().to_string();
    daemon.add_nbd_disk("vm1", "32M", &socket, &["--format", "none"])?;
    let uri = format!("nbd+unix:///vm1?socket={socket}");
    let (there, back) = (daemon.directory().join("there"), daemon.directory().join("back"));
    fs::write(&there, words(32 << 20)).context("cannot write an image")?;
    let text = |path: &std::path::Path| path.display().to_string();
    succeed(tool("nbdcopy", &[&text(&there), &uri])?)?;
    let keeper = parent(daemon.worker()?)?;
    for _ in 1..DEATHS {
        let worker = crash(&daemon)?;
        daemon.wait_for_worker_after(worker, BACK)?;
    }
    crash(&daemon)?;
    // Whoever asks now is told that nobody answers, and no other worker comes.
    let answer = daemon.tmem(&["status"])?;
    ensure!(
        answer.code == Some(1) && answer.stderr.contains("no daemon answers"),
        "{:?}: {}",
        answer.code,
        answer.stderr
    );
    thread::sleep(Duration::from_secs(1));
    ensure!(daemon.worker().is_err(), "a worker after {DEATHS} deaths");
    send(keeper, libc::SIGHUP)?;
    daemon.wait_for_worker_after(0, BACK)?;
    ensure!(daemon.status()?["worker_deaths"] == DEATHS, "{:#}", daemon.status()?);
    succeed(tool("nbdcopy", &[&uri, &text(&back)])?)?;
    ensure!(fs::read(there)? == fs::read(back)?, "another image came back");
    ensure!(daemon.client("vm1", "checksum_errors")? == 0);
    let log = daemon.stop()?.join("\n");
    for said in [
        "it was killed by signal 11",
        "that is the 5th death in a minute",
        "Nothing is lost",
        &format!("send SIGHUP to process {keeper}"),
    ] {
        ensure!(log.contains(said), "no `{said}` in:\n{log}");
    }
    Ok(())
}
