//! Cloud Hypervisor and Firecracker, played as their OpenAPI descriptions say: `vmm/src/api/openapi/cloud-hypervisor.yaml` of
//! <https://github.com/cloud-hypervisor/cloud-hypervisor> (API 0.3.0) and `src/firecracker/swagger/firecracker.yaml` of
//! <https://github.com/firecracker-microvm/firecracker> (1.17). The programs themselves want a KVM that boots guests.

#![allow(clippy::expect_used)]

mod mock;

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use mock::Rest;
use serde_json::{Value, json};
use tmem_actuator::{ActuatorError, Address, Guest};

const MIB: u64 = 1 << 20;

/// A Cloud Hypervisor whose guest follows its balloon at once.
fn cloud_hypervisor(balloon: Value, statistics: bool) -> (Rest, Guest, Arc<Mutex<Vec<Value>>>) {
    let told = Arc::new(Mutex::new(Vec::<Value>::new()));
    let heard = Arc::clone(&told);
    let rest = Rest::start(move |method, path, body| {
        let mut told = heard.lock().expect("a lock");
        let balloon_bytes = told.last().and_then(|body| body["desired_balloon"].as_u64()).unwrap_or(0);
        match (method, path) {
            ("GET", "/api/v1/vm.info") => (200, json!({
                "config": {"memory": {"size": 0, "hotplug_size": null, "zones": [{"id": "a", "size": 768 * MIB}, {"id": "b", "size": 256 * MIB}]}, "balloon": balloon},
                "state": "Running", "memory_actual_size": 1024 * MIB - balloon_bytes, "device_tree": {"x": {}}}).to_string()),
            ("GET", "/api/v1/vm.balloon-stats") if statistics => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
                let at = if told.len() == 2 { 1 } else { now.as_millis() as u64 };
                (200, json!({"balloon_actual": balloon_bytes, "last_update": at, "stats": {"available_memory": 300 * MIB}}).to_string())
            }
            ("PUT", "/api/v1/vm.resize") => {
                told.push(serde_json::from_str(body).expect("JSON"));
                (204, String::new())
            }
            _ => (404, String::new()),
        }
    });
    let guest = Guest::new(Address::CloudHypervisor(rest.socket()));
    (rest, guest, told)
}

#[tokio::test]
async fn cloud_hypervisor_balloons() {
    let (_rest, mut guest, told) = cloud_hypervisor(json!({"size": 0}), true);
    let seen = guest.look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.max_bytes, seen.swap_ins), (1024 * MIB, 1024 * MIB, None));
    assert_eq!(seen.report.and_then(|report| report.available_bytes), Some(300 * MIB));
    guest.set(600 * MIB).await.expect("told");
    assert_eq!(told.lock().expect("a lock")[0], json!({"desired_balloon": 424 * MIB}));
    assert_eq!(guest.look().await.expect("a guest").size_bytes, 600 * MIB);
    guest.set(u64::MAX).await.expect("told");
    assert_eq!(told.lock().expect("a lock")[1], json!({"desired_balloon": 0}));
    let seen = guest.look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.report), (1024 * MIB, None), "statistics of 1970");
}

#[tokio::test]
async fn cloud_hypervisor_without_statistics_or_balloon() {
    let (_rest, mut guest, _) = cloud_hypervisor(json!({"size": 0}), false);
    assert_eq!(guest.look().await.expect("an older version").report, None);
    let (_rest, mut guest, _) = cloud_hypervisor(Value::Null, true);
    let error = guest.look().await.expect_err("no balloon").to_string();
    assert!(error.contains("--balloon size=0"), "{error}");
    assert!(matches!(guest.set(7).await, Err(ActuatorError::NoBalloon { .. })));
}

/// A Firecracker that has told its guest this, and whose guest has come so far.
fn firecracker(interval: u64, actual: impl Fn(u64) -> u64 + Send + 'static) -> (Rest, Guest) {
    let mut amount = 0;
    let rest = Rest::start(move |method, path, body| match (method, path) {
        ("GET", "/machine-config") => {
            (200, json!({"mem_size_mib": 512, "vcpu_count": 1, "smt": false}).to_string())
        }
        ("GET", "/balloon") => (
            200,
            json!({"amount_mib": amount, "deflate_on_oom": true, "stats_polling_interval_s": interval})
                .to_string(),
        ),
        ("GET", "/balloon/statistics") if interval > 0 => {
            let actual = actual(amount);
            (200, json!({"target_mib": amount, "target_pages": amount * 256, "actual_mib": actual, "actual_pages": actual * 256,
                "free_memory": 5 * MIB, "available_memory": 100 * MIB, "minor_faults": 9}).to_string())
        }
        ("PATCH", "/balloon") => {
            let body: Value = serde_json::from_str(body).expect("JSON");
            match body["amount_mib"].as_u64() {
                Some(mib) if mib < 512 => {
                    amount = mib;
                    (204, String::new())
                }
                _ => (400, json!({"fault_message": "Amount of pages\nrequested is too large."}).to_string()),
            }
        }
        _ => (400, json!({"fault_message": "Device not found."}).to_string()),
    });
    let guest = Guest::new(Address::Firecracker(rest.socket()));
    (rest, guest)
}

