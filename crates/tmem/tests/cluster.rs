//! `tmem cluster` as an administrator uses it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed step is a failed test

mod common;

use std::{fs, net::TcpListener, path::Path, process::Command};

use common::{
    Daemon, eventually,
    nbd::{Disk, noise},
    send,
};

/// What a command printed, and how it ended.
fn tmem(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tmem"));
    let ran = command.args(arguments).current_dir(directory).output().expect("tmem");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (ran.status.code().expect("an exit code"), text(ran.stdout), text(ran.stderr))
}

fn done(directory: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = tmem(directory, arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

/// Exit code 1 and one line.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = tmem(directory, arguments);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn two_hosts_become_a_cluster_and_renew_their_certificates() {
    let home = tempfile::tempdir().expect("directory");
    let here = home.path();
    let said = done(here, &["cluster", "init", "--name", "host-a", "--dir", "a"]);
    assert!(said.contains("node host-a") && said.contains("tmem cluster invite NAME"), "{said}");
    let said = done(here, &["cluster", "invite", "host-b", "--dir", "a"]);
    assert!(said.contains("tmem cluster join host-b.tmem-invitation"), "{said}");
    let said = done(here, &["cluster", "join", "host-b.tmem-invitation", "--dir", "b"]);
    assert!(said.contains("node host-b") && said.contains("rm host-b.tmem-invitation"), "{said}");
    assert!(!here.join("b/ca-key.pem").exists());

    let certificate = |of: &str| fs::read(here.join(of).join("node.pem")).expect("certificate");
    let before = (certificate("a"), certificate("b"));
    fs::remove_file(here.join("host-b.tmem-invitation")).expect("removed, as it was said");
    done(here, &["cluster", "invite", "host-b", "--dir", "a"]);
    let said = done(here, &["cluster", "join", "--renew", "host-b.tmem-invitation", "--dir", "b"]);
    assert!(said.contains("731 days") && said.contains("tmem upgrade"), "{said}");
    done(here, &["cluster", "renew", "--dir", "a"]);
    assert!(certificate("a") != before.0 && certificate("b") != before.1);
}

#[test]
fn nothing_is_overwritten_and_errors_name_the_way_out() {
    let home = tempfile::tempdir().expect("directory");
    let here = home.path();
    assert!(refused(here, &["cluster", "invite", "host-b", "--dir", "a"]).contains("tmem cluster init"));
    done(here, &["cluster", "init", "--name", "host-a", "--dir", "a"]);
    let key = fs::read(here.join("a/ca-key.pem")).expect("key");
    assert!(
        refused(here, &["cluster", "init", "--name", "host-a", "--dir", "a"])
            .contains("in a cluster already")
    );
    assert_eq!(fs::read(here.join("a/ca-key.pem")).expect("key"), key);
    done(here, &["cluster", "invite", "host-b", "--dir", "a"]);
    assert!(refused(here, &["cluster", "invite", "host-b", "--dir", "a"]).contains("is not overwritten"));
    assert!(refused(here, &["cluster", "invite", "../b", "--dir", "a"]).contains("`../b` is no name"));
    assert!(refused(here, &["cluster", "join", "nothing", "--dir", "b"]).contains("nothing cannot be read"));
}

#[test]
fn without_a_name_a_node_is_called_as_its_host() {
    let home = tempfile::tempdir().expect("directory");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("name").trim().to_ascii_lowercase();
    let (code, said, error) = tmem(home.path(), &["cluster", "init", "--dir", "a"]);
    match code {
        0 => assert!(said.contains(&format!("its node {host} ")), "{said}"),
        // A host may have a name that no node can have.
        _ => assert!(error.contains(&format!("`{host}` is no name for a node")), "{error}"),
    }
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port").port()
}

#[test]
fn a_worker_that_cannot_be_in_the_cluster_serves_what_memory_has() {
    let home = tempfile::tempdir().expect("directory");
    let here = home.path();
    let (directory, moved) = (here.join("a"), here.join("moved"));
    done(here, &["cluster", "init", "--name", "host-a", "--dir", "a"]);
    let config = here.join("tmem.toml");
    let (own, others) = (free_port(), free_port());
    fs::write(
        &config,
        format!(
            "pool-size = \"64M\"\n[cluster]\nlisten = \"127.0.0.1:{own}\"\ndirectory = \"{}\"\npeers = [\"host-b=127.0.0.1:{others}\"]\n",
            directory.display()
        ),
    )
    .expect("configuration");
    let (daemon, log) = Daemon::start_with_log(&["--config", config.to_str().expect("text")]);
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    (0..100).for_each(|page| disk.write(page, &noise(page)).expect("write"));
    assert_eq!(daemon.status()["cluster"]["node"], "host-a", "{}", daemon.status()["cluster"]);
    let before = daemon.worker();
    fs::rename(&directory, &moved).expect("moved away");
    send(before, libc::SIGKILL);
    eventually("the next one serves", || {
        let status = daemon.run(&["status", "--json"]).try_ok();
        status.is_some_and(|status| !status.contains(&format!("\"worker_pid\":{before},")))
    });
    let text = fs::read_to_string(&log).expect("log");
    assert!(
        text.contains("goes on without the cluster, and what is at peers alone cannot be read"),
        "{text}"
    );
    assert!(daemon.status()["cluster"].is_null());
    let mut disk = Disk::connect(&daemon, "vm1");
    for page in 0..100 {
        assert_eq!(disk.read(page).expect("read"), noise(page));
    }
    // As soon as it can, the next one is in the cluster again.
    fs::rename(&moved, &directory).expect("moved back");
    daemon.run(&["upgrade"]).ok();
    assert_eq!(daemon.status()["cluster"]["node"], "host-a");
}
