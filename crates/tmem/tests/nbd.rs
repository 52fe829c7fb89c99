//! Disks over NBD, from the command line's side: how they are asked for, shown and refused.

mod common;

use std::{
    fs,
    io::Read,
    net::TcpStream,
    os::unix::{fs::MetadataExt, net::UnixStream},
};

use common::{Daemon, eventually, run};
use serde_json::Value;

fn add(daemon: &Daemon, name: &str, place: &str) {
    assert_eq!(daemon.run(&["disk", "add", name, "--size", "16M", "--nbd", place]).ok(), "");
}

#[test]
fn disks_share_a_socket_and_the_last_takes_it_along() {
    let daemon = Daemon::start();
    let socket = daemon.path("nbd.sock");
    add(&daemon, "vm1", &socket);
    add(&daemon, "vm2", &socket);
    assert_eq!(fs::metadata(&socket).expect("socket").mode() & 0o777, 0o600);
    let table = daemon.run(&["disk", "ls"]).ok();
    assert_eq!(table.matches(&socket).count(), 2, "{table}");
    let list: Value = serde_json::from_str(&daemon.run(&["disk", "ls", "--json"]).ok()).expect("JSON");
    let disk = &list["disks"][0];
    assert_eq!((disk["transport"].as_str(), disk["socket"].as_str()), (Some("nbd"), Some(socket.as_str())));
    assert_eq!((&disk["queues"], &disk["address"]), (&Value::Null, &Value::Null));
    daemon.run(&["disk", "rm", "vm1"]).ok();
    assert!(fs::exists(&socket).expect("look"));
    daemon.run(&["disk", "rm", "vm2"]).ok();
    assert!(!fs::exists(&socket).expect("look"));
    assert_eq!(daemon.status()["pool"]["used_bytes"], 0);
}

#[test]
fn the_os_chooses_a_port_and_the_status_tells_it() {
    let daemon = Daemon::start();
    add(&daemon, "vm1", "127.0.0.1:0");
    let disk = &daemon.status()["clients"][0]["disk"];
    assert_eq!((disk["transport"].as_str(), &disk["socket"]), (Some("nbd"), &Value::Null));
    let address = disk["address"].as_str().expect("address");
    let mut greeting = [0; 8];
    TcpStream::connect(address).and_then(|mut s| s.read_exact(&mut greeting)).expect("greeting");
    assert_eq!(&greeting, b"NBDMAGIC");
    add(&daemon, "vm2", address);
    assert!(daemon.run(&["disk", "ls"]).ok().contains(address));
}

#[test]
fn what_cannot_be_is_refused_and_nothing_changes() {
    let daemon = Daemon::start();
    let vhost = daemon.add("vm1", "16M");
    let nbd = daemon.path("nbd.sock");
    add(&daemon, "vm2", &nbd);
    let free = daemon.path("free.sock");
    let file = daemon.path("file");
    fs::write(&file, "precious").expect("write");
    let before = daemon.state();
    for (more, code, mentions) in [
        (&["--nbd", "0.0.0.0:0"][..], 1, &["vm3", "0.0.0.0:0", "--nbd-tls-cert", "127.0.0.1"][..]),
        (&["--nbd", "localhost:10809"], 2, &["localhost:10809", "127.0.0.1:10809"]),
        (&["--nbd", &vhost], 1, &["vm3", &vhost, "belongs to disk vm1"]),
        (&["--vhost-user", &nbd], 1, &["vm3", &nbd, "belongs to disk vm2"]),
        (&["--nbd", &file], 1, &["vm3", &file, "no socket"]),
        (&["--nbd", &free, "--vhost-user", &nbd], 2, &["--vhost-user", "--nbd"]),
        (&["--nbd", &free, "--queues", "2"], 2, &["--queues", "--nbd"]),
    ] {
        let line = [&["disk", "add", "vm3", "--size", "16M"], more].concat();
        daemon.run(&line).fails(code, mentions);
        assert_eq!(daemon.state(), before, "after {more:?}");
    }
    assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
    assert!(!fs::exists(&free).expect("look"));
}

