//! Settings changed while a real daemon runs.
#![allow(clippy::expect_used)] // a failed step is a failed test

mod common;

use common::{
    Daemon, eventually,
    nbd::{Disk, noise},
};
use serde_json::Value;

#[test]
fn knobs_are_listed_and_changed() {
    let daemon = Daemon::start();
    let text = daemon.run(&["get"]).ok();
    for word in ["pool-size", "poll-us", "recompress-age", "1 to 86400", "EFFECT"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(daemon.run(&["get", "recompress-age"]).ok(), "60\n");
    assert_eq!(
        daemon.run(&["set", "recompress-age=5", "poll-us=0", "pool-size=32M", "recompress=off"]).ok(),
        ""
    );
    assert_eq!(daemon.run(&["get", "recompress-age"]).ok(), "5\n");
    assert_eq!(daemon.run(&["get", "poll-us"]).ok(), "0\n");
    assert_eq!(daemon.run(&["get", "recompress"]).ok(), "off\n");
    assert_eq!(daemon.status()["pool"]["limit_bytes"], 32 << 20);
    let json: Value = serde_json::from_str(&daemon.run(&["get", "--json"]).ok()).expect("JSON");
    assert_eq!(json["knobs"][0]["name"], "pool-size");
    assert_eq!(json["knobs"][0]["default"], "auto");
}

#[test]
fn a_wrong_value_changes_nothing() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let before = daemon.run(&["get"]).ok();
    for (wrong, mentions) in [
        ("poll-us=1000001", "0 to 1000000"),
        ("recompress-level=20", "1 to 19"),
        ("background-cpu=0", "1 to 100"),
        ("log-level=loud", "trace"),
        ("pool-size=4K", "1M"),
        ("pool-size=1024T", "memory"),
        ("reserve=64T", "reserve"),
        ("pol-us=1", "poll-us"),
        ("pol-us=1", "CLIENT.cap"),
        ("vm1.cap=0", "none to lift it"),
        ("vm1.cap=2T", "1024 GiB"),
        ("vm1.cap=1.5G", "1536M"),
        ("vm1.cop=1M", "vm1.cop"),
        ("vm1.weight=0", "1 to 10000"),
        ("vm1.weight=much", "much"),
        ("poll-us", "KNOB=VALUE"),
        ("recompress-age=9", "twice"),
        ("vm1.cap=9M", "twice"),
    ] {
        let name = |change: &'static str| change.split('=').next();
        let right = ["recompress-age=7", "vm1.cap=8M", "pool-size=32M"];
        let right = right.into_iter().filter(|right| mentions == "twice" || name(right) != name(wrong));
        let line: Vec<_> = ["set"].into_iter().chain(right).chain([wrong]).collect();
        daemon.run(&line).fails(2, &[mentions]);
        assert_eq!(daemon.run(&["get"]).ok(), before, "{wrong}");
    }
    daemon.run(&["set", "recompress-age=7", "vm9.cap=8M"]).fails(1, &["client vm9", "tmem status"]);
    assert_eq!(daemon.run(&["get"]).ok(), before);
    daemon.run(&["get", "nonsense"]).fails(2, &["nonsense"]);
    assert_eq!(daemon.status()["pool"]["limit_bytes"], 64 << 20);
}

#[test]
fn a_pool_begins_and_ends_to_size_itself() {
    let daemon = Daemon::start();
    let limit = || daemon.status()["pool"]["limit_bytes"].as_u64().expect("limit");
    daemon.run(&["set", "pool-size=auto"]).ok();
    eventually("a pool that takes what the host can spare", || limit() > 64 << 20);
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let kib: u64 = meminfo.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("MemTotal");
    daemon.run(&["set", &format!("reserve={}", kib * 1024 - 4096)]).ok();
    eventually("a pool that leaves all to the host", || limit() == 1 << 20);
    daemon.run(&["set", "pool-size=32M", "reserve=auto"]).ok();
    assert_eq!(limit(), 32 << 20);
}

