//! `tmem balance` as a process, with cgroups that are plain files: what it tells them, what it tells people, and what it does when something is wrong. Real
//! guests are in `tests/`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use common::{Daemon, Killed, Ran, eventually, run, send, tmem};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Cgroups that do as they are told at once, of which one never has enough.
struct Cgroups {
    home: tempfile::TempDir,
    ends: Arc<AtomicBool>,
    kernel: Option<JoinHandle<()>>,
}

impl Cgroups {
    /// `idle` has 400 MiB and wants nothing, `busy` has 100 and swaps in all the time.
    fn new() -> Cgroups {
        let home = tempfile::tempdir().unwrap();
        for (name, mib) in [("idle", 400), ("busy", 100)] {
            let cgroup = home.path().join(name);
            fs::create_dir(&cgroup).unwrap();
            let write = |file: &str, text: String| fs::write(cgroup.join(file), text).unwrap();
            write("memory.current", format!("{}\n", mib * MIB));
            write("memory.high", "max\n".to_owned());
            write("memory.max", format!("{}\n", 1024 * MIB));
            write("memory.stat", "inactive_file 0\npswpin 0\n".to_owned());
        }
        let ends = Arc::<AtomicBool>::default();
        let (folder, stop) = (home.path().to_owned(), ends.clone());
        let kernel = thread::spawn(move || {
            for round in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                replace(
                    &folder.join("busy/memory.stat"),
                    &format!("inactive_file 0\npswpin {}\n", round * 20),
                );
                for name in ["idle", "busy"] {
                    obey(&folder.join(name));
                }
                sleep(Duration::from_millis(20));
            }
        });
        Cgroups { home, ends, kernel: Some(kernel) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Its limit, in MiB.
    fn high_mib(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path(name).join("memory.high")).unwrap();
        text.trim().parse::<u64>().ok().map(|bytes| bytes / MIB)
    }

    /// A flag that names it.
    fn flag(&self, name: &str) -> String {
        format!("{name}={}", self.path(name).display())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.kernel.take().map(JoinHandle::join);
    }
}

/// Readers see the text before or the text after.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).unwrap();
}

/// What is used comes down to the limit.
fn obey(cgroup: &Path) {
    let bytes = |file: &str| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse::<u64>().ok();
    if let (Some(high), Some(current)) = (bytes("memory.high"), bytes("memory.current"))
        && current > high
    {
        replace(&cgroup.join("memory.current"), &format!("{high}\n"));
    }
}

/// A balancer of both, and one more guest that is not there. What it says goes to a file in the cgroups' home.
fn start(cgroups: &Cgroups, runtime_dir: &Path, more: &[&str]) -> Killed {
    let log = fs::File::create(cgroups.path("balancer.log")).unwrap();
    Killed(Some(command(cgroups, runtime_dir, more).stderr(log).stdout(Stdio::null()).spawn().unwrap()))
}

fn command(cgroups: &Cgroups, runtime_dir: &Path, more: &[&str]) -> Command {
    let mut command = tmem(&["balance", "--interval", "1", "--budget", "500M", "--floor", "idle=64M"]);
    for name in ["idle", "busy"] {
        command.args(["--cgroup", &cgroups.flag(name)]);
    }
    command.arg("--runtime-dir").arg(runtime_dir).args(more);
    command
}

fn ends_well(balancer: &mut Killed) {
    let child: &mut Child = balancer.0.as_mut().unwrap();
    let mut status = None;
    eventually("the balancer ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{status:?}");
}

fn guest(status: &Value, name: &str) -> Value {
    let guests = status["balance"]["guests"].as_array().expect("guests");
    guests.iter().find(|guest| guest["name"] == name).expect(name).clone()
}

#[test]
fn memory_goes_from_the_idle_to_the_busy_and_everybody_can_see_why() {
    let (daemon, cgroups) = (Daemon::start(), Cgroups::new());
    let (log, trace) = (cgroups.path("decisions.jsonl"), cgroups.path("trace.jsonl"));
    let files =
        ["--log", log.to_str().unwrap(), "--trace", trace.to_str().unwrap(), "--qmp", "gone=/nowhere/qmp"];
    let mut balancer = start(&cgroups, &daemon.dir, &files);
    eventually("memory has moved", || {
        let given = cgroups.high_mib("idle").is_some_and(|mib| mib <= 300);
        given && cgroups.high_mib("busy").is_some_and(|mib| mib >= 150)
    });
    let status = daemon.status();
    let sizes = ["idle", "busy"].map(|name| guest(&status, name)["size_bytes"].as_u64().unwrap());
    assert!(sizes.iter().sum::<u64>() <= 500 * MIB, "{sizes:?}");
    let gone = guest(&status, "gone");
    assert_eq!((&gone["answers"], &gone["size_bytes"]), (&false.into(), &0.into()));
    assert!(gone["trouble"].as_str().unwrap().contains("/nowhere/qmp"), "{gone}");

    let text = daemon.run(&["balance", "status"]).ok();
    assert!(text.contains("policy reuse") && text.contains("gives to who gains more by it"), "{text}");
    let shown: Value = serde_json::from_str(&daemon.run(&["balance", "status", "--json"]).ok()).unwrap();
    assert_eq!(shown["pid"], balancer.0.as_ref().unwrap().id());

    daemon.run(&["balance", "stop"]).ok();
    ends_well(&mut balancer);
    assert_eq!(daemon.status()["balance"], Value::Null);
    daemon.run(&["balance", "stop"]).fails(1, &["no balancer", "tmem balance start"]);

    let decisions = fs::read_to_string(log).unwrap();
    let first: Value = serde_json::from_str(decisions.lines().next().unwrap()).unwrap();
    assert_eq!(first["guest"], "idle", "{first}");
    let table = run(&["balance", "replay", trace.to_str().unwrap()]).ok();
    let line = |policy: &str| table.lines().find(|line| line.starts_with(policy)).unwrap_or_default();
    assert!(line("reuse").contains("500M") && line("static").contains(" 0 "), "{table}");
    let lines = run(&["balance", "replay", trace.to_str().unwrap(), "--policy", "reuse"]).ok();
    assert!(lines.contains("idle: 400M -> "), "{lines}");
    let said = fs::read_to_string(cgroups.path("balancer.log")).unwrap();
    assert!(said.contains("guest gone: /nowhere/qmp cannot be reached"), "{said}");
}

