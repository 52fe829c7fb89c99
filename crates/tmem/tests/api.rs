//! The admin socket and the TCP listener, spoken to by hand.
#![allow(clippy::expect_used)] // a failed step is a failed test

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use common::Daemon;
use serde_json::{Value, json};

fn error_of(answer: &str) -> String {
    let body: Value = serde_json::from_str(answer).expect("an error is JSON");
    let fields: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(fields, ["error"]);
    body["error"].as_str().expect("text").to_owned()
}

#[test]
fn tcp_and_the_command_line_show_the_same_status() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let (code, body) = daemon.http("GET /api/v1/status");
    assert_eq!(code, 200);
    let over_tcp = Daemon::without_what_changes(serde_json::from_str(&body).expect("JSON"));
    assert_eq!(over_tcp, daemon.state());
    let client = &over_tcp["clients"][0];
    assert_eq!(
        (&client["name"], &client["kind"], &client["weight"]),
        (&json!("vm1"), &json!("disk"), &json!(100))
    );

    let (code, body) = daemon.http("GET /metrics");
    assert_eq!(code, 200);
    assert!(
        body.lines()
            .any(|line| line == "tmem_pool_used_bytes 0" || line.starts_with("tmem_pool_used_bytes "))
    );
    assert!(body.lines().any(|line| line.starts_with("tmem_client_puts_total{client=\"vm1\"} ")), "{body}");
    assert!(body.lines().any(|line| line == "tmem_pool_limit_bytes 67108864"), "{body}");

    let (code, body) = daemon.http("GET /");
    assert_eq!(code, 200);
    assert!(body.contains("<bdi>vm1</bdi>") && body.contains("href=\"/metrics\""), "{body}");
    for asked in ["GET /fragment", "GET /fragment?range=hour", "GET /?range=day&other=1"] {
        let (code, body) = daemon.http(asked);
        assert!(code == 200 && body.contains("<bdi>vm1</bdi>"), "{asked}: {code} {body}");
    }
    let (code, body) = daemon.http("GET /?range=week");
    assert!(code == 400 && body.contains("hour"), "{code} {body}");
    for file in ["GET /dashboard.css", "GET /dashboard.js"] {
        assert_eq!(daemon.http(file).0, 200, "{file}");
    }
}

#[test]
fn the_table_names_every_client() {
    let daemon = Daemon::start();
    assert!(daemon.run(&["status"]).ok().contains("tmem disk add"));
    daemon.add("vm1", "16M");
    daemon.add("vm2", "16M");
    let text = daemon.run(&["status"]).ok();
    for name in ["vm1", "vm2", "REFUSED", "64.0M"] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn tcp_serves_reads_only() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let before = daemon.state();
    for (request, expected) in [
        ("POST /api/v1/status", 405),
        ("DELETE /api/v1/status", 405),
        ("POST /api/v1/disks", 404),
        ("GET /api/v1/disks", 404),
        ("DELETE /api/v1/disks/vm1", 404),
        ("DELETE /api/v1/disks/vm1?force=true", 404),
        ("GET /../../etc/passwd", 404),
    ] {
        let (code, body) = daemon.http(request);
        assert_eq!(code, expected, "{request}: {body}");
        error_of(&body);
    }
    assert_eq!(daemon.state(), before);
}

