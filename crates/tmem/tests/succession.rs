//! One worker after another, as an operator brings it about.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt};

use common::{Daemon, eventually, send};

fn worker_after(daemon: &Daemon, before: u32) -> u32 {
    let mut now = before;
    eventually("another worker serves", || {
        let status = daemon.run(&["status", "--json"]).try_ok();
        let status: Option<serde_json::Value> = status.and_then(|text| serde_json::from_str(&text).ok());
        now = status.and_then(|status| status["worker_pid"].as_u64()).map_or(before, |pid| pid as u32);
        now != before
    });
    now
}

#[test]
fn knobs_disks_and_clients_settings_outlive_the_worker() {
    let daemon = Daemon::start();
    daemon.add("vm1", "64M");
    daemon.run(&["disk", "add", "vm2", "--size", "32M", "--nbd", "127.0.0.1:0", "--weight", "7"]).ok();
    daemon.run(&["set", "poll-us=77", "vm1.cap=9M", "background-cpu=33"]).ok();
    daemon.run(&["freeze", "vm2"]).ok();
    let (knobs, disks, before) =
        (daemon.run(&["get"]).ok(), daemon.run(&["disk", "ls"]).ok(), daemon.worker());
    assert_eq!(daemon.status()["worker_deaths"], 0);
    send(before, libc::SIGKILL);
    worker_after(&daemon, before);
    assert_eq!(daemon.run(&["get"]).ok(), knobs);
    assert_eq!(daemon.run(&["disk", "ls"]).ok(), disks, "the port that the OS chose, too");
    let status = daemon.status();
    assert_eq!((&status["worker_deaths"], &status["clients"][1]["frozen"]), (&1.into(), &true.into()));
    daemon.run(&["disk", "rm", "vm1"]).ok();
    let before = daemon.worker();
    send(before, libc::SIGKILL);
    worker_after(&daemon, before);
    assert!(!daemon.run(&["disk", "ls"]).ok().contains("vm1"), "what was removed does not come back");
}

#[test]
fn an_upgrade_puts_the_program_on_disk_in_the_place_of_the_running_one() {
    let daemon = Daemon::start();
    daemon.add("vm1", "64M");
    let before = daemon.worker();
    let said = daemon.run(&["upgrade"]).ok();
    let now = daemon.worker();
    assert!(before != now && said.contains(&format!("worker {now} has taken over from {before}")), "{said}");
    assert_eq!(daemon.status()["worker_deaths"], 0, "one that made way has not died");
    // The same as `systemctl reload` does.
    daemon.signal(libc::SIGHUP);
    worker_after(&daemon, now);
    assert!(daemon.run(&["disk", "ls"]).ok().contains("vm1"));
}

/// The daemon from a copy of the program, in whose place another can be put.
#[test]
fn a_program_that_cannot_take_over_leaves_the_running_one_alone() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("tmem");
    fs::copy(env!("CARGO_BIN_EXE_tmem"), &program).unwrap();
    let (daemon, log) = Daemon::start_program(&program, &["--pool-size", "64M"]);
    daemon.add("vm1", "64M");
    let before = daemon.worker();
    for (name, wrong) in [("fails", "/bin/false"), ("is none", "/etc/passwd")] {
        let other = home.path().join("other");
        fs::copy(wrong, &other).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&other, &program).unwrap();
        daemon.run(&["upgrade"]).fails(1, &["did not take over", "log"]);
        assert_eq!(daemon.worker(), before, "{name}");
    }
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("did not take over: it exited with 1"), "{log}");
    // One that dies is followed by one of its own version, not by what is on disk.
    send(before, libc::SIGKILL);
    worker_after(&daemon, before);
}

#[test]
fn a_worker_that_hangs_is_found_out_killed_and_replaced() {
    let (daemon, log) = Daemon::start_with_log(&["--pool-size", "64M", "--watchdog", "1"]);
    daemon.add("vm1", "64M");
    let before = daemon.worker();
    send(before, libc::SIGSTOP);
    worker_after(&daemon, before);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains(&format!("worker {before} was silent for 1s: it hangs and is killed")), "{text}");
    assert!(text.contains("vhost-vm1 is in state T"), "its threads are named: {text}");
}

/// What a worker says where its threads are.
#[test]
fn a_worker_says_what_its_threads_are_at_when_it_is_asked() {
    let (daemon, log) = Daemon::start_with_log(&["--pool-size", "64M"]);
    daemon.add("vm1", "64M");
    send(daemon.worker(), libc::SIGUSR1);
    eventually("all threads have said where they are", || {
        let text = fs::read_to_string(&log).unwrap();
        ["vhost-vm1", "heartbeat", "maintenance"]
            .iter()
            .all(|name| text.contains(&format!(" {name} is at\n")))
    });
    assert!(fs::read_to_string(&log).unwrap().contains("tmem_vhost::frontend"), "with names of functions");
    daemon.add("vm2", "64M");
}
