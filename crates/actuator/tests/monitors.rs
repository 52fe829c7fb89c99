//! QEMU's monitor and the guest's agent, played, as they should be and as they should not. Real ones are in `tests/tests/actuator.rs`.

#![allow(clippy::expect_used)]

mod mock;

use std::{
    io::{BufRead, BufReader, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use mock::{Bytes, Mock};
use serde_json::{Value, json};
use tmem_actuator::{ActuatorError, Address, Guest};

const MIB: u64 = 1 << 20;
const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": ["oob"]}}"#;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// A monitor with a balloon, but for the commands that `differently` answers with a line of its own; an empty one ends the connection.
fn monitor(differently: impl Fn(&str, &Value) -> Option<String> + Send + 'static) -> Mock {
    let mut size_bytes = 512 * MIB;
    Mock::start(move |mut stream| {
        let reader = BufReader::new(stream.try_clone().expect("a stream"));
        // Writing fails where nobody waits any more.
        let _ = writeln!(stream, "{GREETING}\r");
        for line in reader.lines().map_while(Result::ok) {
            let Ok(command) = serde_json::from_str::<Value>(&line) else { return };
            let (name, arguments) = (command["execute"].as_str().expect("a name"), &command["arguments"]);
            let answer = differently(name, arguments).unwrap_or_else(|| {
                let returned = match (name, arguments["path"].as_str()) {
                    ("qmp_capabilities" | "qom-set", _) => json!({}),
                    ("qom-list", Some("/machine/peripheral")) => json!([{"name": "type", "type": "string"}]),
                    ("qom-list", _) => json!([{"name": "device[0]", "type": "child<virtio-balloon-pci>"}]),
                    ("query-memory-size-summary", _) => json!({"base-memory": 512 * MIB, "plugged-memory": 0}),
                    ("query-balloon", _) => json!({"actual": size_bytes}),
                    ("balloon", _) => {
                        size_bytes = arguments["value"].as_u64().expect("a size").min(512 * MIB);
                        json!({})
                    }
                    ("qom-get", Some("/machine/peripheral-anon/device[0]")) => {
                        json!({"last-update": now(), "stats": {"stat-available-memory": 80 * MIB, "stat-free-memory": u64::MAX}})
                    }
                    other => panic!("what is {other:?}?"),
                };
                json!({"return": returned}).to_string()
            });
            // Events come at any time, and new QEMUs have new ones.
            let event =
                r#"{"event": "NEW_IN_QEMU_99", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}"#;
            if answer.is_empty() || writeln!(stream, "{event}\r\n{answer}\r").is_err() {
                return;
            }
        }
    })
}

fn guest(monitor: &Mock) -> Guest {
    Guest::new(Address::Qemu { monitor: monitor.socket(), agent: None })
}

#[tokio::test]
async fn a_guest_balloons() {
    let monitor = monitor(|_, _| None);
    let mut guest = guest(&monitor);
    let seen = guest.look().await.expect("a guest");
    assert_eq!((seen.size_bytes, seen.max_bytes, seen.swap_ins), (512 * MIB, 512 * MIB, None));
    let report = seen.report.expect("statistics");
    assert_eq!(
        (report.available_bytes, report.committed_bytes, report.pressure),
        (Some(80 * MIB), None, None)
    );
    guest.set(200 * MIB).await.expect("told");
    assert_eq!(guest.look().await.expect("a guest").size_bytes, 200 * MIB);
    guest.set(u64::MAX).await.expect("told");
    assert_eq!(guest.look().await.expect("a guest").size_bytes, 512 * MIB);
}

/// What a guest says that has no driver for its balloon, or whose driver stopped.
#[tokio::test]
async fn old_statistics_are_nothing_new() {
    let begun = now();
    for (at, available) in [(0, u64::MAX), (begun - 60, 7), (begun - 5, 7), (begun, u64::MAX)] {
        let monitor = monitor(move |name, _| {
            let statistics = json!({"last-update": at, "stats": {"stat-available-memory": available}});
            (name == "qom-get").then(|| json!({"return": statistics}).to_string())
        });
        assert_eq!(guest(&monitor).look().await.expect("a guest").report, None, "{at} {available}");
    }
    let monitor = monitor(move |name, _| {
        let statistics = json!({"last-update": begun, "stats": {"stat-available-memory": 7}});
        (name == "qom-get").then(|| json!({"return": statistics}).to_string())
    });
    let mut guest = guest(&monitor);
    assert!(guest.look().await.expect("a guest").report.is_some());
    assert_eq!(guest.look().await.expect("a guest").report, None);
}

#[tokio::test]
async fn a_guest_without_a_balloon_is_told_what_to_add() {
    let monitor = monitor(|name, _| {
        (name == "qom-list")
            .then(|| r#"{"return": [{"name": "net0", "type": "child<virtio-net-pci>"}]}"#.to_owned())
    });
    let error = guest(&monitor).look().await.expect_err("no balloon");
    assert!(matches!(error, ActuatorError::NoBalloon { .. }));
    let text = error.to_string();
    assert!(text.contains("-device virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on"), "{text}");
    assert!(matches!(guest(&monitor).set(MIB).await, Err(ActuatorError::NoBalloon { .. })));
}

#[tokio::test]
async fn a_monitor_that_says_nothing_talks_to_somebody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("qmp");
    let _silent = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let error = Guest::new(Address::Qemu { monitor: path, agent: None }).look().await.expect_err("silence");
    assert!(
        matches!(error, ActuatorError::Taken { .. }) && error.to_string().contains("one client"),
        "{error}"
    );
}

/// Each is an error, within the time of a call, and the next look is a new beginning.
#[tokio::test]
async fn bad_monitors_are_errors_and_nothing_more() {
    let deep = "[".repeat(100_000);
    let answers: &[(&str, &str)] = &[
        ("qmp_capabilities", r#"{"error": {"class": "CommandNotFound", "desc": "no\u001b[2J"}}"#),
        ("query-balloon", ""),
        ("query-balloon", "garbage"),
        ("query-balloon", "\u{0}\u{1b}]0;x\u{7}"),
        ("query-balloon", "{}"),
        ("query-balloon", "[]"),
        ("query-balloon", &deep),
        ("query-balloon", r#"{"return": {"actual": -4096}}"#),
        ("query-balloon", r#"{"return": {"actual": 1e999}}"#),
        ("query-balloon", r#"{"return": {"actual": "512"}}"#),
        ("query-balloon", r#"{"return": {"actual": 18446744073709551615}}"#),
        ("query-balloon", r#"{"return": {"actual": 536870913}}"#),
        ("query-balloon", r#"{"return": {"actual": 0}}"#),
        (
            "query-memory-size-summary",
            r#"{"return": {"base-memory": 18446744073709551615, "plugged-memory": 1}}"#,
        ),
        ("query-memory-size-summary", r#"{"return": {"base-memory": 0}}"#),
        ("query-memory-size-summary", r#"{"return": null}"#),
        ("qom-list", r#"{"return": [{"name": 7, "type": []}]}"#),
        ("qom-get", r#"{"return": {"last-update": "now"}}"#),
        ("qom-get", r#"{"return": {"last-update": 1, "stats": {"stat-available-memory": -1}}}"#),
        ("qom-get", r#"{"error": 7}"#),
        ("qom-set", r#"{"error": {"desc": "no such property"}}"#),
    ];
    for (command, answer) in answers {
        let (command, bad) = (command.to_string(), answer.to_string());
        let asked = AtomicUsize::new(0);
        let monitor = monitor(move |name, _| {
            (name == command && asked.fetch_add(1, Ordering::SeqCst) == 0).then(|| bad.clone())
        });
        let mut guest = guest(&monitor);
        let text = guest.look().await.expect_err(answer).to_string();
        assert!(!text.contains(char::is_control) && text.len() < 1000, "{text}");
        assert!(text.contains("/socket "), "it names the socket: {text}");
        guest.look().await.unwrap_or_else(|error| panic!("after {answer}: {error}"));
    }
}

#[tokio::test]
async fn monitors_that_never_end_are_left() {
    for (first, again) in [
        ("", "7"),
        ("{\"QMP\": ", "[\""),
        ("", "\n"),
        (&format!("{GREETING}\n")[..], "{\"event\": \"RESET\"}\n"),
        (&format!("{GREETING}\n")[..], "x"),
    ] {
        let endless = Bytes::start(first.as_bytes(), again.repeat(5000).as_bytes());
        let mut guest = Guest::new(Address::Qemu { monitor: endless.socket(), agent: None });
        let error = guest.look().await.expect_err("no end");
        assert!(matches!(error, ActuatorError::TooLong { .. }), "{first} {again}: {error}");
    }
    for said in ["", "{\"QMP\"", "7\n", "{}\n"] {
        let short = Bytes::start(said.as_bytes(), b"");
        let mut guest = Guest::new(Address::Qemu { monitor: short.socket(), agent: None });
        let error = guest.look().await.expect_err("no monitor");
        assert!(
            matches!(error, ActuatorError::BrokeOff { .. } | ActuatorError::Garbage { .. }),
            "{said}: {error}"
        );
    }
}

/// The command that hangs is given up, and its late answer is nobody's.
#[tokio::test]
async fn an_answer_that_comes_late_is_nobodys() {
    let asked = AtomicUsize::new(0);
    let monitor = monitor(move |name, _| {
        if name == "query-balloon" && asked.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(2200));
            return Some(r#"{"return": {"actual": 1048576}}"#.to_owned());
        }
        None
    });
    let mut guest = guest(&monitor);
    assert!(matches!(guest.look().await, Err(ActuatorError::Late { .. })));
    assert_eq!(guest.look().await.expect("a guest").size_bytes, 512 * MIB);
}

/// Whoever asks may stop waiting at any time.
#[tokio::test]
async fn a_look_that_is_given_up_spoils_nothing() {
    let monitor = monitor(|_, _| None);
    let (agent, _) = agent(Some(MEMINFO), None);
    let mut guest = Guest::new(Address::Qemu { monitor: monitor.socket(), agent: Some(agent.socket()) });
    for waits_us in (0..4000).step_by(250) {
        let _ = tokio::time::timeout(std::time::Duration::from_micros(waits_us), guest.look()).await;
    }
    let report = guest.look().await.expect("a guest").report.expect("the agent's");
    assert_eq!(report.committed_bytes, Some(2 * MIB));
}

/// An agent whose files are these, behind what somebody else has left in the channel. Gives how many are open, too.
fn agent(meminfo: Option<&'static str>, pressure: Option<&'static str>) -> (Mock, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let agent = Mock::start(move |mut stream| {
        let reader = BufReader::new(stream.try_clone().expect("a stream"));
        let mut file = None;
        for line in reader.split(b'\n').map_while(Result::ok) {
            let line = line.strip_prefix(&[0xff]).unwrap_or(&line);
            let Ok(command) = serde_json::from_slice::<Value>(line) else { return };
            let arguments = &command["arguments"];
            let returned = match command["execute"].as_str().expect("a name") {
                "guest-sync-delimited" => {
                    let _ = stream.write_all(b"{\"return\": 7}\n{\"return\": {\"coun\xff");
                    json!(arguments["id"])
                }
                "guest-file-open" => {
                    file = if arguments["path"] == "/proc/meminfo" { meminfo } else { pressure };
                    if file.is_none() {
                        let error = r#"{"error": {"class": "GenericError", "desc": "No such file"}}"#;
                        let _ = writeln!(stream, "{error}");
                        continue;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    json!(1000)
                }
                "guest-file-read" => {
                    let text = file.expect("an open file");
                    json!({"count": text.len(), "buf-b64": BASE64_STANDARD.encode(text), "eof": true})
                }
                "guest-file-close" => {
                    counted.fetch_sub(1, Ordering::SeqCst);
                    json!({})
                }
                other => panic!("what is {other}?"),
            };
            let _ = writeln!(stream, "{}", json!({"return": returned}));
        }
    });
    (agent, open)
}

const MEMINFO: &str = "MemTotal: 524288 kB\nMemAvailable: 1024 kB\nCommitted_AS: 2048 kB\n";

#[tokio::test]
async fn an_agent_says_what_a_balloon_does_not() {
    let monitor = monitor(|_, _| None);
    let pressure = "some avg10=25.00 avg60=1.00 avg300=0.00 total=7\n";
    for (pressure, expected) in [(Some(pressure), Some(0.25)), (None, None)] {
        let (agent, open) = agent(Some(MEMINFO), pressure);
        let agent = Some(agent.socket());
        let mut guest = Guest::new(Address::Qemu { monitor: monitor.socket(), agent });
        for _ in 0..2 {
            let report = guest.look().await.expect("a guest").report.expect("a report");
            assert_eq!((report.committed_bytes, report.pressure), (Some(2 * MIB), expected));
            assert_eq!(report.available_bytes, Some(MIB), "it knows better than statistics");
            assert_eq!(open.load(Ordering::SeqCst), 0, "files are closed again");
        }
    }
}

/// The guest is asked all the same.
#[tokio::test]
async fn an_agent_that_is_none_is_nobodys_trouble() {
    let monitor = monitor(|_, _| None);
    let (lying, _) =
        agent(Some("MemAvailable: 99999999999999999999 kB\nCommitted_AS: -7 kB\n"), Some("some avg10=1e9\n"));
    let endless = Bytes::start(b"", &[0xff; 4096]);
    let silent = Mock::start(std::mem::forget);
    for agent in [lying.socket(), endless.socket(), silent.socket(), "/nonexistent/qga".into()] {
        let mut guest = Guest::new(Address::Qemu { monitor: monitor.socket(), agent: Some(agent) });
        let report = guest.look().await.expect("a guest").report.expect("statistics");
        assert_eq!((report.available_bytes, report.committed_bytes), (Some(80 * MIB), None));
        assert_eq!(report.pressure, None);
    }
}
