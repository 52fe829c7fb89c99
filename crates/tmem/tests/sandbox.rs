//! A daemon that has confined itself: it serves as ever, and its process is what it said.
#![allow(clippy::expect_used)]

mod common;

use std::{fs, path::Path};

use common::{Daemon, eventually, nbd::Disk, run, send};

fn field(daemon: &Daemon, name: &str) -> String {
    let worker = daemon.status()["worker_pid"].as_u64().expect("pid");
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.expect("a field").trim().to_owned()
}

/// Another one goes on.
fn kill_worker(daemon: &Daemon) {
    let before = daemon.worker();
    send(before, libc::SIGKILL);
    let now = || serde_json::from_str(&daemon.run(&["status", "--json"]).try_ok()?).ok();
    eventually("another worker serves", || {
        now().is_some_and(|status: serde_json::Value| status["worker_pid"].as_u64() != Some(before.into()))
    });
}

fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn it_serves_as_ever_within_its_walls() {
    let (daemon, log) = Daemon::start_with_log(&["--pool-size", "64M"]);
    let said = daemon.status()["sandbox"].as_str().expect("it is confined").to_owned();
    assert!(said.contains("confined to its system calls"), "{said}");
    assert!(fs::read_to_string(log).expect("log").contains(&said));
    assert_eq!((field(&daemon, "Seccomp"), field(&daemon, "NoNewPrivs")), ("2".into(), "1".into()));
    daemon.add("vm1", "16M");
    let mut disk = Disk::add(&daemon, "vm2", "16M", &[]);
    let page: Vec<u8> = (0..4096u32).map(|byte| (byte * byte) as u8).collect();
    disk.write(3, &page).expect("room");
    assert_eq!(disk.read(3).expect("a page"), page);
    drop(disk);
    daemon.run(&["set", "poll-us=0"]).ok();
    daemon.run(&["disk", "rm", "vm1"]).ok();
    assert!(!Path::new(&daemon.path("vm1.sock")).exists());

    let privileged = (700..800).find(|port| {
        let address = format!("127.0.0.1:{port}");
        daemon.run(&["disk", "add", "vm3", "--size", "16M", "--nbd", &address]).try_ok().is_some()
    });
    assert_eq!(privileged.is_some(), is_root(), "ports below 1024 are root's");
}

#[test]
fn it_stays_as_it_is_where_that_is_asked_for() {
    let daemon = Daemon::start_with(&["--pool-size", "64M", "--sandbox", "off"]);
    assert!(daemon.status()["sandbox"].is_null());
    assert_eq!(field(&daemon, "Seccomp"), "0");
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    disk.write(3, &[7; 4096]).expect("room");
    assert_eq!(disk.read(3).expect("a page"), [7; 4096]);
}

#[test]
fn sockets_are_made_and_removed_anywhere() {
    let home = tempfile::tempdir().expect("directory");
    let socket = home.path().join("vm1.sock");
    let config = home.path().join("tmem.toml");
    let disk = |name: &str, socket: &Path| {
        format!("[[disk]]\nname = \"{name}\"\nsize = \"16M\"\nvhost-user = \"{}\"\n", socket.display())
    };
    fs::write(&config, disk("vm1", &socket)).expect("configuration");
    let mut daemon = Daemon::start_with(&["--config", config.to_str().expect("UTF-8")]);
    assert!(socket.exists());
    let elsewhere = tempfile::tempdir().expect("directory");
    let [another, third] = ["vm2.sock", "vm3.sock"].map(|name| elsewhere.path().join(name));
    for (name, socket) in [("vm2", &another), ("vm3", &third)] {
        let socket = socket.to_str().expect("UTF-8");
        daemon.run(&["disk", "add", name, "--size", "16M", "--vhost-user", socket]).ok();
    }
    let entries = || fs::read_dir(elsewhere.path()).expect("directory").count();
    assert_eq!(entries(), 2);
    // The next worker removes what this one has made.
    kill_worker(&daemon);
    daemon.run(&["disk", "rm", "vm3"]).ok();
    assert_eq!(entries(), 1);
    // Nobody else's file, even in the place of its own.
    fs::remove_file(&another).expect("its socket");
    fs::write(&another, "precious").expect("a file");
    daemon.run(&["disk", "rm", "vm2"]).ok();
    assert_eq!(fs::read(&another).expect("the file"), b"precious");
    let line = ["disk", "add", "vm2", "--size", "16M", "--vhost-user", another.to_str().expect("UTF-8")];
    daemon.run(&line).fails(1, &["vm2.sock", "no socket"]);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!socket.exists());
}

/// Its files and sockets are in a directory that is root's alone.
#[test]
fn root_becomes_the_user_that_was_asked_for() {
    if !is_root() {
        run(&["serve", "--sandbox", "on", "--user", "root"]).fails(1, &["root"]);
        return;
    }
    let home = tempfile::tempdir().expect("directory");
    let tier = home.path().join("tier");
    let tier = tier.to_str().expect("UTF-8");
    let flags = ["--pool-size", "64M", "--user", "nobody", "--tier", tier, "--tier-size", "64M"];
    let daemon = Daemon::start_with(&flags);
    let said = daemon.status()["sandbox"].as_str().expect("it is confined").to_owned();
    assert!(said.starts_with("user nobody, ") && said.ends_with("io_urings"), "{said}");
    assert!(field(&daemon, "Uid").split_whitespace().all(|id| id != "0"));
    assert_eq!(daemon.status()["tiers"][0]["state"], "ready");
    assert!(said.contains("capabilities: none"), "{said}");
    kill_worker(&daemon);
    assert_eq!(daemon.status()["tiers"][0]["state"], "ready");
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    disk.write(0, &[7; 4096]).expect("room");
    assert_eq!(disk.read(0).expect("a page"), [7; 4096]);
}

#[test]
fn a_user_that_makes_no_sense_is_said_at_once() {
    run(&["serve", "--user", "root", "--sandbox", "off"]).fails(2, &["user root", "--sandbox on"]);
    run(&["serve", "--user", "nobody-at-all", "--sandbox", "on"]).fails(1, &["nobody-at-all", "useradd"]);
    run(&["serve", "--sandbox", "perhaps"]).fails(2, &["perhaps", "on or off"]);
}
