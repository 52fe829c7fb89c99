//! `tmem disk` and `tmem guest-config`, and every way to ask for a disk that cannot be.

mod common;

use std::{
    fs,
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
};

use common::{Daemon, Ran, eventually, tmem};
use serde_json::Value;

#[test]
fn a_disk_comes_shows_and_goes() {
    let daemon = Daemon::start();
    assert!(daemon.run(&["disk", "ls"]).ok().contains("tmem disk add"));
    let socket = daemon.add("vm1", "1G");
    assert!(fs::metadata(&socket).expect("socket").file_type().is_socket());

    let table = daemon.run(&["disk", "ls"]).ok();
    let [heading, row] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    assert!(heading.starts_with("NAME"), "{table}");
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        (cells[0], cells[1], cells[2], cells[cells.len() - 1]),
        ("vm1", "1G", "none", socket.as_str())
    );

    let list: Value = serde_json::from_str(&daemon.run(&["disk", "ls", "--json"]).ok()).expect("JSON");
    let disk = &list["disks"][0];
    assert_eq!((disk["name"].as_str(), disk["size_bytes"].as_u64()), (Some("vm1"), Some(1 << 30)));
    assert_eq!(
        (disk["transport"].as_str(), disk["connected"].as_bool()),
        (Some("vhost-user-blk"), Some(false))
    );
    assert_eq!((disk["format"].as_str(), disk["queues"].as_u64()), (Some("swap"), Some(4)));
    assert_eq!(disk["cap_bytes"], Value::Null);

    assert_eq!(daemon.run(&["disk", "rm", "vm1"]).ok(), "");
    assert!(!fs::exists(&socket).expect("look"));
    let status = daemon.status();
    assert_eq!(status["clients"].as_array().map(Vec::len), Some(0));
    assert_eq!(status["pool"]["used_bytes"], 0);
    daemon.add("vm1", "1G");
}

#[test]
fn relative_socket_paths_are_the_callers() {
    let daemon = Daemon::start();
    let here = tempfile::tempdir().expect("directory");
    let line = ["disk", "add", "vm1", "--size", "2M", "--vhost-user", "here.sock", "--runtime-dir"];
    Ran::new(tmem(&line).arg(&daemon.dir).current_dir(here.path())).ok();
    let expected = here.path().join("here.sock");
    assert!(expected.exists());
    assert_eq!(daemon.status()["clients"][0]["disk"]["socket"].as_str(), expected.to_str());
}

#[test]
fn every_disk_that_cannot_be_is_refused_and_nothing_changes() {
    let daemon = Daemon::start();
    let taken = daemon.add("vm1", "16M");
    let file = daemon.path("file");
    fs::write(&file, "precious").expect("write");
    let foreign = daemon.path("foreign.sock");
    let _listener = UnixListener::bind(&foreign).expect("bind");
    let free = daemon.path("free.sock");
    let missing = daemon.path("missing/dir/vm.sock");
    let long = daemon.path(&"x".repeat(120));
    let name_64 = "x".repeat(64);
    let before = daemon.state();

    for (name, size, socket, code, mentions) in [
        // names
        ("vm1", "16M", free.as_str(), 1, &["vm1", "tmem disk rm vm1"][..]),
        ("a b", "16M", &free, 2, &["`a b`"]),
        ("../x", "16M", &free, 2, &["`../x`"]),
        (&name_64, "16M", &free, 2, &["63"]),
        // sizes
        ("vm2", "0", &free, 2, &["vm2", "1M"]),
        ("vm2", "4K", &free, 2, &["vm2", "1M"]),
        ("vm2", "-4G", &free, 2, &["-4G", "--size"]),
        ("vm2", "4X", &free, 2, &["4X", "--size", "tmem disk add --help"]),
        ("vm2", "1.5G", &free, 2, &["1536M"]),
        ("vm2", "1048577", &free, 2, &["vm2", "4K", "1M would be"]),
        ("vm2", "15E", &free, 1, &["vm2"]),
        ("vm2", "16E", &free, 2, &["16E"]),
        // sockets
        ("vm2", "16M", &taken, 1, &["vm2", &taken, "belongs to disk vm1"]),
        ("vm2", "16M", &file, 1, &["vm2", &file]),
        ("vm2", "16M", &foreign, 1, &["vm2", &foreign]),
        ("vm2", "16M", &missing, 1, &["vm2", "missing/dir"]),
        ("vm2", "16M", &long, 2, &["vm2", "shorter"]),
    ] {
        daemon.run(&["disk", "add", name, "--size", size, "--vhost-user", socket]).fails(code, mentions);
        assert_eq!(daemon.state(), before, "after {name} {size} {socket}");
    }
    for (extra, code, mentions) in [
        (&["--queues", "0"][..], 2, &["queues"][..]),
        (&["--queues", "65"], 1, &["vm2", "queues"]),
        (&["--queues", "70000"], 2, &["--queues"]),
        (&["--cap", "0"], 2, &["cap"]),
        (&["--format", "ext4"], 2, &["ext4", "swap"]),
        (&["--cap", "2T"], 2, &["vm2", "1024 GiB"]),
        (&["--weight", "0"], 2, &["--weight", "1 to 10000"]),
        (&["--weight", "-3"], 2, &["--weight", "-3"]),
        (&["--priority", "3"], 2, &["--priority", "tmem disk add --help"]),
        (&["--nbd", "x"], 2, &["--nbd"]),
    ] {
        let mut line = vec!["disk", "add", "vm2", "--size", "16M", "--vhost-user", &free];
        line.extend(extra);
        daemon.run(&line).fails(code, mentions);
        assert_eq!(daemon.state(), before, "after {extra:?}");
    }
    daemon.run(&["disk", "add", "vm2"]).fails(2, &["--size", "--vhost-user"]);
    daemon.run(&["disk", "rm", "vm9"]).fails(1, &["vm9", "tmem disk ls"]);
    daemon.run(&["guest-config", "vm9", "--vmm", "qemu"]).fails(1, &["vm9", "tmem disk ls"]);

    assert_eq!(daemon.state(), before);
    assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
    UnixStream::connect(&foreign).expect("still listening");
    assert!(!fs::exists(&free).expect("look"), "no refused disk left a socket");
    // What was refused did not use up the name or the socket.
    daemon.run(&["disk", "add", "vm2", "--size", "16M", "--vhost-user", &free]).ok();
}