#[test]
fn a_disk_in_use_is_only_removed_by_force() {
    let daemon = Daemon::start();
    let socket = daemon.path("nbd.sock");
    add(&daemon, "vm1", &socket);
    // The old way in, by hand: the export's name without an answer but its size.
    let mut client = UnixStream::connect(&socket).expect("connect");
    client.read_exact(&mut [0; 18]).expect("greeting");
    std::io::Write::write_all(&mut client, b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x03vm1").expect("option");
    client.read_exact(&mut [0; 10]).expect("export");
    assert_eq!(daemon.status()["clients"][0]["disk"]["connected"], true);
    daemon.run(&["disk", "rm", "vm1"]).fails(1, &["vm1", "guest is connected", "--force"]);
    daemon.run(&["disk", "rm", "vm1", "--force"]).ok();
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
    assert_eq!(daemon.status()["clients"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_daemon_that_ends_hangs_up_and_removes_its_sockets() {
    let mut daemon = Daemon::start();
    let socket = daemon.path("nbd.sock");
    add(&daemon, "vm1", &socket);
    let mut client = UnixStream::connect(&socket).expect("connect");
    client.read_exact(&mut [0; 18]).expect("greeting");
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait().success());
    assert!(!fs::exists(&socket).expect("look"));
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn a_stale_socket_is_replaced() {
    let mut daemon = Daemon::start();
    let home = tempfile::tempdir().expect("directory");
    let socket = home.path().join("nbd.sock").to_str().expect("UTF-8").to_owned();
    add(&daemon, "vm1", &socket);
    daemon.signal(libc::SIGKILL);
    daemon.wait();
    assert!(fs::exists(&socket).expect("look"));
    let daemon = Daemon::start();
    add(&daemon, "vm1", &socket);
    eventually("somebody listens", || UnixStream::connect(&socket).is_ok());
}

#[test]
fn guest_config_speaks_nbd() {
    let daemon = Daemon::start();
    let socket = daemon.path("nbd.sock");
    add(&daemon, "vm1", &socket);
    daemon.add("vm2", "16M");
    for vmm in ["qemu", "libvirt", "nbd-client"] {
        let text = daemon.run(&["guest-config", "vm1", "--vmm", vmm]).ok();
        assert!(text.contains(&socket) && text.contains("LABEL=tmem none swap"), "{vmm}: {text}");
    }
    daemon.run(&["guest-config", "vm1", "--vmm", "uml"]).fails(1, &["vm1", "nbd-client", "--vhost-user"]);
    daemon.run(&["guest-config", "vm2", "--vmm", "nbd-client"]).fails(1, &["vm2", "--nbd"]);
}

#[test]
fn tls_takes_three_files_that_are_there() {
    let serve = |more: &[&str]| {
        let home = tempfile::tempdir().expect("directory");
        let dir = home.path().join("run");
        run(&[&["--runtime-dir", dir.to_str().expect("UTF-8"), "serve", "--http", "off"], more].concat())
    };
    serve(&["--nbd-tls-cert", "/c"]).fails(2, &["nbd-tls-cert", "nbd-tls-key and nbd-tls-client-ca"]);
    let none = ["--nbd-tls-cert", "/no/c", "--nbd-tls-key", "/no/k", "--nbd-tls-client-ca", "/no/a"];
    serve(&none).fails(1, &["certificate /no/c", "cannot be read"]);
}

#[test]
fn the_benchmark_drives_an_export_and_verifies_it() {
    let daemon = Daemon::start();
    let socket = daemon.path("nbd.sock");
    add(&daemon, "vm1", &socket);
    let pages = daemon.path("pages");
    let bytes: Vec<u8> = (0..64 * 4096u32).map(|i| (i / 4096 * 7 + i % 50) as u8).collect();
    fs::write(&pages, bytes).expect("write");
    for more in [&["--completion", "poll"][..], &["--completion", "event", "--connections", "3"]] {
        let line = [
            "bench",
            "nbd",
            "--socket",
            &socket,
            "--pages",
            &pages,
            "--size",
            "4M",
            "--seconds",
            "0.05",
            "--json",
        ];
        let report: Value = serde_json::from_str(&run(&[&line, more].concat()).ok()).expect("JSON");
        assert_eq!(report["verified_pages"], 1024);
        assert_eq!(report["phases"].as_array().map(Vec::len), Some(6));
    }
    run(&["bench", "nbd", "--socket", &socket, "--export", "vm9"]).fails(1, &["vm9", "nbdinfo --list"]);
    run(&["bench", "nbd", "--socket", &socket, "--size", "1G"]).fails(1, &["--size"]);
    run(&["bench", "nbd", "--socket", "/no/such"]).fails(1, &["/no/such"]);
}
