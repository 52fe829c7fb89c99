//! Clients of a real daemon, frozen and thawed.
#![allow(clippy::expect_used)] // a failed step is a failed test

mod common;

use common::{
    Daemon,
    nbd::{Disk, prose},
};
use serde_json::Value;

const EIO: u32 = 5;

#[test]
fn a_frozen_disk_gives_and_forgets_pages_and_takes_none() {
    let daemon = Daemon::start();
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    let mut other = Disk::add(&daemon, "vm2", "16M", &[]);
    for page in 1..4 {
        disk.write(page, &prose(page)).expect("write");
    }
    daemon.run(&["freeze", "vm1"]).ok();
    daemon.run(&["freeze", "vm1"]).ok();
    assert_eq!(disk.write(1, &prose(7)), Err(EIO));
    assert_eq!(disk.read(1), Err(EIO), "not as it was before");
    assert_eq!(disk.read(2).expect("read"), prose(2));
    disk.trim(3, 1).expect("trim");
    assert_eq!(disk.read(3).expect("read"), [0; 4096]);
    other.write(1, &prose(1)).expect("others go on");
    let status = daemon.status();
    let clients = &status["clients"];
    assert_eq!((&clients[0]["frozen"], &clients[1]["frozen"]), (&true.into(), &false.into()));
    assert_eq!((&clients[0]["refused_puts"], &clients[1]["refused_puts"]), (&1.into(), &0.into()));
    assert!(daemon.run(&["status"]).ok().contains(" frozen "));
    let metrics = daemon.http("GET /metrics").1;
    for line in ["tmem_client_frozen{client=\"vm1\"} 1", "tmem_client_frozen{client=\"vm2\"} 0"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    daemon.run(&["thaw", "vm1"]).ok();
    disk.write(1, &prose(7)).expect("write");
    assert_eq!(disk.read(1).expect("read"), prose(7));
    assert!(!daemon.run(&["status"]).ok().contains(" frozen "));
}

#[test]
fn only_clients_can_be_frozen() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    for command in ["freeze", "thaw"] {
        daemon.run(&[command, "vm9"]).fails(1, &["client vm9", "tmem status"]);
        daemon.run(&[command, "a/b?c"]).fails(1, &["client a/b?c"]);
        daemon.run(&[command]).fails(2, &["<CLIENT>", &format!("tmem {command} --help")]);
    }
    assert_eq!(daemon.status()["clients"][0]["frozen"], false);
}

#[test]
fn a_client_is_changed_over_the_admin_socket_alone() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let (code, answer) =
        daemon.admin("PATCH /api/v1/clients/vm1", r#"{"frozen": true, "cap_bytes": 8388608, "weight": 7}"#);
    let mut client: Value = serde_json::from_str(&answer).expect("JSON");
    client["metadata_bytes"] = Value::Null;
    assert_eq!((code, &client), (200, &daemon.state()["clients"][0]));
    assert_eq!((&client["frozen"], &client["cap_bytes"]), (&true.into(), &(8 << 20).into()));
    assert_eq!(client["weight"], 7);
    let before = daemon.state();
    for (request, body, expected, mentions) in [
        ("PATCH /api/v1/clients/vm1", "", 400, "request body"),
        ("PATCH /api/v1/clients/vm1", r#"{"froze": true}"#, 400, "froze"),
        ("PATCH /api/v1/clients/vm1", r#"{"frozen": false, "weight": 10001}"#, 400, "1 to 10000"),
        ("PATCH /api/v1/clients/vm1", r#"{"frozen": false, "cap_bytes": 0}"#, 400, "cap 0"),
        ("PATCH /api/v1/clients/vm9", r#"{"frozen": false}"#, 404, "vm9"),
        ("GET /api/v1/clients/vm1", "", 405, "GET"),
    ] {
        let (code, answer) = daemon.admin(request, body);
        assert!(code == expected && answer.contains(mentions), "{request} {body}: {code} {answer}");
        assert_eq!(daemon.state(), before, "{request} {body}");
    }
    assert_eq!(daemon.http("PATCH /api/v1/clients/vm1").0, 404);
    assert_eq!(daemon.admin("PATCH /api/v1/clients/vm1", r#"{"cap_bytes": null}"#).0, 200);
    assert_eq!(daemon.status()["clients"][0]["cap_bytes"], Value::Null);
}