#[tokio::test]
async fn firecracker_balloons() {
    let (_rest, mut guest) = firecracker(1, |amount| amount / 2);
    let seen = guest.look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.max_bytes), (512 * MIB, 512 * MIB));
    assert_eq!(seen.report.and_then(|report| report.available_bytes), Some(100 * MIB));
    assert_eq!(guest.look().await.expect("a guest").report, None, "the same as before");
    guest.set(311 * MIB + 5).await.expect("told");
    let seen = guest.look().await.expect("a guest");
    assert_eq!(seen.size_bytes, 412 * MIB, "what the guest has, not what it was told");
    assert!(seen.report.is_some());
    let error = guest.set(0).await.expect_err("more than Firecracker takes").to_string();
    assert!(error.contains(r"too large") && error.contains("400") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn firecracker_without_statistics_or_balloon() {
    let (_rest, mut guest) = firecracker(0, |_| 0);
    guest.set(400 * MIB).await.expect("told");
    let seen = guest.look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.report), (400 * MIB, None));
    let rest = Rest::start(|_, path, _| match path {
        "/machine-config" => (200, json!({"mem_size_mib": 512}).to_string()),
        _ => (400, json!({"fault_message": "no balloon"}).to_string()),
    });
    let error = Guest::new(Address::Firecracker(rest.socket())).look().await.expect_err("no balloon");
    assert!(
        matches!(error, ActuatorError::NoBalloon { .. }) && error.to_string().contains("amount_mib"),
        "{error}"
    );
}

#[tokio::test]
async fn numbers_that_cannot_be_are_refused() {
    for (memory, actual) in [(u64::MAX, 0), (0, 0), (512, 513), (512, u64::MAX)] {
        let rest = Rest::start(move |_, path, _| match path {
            "/machine-config" => (200, json!({"mem_size_mib": memory}).to_string()),
            "/balloon" => (200, json!({"amount_mib": 0, "stats_polling_interval_s": 1}).to_string()),
            _ => (200, json!({"actual_mib": actual, "available_memory": u64::MAX}).to_string()),
        });
        let error = Guest::new(Address::Firecracker(rest.socket())).look().await.expect_err("nonsense");
        assert!(matches!(error, ActuatorError::Nonsense { .. }), "{memory} {actual}: {error}");
    }
    for info in [r#"{"config": {"memory": {"size": -5}}}"#, "[]", "{", "\u{1b}[2J", r#"{"config": 7}"#, ""] {
        let rest = Rest::start(move |_, _, _| (200, info.to_owned()));
        let mut guest = Guest::new(Address::CloudHypervisor(rest.socket()));
        let error = guest.look().await.expect_err("garbage");
        assert!(matches!(error, ActuatorError::Garbage { .. }), "{info}: {error}");
        assert!(!error.to_string().contains(char::is_control));
    }
}

#[tokio::test]
async fn answers_without_end_end() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let endless = mock::Bytes::answer(head.as_bytes(), &[b'7'; 1 << 16]);
    let mut guest = Guest::new(Address::CloudHypervisor(endless.socket()));
    assert!(matches!(guest.look().await, Err(ActuatorError::TooLong { .. })));
    for (first, again) in [
        ("HTTP/1.1 200 OK\r\nX: ", "7"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "\u{7}"),
    ] {
        let endless = mock::Bytes::answer(first.as_bytes(), again.repeat(1000).as_bytes());
        let error = Guest::new(Address::Firecracker(endless.socket())).look().await.expect_err("no answer");
        let known = matches!(error, ActuatorError::BrokeOff { .. } | ActuatorError::Late { .. });
        assert!(known, "{first:?}: {error}");
    }
    let closes = mock::Bytes::answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"");
    let error = Guest::new(Address::Firecracker(closes.socket())).look().await.expect_err("half an answer");
    assert!(matches!(error, ActuatorError::BrokeOff { .. }), "{error}");
}

#[tokio::test]
async fn nobody_and_silence_are_told_apart() {
    let mut guest = Guest::new(Address::Firecracker("/nonexistent/fc.sock".into()));
    let error = guest.look().await.expect_err("nobody");
    assert!(
        matches!(error, ActuatorError::Unreachable { .. })
            && error.to_string().contains("/nonexistent/fc.sock")
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let error = Guest::new(Address::CloudHypervisor(path)).look().await.expect_err("silence");
    assert!(matches!(error, ActuatorError::Late { .. }), "{error}");
}