#[test]
fn only_the_admin_socket_takes_changes() {
    let daemon = Daemon::start();
    assert_eq!(daemon.http("PATCH /api/v1/knobs").0, 404);
    assert_eq!(daemon.admin("PATCH /api/v1/knobs", r#"{"knobs": {"poll-us": "7"}}"#).0, 200);
    assert_eq!(daemon.run(&["get", "poll-us"]).ok(), "7\n");
    for body in ["", r#"{"knob": {}}"#, r#"{"knobs": {"poll-us": 7}}"#] {
        assert_eq!(daemon.admin("PATCH /api/v1/knobs", body).0, 400, "{body}");
    }
}

#[test]
fn a_cap_is_changed_while_its_client_has_pages() {
    let daemon = Daemon::start();
    let mut disk = Disk::add(&daemon, "vm.1", "16M", &["--cap", "8M"]);
    Disk::add(&daemon, "vm2", "16M", &[]);
    for (name, cap) in [("vm.1.cap", "8M"), ("vm2.cap", "none")] {
        assert_eq!(daemon.run(&["get", name]).ok(), format!("{cap}\n"));
        assert!(daemon.run(&["get"]).ok().contains(name));
    }
    for page in 1..300 {
        disk.write(page, &noise(page)).expect("write");
    }
    daemon.run(&["set", "vm.1.cap=1M", "poll-us=7"]).ok();
    assert_eq!(daemon.run(&["get", "vm.1.cap"]).ok(), "1M\n");
    assert_eq!(daemon.status()["clients"][0]["cap_bytes"], 1 << 20);
    let disks: Value = serde_json::from_str(&daemon.admin("GET /api/v1/disks", "").1).expect("JSON");
    assert_eq!(disks["disks"][0]["cap_bytes"], 1 << 20);
    assert!(disk.write(300, &noise(300)).is_err());
    for page in 1..300 {
        assert!(disk.read(page).expect("a stored page stays") == noise(page), "page {page}");
    }
    daemon.run(&["set", "vm.1.cap=none"]).ok();
    disk.write(300, &noise(300)).expect("write");
    assert_eq!(daemon.run(&["get", "vm.1.cap"]).ok(), "none\n");
}

#[test]
fn a_noisy_disk_leaves_the_last_of_the_pool_to_one_below_its_share() {
    let daemon = Daemon::start_with(&["--pool-size", "32M"]);
    let mut noisy = Disk::add(&daemon, "noisy", "64M", &["--weight", "300"]);
    let mut quiet = Disk::add(&daemon, "quiet", "64M", &[]);
    let shares = || {
        let status = daemon.status();
        [0, 1].map(|i| status["clients"][i]["share_bytes"].as_u64().expect("share") >> 20)
    };
    assert_eq!(shares(), [24, 8]);
    daemon.run(&["set", "noisy.weight=100"]).ok();
    assert_eq!(shares(), [16, 16]);
    assert_eq!(daemon.run(&["get", "noisy.weight"]).ok(), "100\n");
    let disks: Value = serde_json::from_str(&daemon.admin("GET /api/v1/disks", "").1).expect("JSON");
    assert_eq!(disks["disks"][0]["weight"], 100);
    let stored = (1..9000).filter(|page| noisy.write(*page, &noise(*page)).is_ok()).count();
    assert!((6000..7700).contains(&stored), "{stored} pages of 32 MiB");
    for page in 1..300 {
        quiet.write(page, &noise(page)).expect("the headroom is the quiet one's");
    }
    assert!(noisy.write(9000, &noise(9000)).is_err());
    // With enough weight it is not over its share any more.
    daemon.run(&["set", "noisy.weight=10000", "quiet.weight=1"]).ok();
    noisy.write(9000, &noise(9000)).expect("write");
}