#[test]
fn disks_over_the_admin_socket() {
    let daemon = Daemon::start();
    let socket = daemon.path("vm1.sock");
    let body = json!({"name": "vm1", "size_bytes": 16 << 20, "vhost_user": socket, "cap_bytes": 4 << 20, "weight": 7, "dedup": "web", "format": "none", "queues": 2});
    let (code, answer) = daemon.admin("POST /api/v1/disks", &body.to_string());
    assert_eq!(code, 201, "{answer}");
    let info: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(
        info,
        json!({"name": "vm1", "size_bytes": 16 << 20, "cap_bytes": 4 << 20, "weight": 7, "dedup": "web", "format": "none", "transport": "vhost-user-blk",
               "socket": socket, "address": null, "device": null, "queues": 2, "connected": false})
    );
    let (code, answer) = daemon.admin("GET /api/v1/disks", "");
    assert_eq!(
        (code, serde_json::from_str::<Value>(&answer).expect("JSON")),
        (200, json!({"disks": [info]}))
    );
    let (code, answer) = daemon.admin("POST /api/v1/disks", &body.to_string());
    assert_eq!(code, 409);
    assert!(error_of(&answer).contains("vm1 exists"));
    assert_eq!(daemon.admin("DELETE /api/v1/disks/vm1?force=true", ""), (204, String::new()));
    let (code, answer) = daemon.admin("DELETE /api/v1/disks/vm1", "");
    assert_eq!(code, 404);
    assert!(error_of(&answer).contains("vm1"));
}

#[test]
fn nonsense_on_the_admin_socket_is_told_what_it_is_and_changes_nothing() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let before = daemon.state();
    let disk = |extra: &str| {
        format!(r#"{{"name": "vm2", "size_bytes": 1048576, "vhost_user": "/tmp/never.sock"{extra}}}"#)
    };
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(300_000));
    for (request, body, expected, mentions) in [
        ("POST /api/v1/disks", "", 400, "request body"),
        ("POST /api/v1/disks", "{", 400, "request body"),
        ("POST /api/v1/disks", "[]", 400, "request body"),
        ("POST /api/v1/disks", "{}", 400, "name"),
        ("POST /api/v1/disks", &disk(r#", "priority": 3"#), 400, "priority"),
        ("POST /api/v1/disks", &disk(r#", "weight": 0"#), 400, "1 to 10000"),
        ("POST /api/v1/disks", &disk(r#", "weight": "7""#), 400, "u32"),
        ("POST /api/v1/disks", &disk(r#", "queues": 0"#), 400, "queues"),
        ("POST /api/v1/disks", &disk(r#", "cap_bytes": -1"#), 400, "-1"),
        ("POST /api/v1/disks", &disk(r#", "dedup": "a b""#), 400, "`a b` is no dedup domain"),
        ("POST /api/v1/disks", &disk(r#", "format": "ext4""#), 400, "ext4"),
        ("POST /api/v1/disks", r#"{"name": "a/b", "size_bytes": 1048576, "vhost_user": "/s"}"#, 400, "a/b"),
        (
            "POST /api/v1/disks",
            r#"{"name": "ab", "size_bytes": 1048576, "vhost_user": "s"}"#,
            400,
            "relative",
        ),
        ("POST /api/v1/disks", r#"{"name": "ab", "size_bytes": "1M", "vhost_user": "/s"}"#, 400, "1M"),
        ("POST /api/v1/disks", &large, 413, "request body"),
        ("DELETE /api/v1/disks/%2e%2e", "", 400, "`..`"),
        ("DELETE /api/v1/disks/vm1?force=maybe", "", 400, "query"),
        ("DELETE /api/v1/disks/vm1?forse=true", "", 400, "forse"),
        ("PUT /api/v1/disks/vm1", "", 405, "PUT"),
        ("GET /nowhere", "", 404, "/nowhere"),
    ] {
        let (code, answer) = daemon.admin(request, body);
        assert_eq!(code, expected, "{request} {body:.80}: {answer}");
        let error = error_of(&answer);
        assert!(error.contains(mentions) && !error.contains('\n'), "{request} {body:.80}: {error}");
        assert_eq!(daemon.state(), before, "{request} {body:.80}");
    }
}

#[test]
fn peers_that_say_nothing_do_not_keep_others_out() {
    let daemon = Daemon::start();
    let address = daemon.http_address();
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(&address).expect("connect")).collect();
    let (code, _) = daemon.http("GET /api/v1/status");
    assert_eq!(code, 200);
    let mut garbage = TcpStream::connect(&address).expect("connect");
    garbage.write_all(b"\x00\xff garbage \r\n\r\n").expect("write");
    garbage.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
    drop(silent);
    assert_eq!(daemon.http("GET /metrics").0, 200);
}