#[test]
fn people_change_limits_and_have_it_only_say_what_it_would_do() {
    let (daemon, cgroups) = (Daemon::start(), Cgroups::new());
    let mut balancer = start(&cgroups, &daemon.dir, &["--dry-run"]);
    let decided = || !daemon.status()["balance"]["decisions"].as_array().is_none_or(Vec::is_empty);
    eventually("it has decided", decided);
    assert_eq!((cgroups.high_mib("idle"), cgroups.high_mib("busy")), (None, None), "a dry run");
    daemon.run(&["balance", "limit", "idle", "--floor", "350M", "--weight", "50"]).ok();
    let idle = guest(&daemon.status(), "idle");
    assert_eq!((&idle["floor_bytes"], &idle["weight"]), (&(350 * MIB).into(), &50.into()));
    daemon.run(&["balance", "limit", "who", "--floor", "1M"]).fails(1, &["no guest who"]);
    daemon.run(&["balance", "limit", "idle", "--ceiling", "1M"]).fails(1, &["idle", "ceiling"]);
    daemon.run(&["balance", "limit", "idle", "--weight", "0"]).fails(1, &["1 to 10000"]);
    daemon.run(&["balance", "dry-run", "off"]).ok();
    assert_eq!(daemon.status()["balance"]["dry_run"], false);
    eventually("it has given what it may", || cgroups.high_mib("idle").is_some_and(|mib| mib <= 352));
    sleep(Duration::from_secs(3));
    assert!(cgroups.high_mib("idle").is_some_and(|mib| mib >= 350), "below its floor");
    // Its ceiling is more than there is: it gets what is left of the budget.
    daemon.run(&["balance", "stop", "--restore"]).ok();
    ends_well(&mut balancer);
    let sum = cgroups.high_mib("idle").unwrap() + cgroups.high_mib("busy").unwrap_or(100);
    assert!((495..=500).contains(&sum), "{sum}");
}

#[test]
fn one_daemon_has_one_balancer_which_outlives_the_process_that_serves() {
    let (daemon, cgroups) = (Daemon::start(), Cgroups::new());
    let mut balancer = start(&cgroups, &daemon.dir, &[]);
    let reports =
        || daemon.run(&["status", "--json"]).try_ok().is_some_and(|text| text.contains("\"guests\""));
    eventually("it reports", reports);
    Ran::new(&mut command(&cgroups, &daemon.dir, &["--log-level", "error"]))
        .fails(1, &["already", "tmem balance stop"]);
    send(daemon.worker(), libc::SIGKILL);
    eventually("it reports to the next one", reports);
    drop(balancer); // kill -9
    balancer = start(&cgroups, &daemon.dir, &[]);
    let pid = Value::from(balancer.0.as_ref().unwrap().id());
    eventually("another one is let in", || daemon.status()["balance"]["pid"] == pid);
    send(balancer.0.as_ref().unwrap().id(), libc::SIGTERM);
    ends_well(&mut balancer);
    assert_eq!(daemon.status()["balance"], Value::Null, "it has said so");
}

#[test]
fn cgroups_alone_need_no_daemon() {
    let cgroups = Cgroups::new();
    let nowhere = cgroups.path("nowhere");
    let mut balancer = start(&cgroups, &nowhere, &[]);
    eventually("memory has moved", || cgroups.high_mib("busy").is_some_and(|mib| mib >= 110));
    send(balancer.0.as_ref().unwrap().id(), libc::SIGINT);
    ends_well(&mut balancer);
    let qemu = ["--qmp", "vm=/nowhere/qmp", "--log-level", "error"];
    Ran::new(&mut command(&cgroups, &nowhere, &qemu)).fails(1, &["no daemon", "tmem serve"]);
}
