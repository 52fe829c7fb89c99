//! Disks on ublk, from the command line's side, on a machine whose kernel has no ublk. What a kernel that has it makes of them is tested in
//! guests.

mod common;

use std::path::Path;

use common::Daemon;

#[test]
fn without_the_driver_the_way_out_is_told_and_nothing_is_left() {
    if Path::new("/dev/ublk-control").exists() {
        return;
    }
    let daemon = Daemon::start();
    let add =
        |more: &[&str]| daemon.run(&[&["disk", "add", "swap0", "--size", "16M", "--ublk"], more].concat());
    add(&[]).fails(
        1,
        &[
            "disk swap0",
            "/dev/ublk-control",
            "modprobe ublk_drv",
            "Linux 6.0",
            "CONFIG_BLK_DEV_UBLK",
            "--nbd",
        ],
    );
    assert!(daemon.status()["clients"].as_array().is_some_and(Vec::is_empty));
    let (status, answer) =
        daemon.admin("POST /api/v1/disks", r#"{"name":"swap0","size_bytes":1048576,"ublk":true}"#);
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("modprobe ublk_drv"), "{answer}");
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let daemon = Daemon::start();
    let add =
        |more: &[&str]| daemon.run(&[&["disk", "add", "swap0", "--size", "16M", "--ublk"], more].concat());
    add(&["--queues", "0"]).fails(2, &["queues 0"]);
    add(&["--dedup", "tenant"]).fails(2, &["dedup tenant", "leave dedup out"]);
    add(&["--nbd", "127.0.0.1:0"]).fails(2, &["--ublk", "--nbd"]);
    add(&["--vhost-user", "/s"]).fails(2, &["--ublk", "--vhost-user"]);
}

#[test]
fn guest_config_tells_disks_of_guests_from_those_of_the_host() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    daemon.run(&["guest-config", "vm1", "--vmm", "host"]).fails(1, &["disk vm1", "--ublk"]);
    let socket = daemon.path("nbd.sock");
    daemon.run(&["disk", "add", "vm2", "--size", "16M", "--nbd", &socket]).ok();
    daemon.run(&["guest-config", "vm2", "--vmm", "host"]).fails(1, &["disk vm2", "--ublk"]);
}