#[test]
fn a_disk_in_use_is_only_removed_by_force() {
    let daemon = Daemon::start();
    let socket = daemon.add("vm1", "16M");
    let guest = UnixStream::connect(&socket).expect("connect");
    eventually("the guest shows", || daemon.status()["clients"][0]["disk"]["connected"] == true);
    assert!(daemon.run(&["disk", "ls"]).ok().contains("connected"));
    let before = daemon.state();
    daemon.run(&["disk", "rm", "vm1"]).fails(1, &["vm1", "guest is connected", "--force"]);
    assert_eq!(daemon.state(), before);
    daemon.run(&["disk", "rm", "vm1", "--force"]).ok();
    assert_eq!(daemon.status()["clients"].as_array().map(Vec::len), Some(0));
    assert!(!fs::exists(&socket).expect("look"));
    drop(guest);
}

#[test]
fn a_guest_that_has_left_is_not_in_the_way() {
    let daemon = Daemon::start();
    let socket = daemon.add("vm1", "16M");
    let guest = UnixStream::connect(&socket).expect("connect");
    eventually("the guest shows", || daemon.status()["clients"][0]["disk"]["connected"] == true);
    drop(guest);
    eventually("the guest is gone", || daemon.status()["clients"][0]["disk"]["connected"] == false);
    daemon.run(&["disk", "rm", "vm1"]).ok();
}

#[test]
fn one_of_many_who_want_the_same_name_gets_it() {
    let daemon = Daemon::start();
    let lines: Vec<_> = (0..8).map(|i| daemon.path(&format!("{i}.sock"))).collect();
    let children: Vec<_> = lines
        .iter()
        .map(|socket| {
            let line = ["disk", "add", "vm1", "--size", "2M", "--vhost-user", socket, "--runtime-dir"];
            tmem(&line).arg(&daemon.dir).stderr(std::process::Stdio::piped()).spawn().expect("spawn")
        })
        .collect();
    let codes: Vec<_> = children.into_iter().map(|mut c| c.wait().expect("wait").code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(1)).count(), 7, "{codes:?}");
    assert_eq!(daemon.status()["clients"].as_array().map(Vec::len), Some(1));
    assert_eq!(lines.iter().filter(|socket| fs::exists(socket).expect("look")).count(), 1);
}

#[test]
fn guest_config_names_the_disks_socket() {
    let daemon = Daemon::start();
    let socket = daemon.add("vm1", "16M");
    for vmm in ["qemu", "libvirt", "cloud-hypervisor", "firecracker", "uml"] {
        let text = daemon.run(&["guest-config", "vm1", "--vmm", vmm]).ok();
        assert!(text.contains(&socket) && text.contains("LABEL=tmem none swap"), "{vmm}: {text}");
    }
    let arguments =
        daemon.run(&["guest-config", "vm1", "--vmm", "uml", "--memory", "192M", "--args-only"]).ok();
    assert_eq!(arguments, format!("mem=192M\nvirtio_uml.device={socket}:2\n"));
    let arguments =
        daemon.run(&["guest-config", "vm1", "--vmm", "qemu", "--memory", "256M", "--args-only"]).ok();
    assert!(
        arguments.starts_with("-m\n256M\n-object\nmemory-backend-memfd,id=mem,size=256M,share=on\n"),
        "{arguments}"
    );
    daemon.run(&["guest-config", "vm1", "--vmm", "libvirt", "--args-only"]).fails(2, &["--args-only"]);
    daemon.run(&["guest-config", "vm1", "--vmm", "vmware"]).fails(2, &["vmware", "firecracker"]);
    daemon.run(&["guest-config", "vm1", "--vmm", "qemu", "--memory", "5000"]).fails(2, &["--memory", "512M"]);
}
