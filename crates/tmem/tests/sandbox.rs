//! A daemon that has confined itself: it serves as ever, and its process is what it said.
#![allow(clippy::expect_used)]

mod common;

use std::{fs, path::Path};

use common::{Daemon, nbd::Disk, run};

fn field(daemon: &Daemon, name: &str) -> String {
    let worker = daemon.status()["worker_pid"].as_u64().expect("pid");
    let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.expect("a field").trim().to_owned()
}

fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn it_serves_as_ever_within_its_walls() {
    let (daemon, log) = Daemon::start_with_log(&["--pool-size", "64M", "--sandbox", "on"]);
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

    let elsewhere = tempfile::tempdir().expect("directory");
    let socket = elsewhere.path().join("vm3.sock");
    let line = ["disk", "add", "vm3", "--size", "16M", "--vhost-user", socket.to_str().expect("UTF-8")];
    if said.contains("Landlock") && !said.contains("no Landlock") {
        daemon.run(&line).fails(1, &["vm3.sock", "ermission denied"]);
    }
}

#[test]
fn sockets_of_configured_disks_are_in_reach() {
    let home = tempfile::tempdir().expect("directory");
    let socket = home.path().join("vm1.sock");
    let config = home.path().join("tmem.toml");
    let disk = |name: &str, socket: &Path| {
        format!("[[disk]]\nname = \"{name}\"\nsize = \"16M\"\nvhost-user = \"{}\"\n", socket.display())
    };
    fs::write(&config, format!("sandbox = true\n{}", disk("vm1", &socket))).expect("configuration");
    let mut daemon = Daemon::start_with(&["--config", config.to_str().expect("UTF-8")]);
    assert!(socket.exists());
    let another = home.path().join("vm2.sock");
    let another = another.to_str().expect("UTF-8");
    daemon.run(&["disk", "add", "vm2", "--size", "16M", "--vhost-user", another]).ok();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!socket.exists() && !Path::new(another).exists());
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
    let flags =
        ["--pool-size", "64M", "--sandbox", "on", "--user", "nobody", "--tier", tier, "--tier-size", "64M"];
    let daemon = Daemon::start_with(&flags);
    let said = daemon.status()["sandbox"].as_str().expect("it is confined").to_owned();
    assert!(said.starts_with("user nobody, ") && said.ends_with("io_urings"), "{said}");
    assert!(field(&daemon, "Uid").split_whitespace().all(|id| id != "0"));
    assert_eq!(daemon.status()["tiers"][0]["state"], "ready");
    if said.contains("no Landlock") {
        return;
    }
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    disk.write(0, &[7; 4096]).expect("room");
    assert_eq!(disk.read(0).expect("a page"), [7; 4096]);
}

#[test]
fn a_user_that_makes_no_sense_is_said_at_once() {
    run(&["serve", "--user", "root"]).fails(2, &["user root", "--sandbox on"]);
    run(&["serve", "--user", "nobody-at-all", "--sandbox", "on"]).fails(1, &["nobody-at-all", "useradd"]);
    run(&["serve", "--sandbox", "perhaps"]).fails(2, &["perhaps", "on or off"]);
}
