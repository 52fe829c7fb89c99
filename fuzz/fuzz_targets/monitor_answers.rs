//! What monitors, the guest's agent and REST servers answer, when they are asked and told.
//!
//! An input begins with who it is; the rest are connections, separated by a zero byte, and what is said on each, whatever is asked. What is seen is
//! possible, errors are one line, and nobody waits longer than a call may take.
#![no_main]

use std::{cell::RefCell, time::Duration};

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tmem_actuator::{Address, Guest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    runtime::Runtime,
};

/// Sockets that are made once.
struct Rig {
    runtime: Runtime,
    directory: TempDir,
    monitor: UnixListener,
    agent: UnixListener,
}

thread_local!(static RIG: RefCell<Rig> = RefCell::new(Rig::new()));

impl Rig {
    fn new() -> Rig {
        // Time that stands still, and goes on at once when everybody waits for it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let listen = |name| {
            let _inside = runtime.enter();
            UnixListener::bind(directory.path().join(name)).expect("a socket")
        };
        let (monitor, agent) = (listen("monitor"), listen("agent"));
        Rig { runtime, directory, monitor, agent }
    }
}

/// When something is said.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// At once.
    First,
    /// When something was asked: what comes before that is not looked at.
    Asked,
    /// The same, behind the answer that an agent has to give first, with the number that it was asked for.
    Synced,
}

/// Says these, one on each connection, and no more.
async fn serve(listener: &UnixListener, when: When, said: &[&[u8]]) {
    for said in said {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut asked = [0; 4096];
        let mut first = Vec::new();
        if when != When::First {
            let got = stream.read(&mut asked).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&asked[..got]).into_owned();
            if let Some((_, id)) = text.split_once("\"id\":").filter(|_| when == When::Synced) {
                let id: String = id.chars().take_while(char::is_ascii_digit).collect();
                first = format!("{{\"return\":{id}}}\n").into_bytes();
            }
        }
        if stream.write_all(&[&first, *said].concat()).await.is_err() {
            continue;
        }
        let _ = stream.shutdown().await;
        // What is asked does not matter, but that it can be.
        while stream.read(&mut asked).await.is_ok_and(|got| got > 0) {}
    }
    // From here on it is closed at once.
    while listener.accept().await.is_ok() {}
}

async fn ask(guest: &mut Guest, target_bytes: u64) {
    for _ in 0..2 {
        match guest.look().await {
            Ok(seen) => {
                assert!((1..=1 << 50).contains(&seen.max_bytes) && seen.size_bytes <= seen.max_bytes);
                if let Some(report) = seen.report {
                    assert!(report.available_bytes.is_none_or(|bytes| bytes <= seen.size_bytes));
                    assert!(report.committed_bytes.is_none_or(|bytes| bytes <= 1 << 50));
                    assert!(report.pressure.is_none_or(|pressure| (0.0..=1.0).contains(&pressure)));
                }
            }
            Err(error) => one_line(&error.to_string()),
        }
        if let Err(error) = guest.set(target_bytes).await {
            one_line(&error.to_string());
        }
    }
}

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control) && text.len() < 2000, "{text:?}");
}

fuzz_target!(|input: &[u8]| {
    let Some((who, rest)) = input.split_first() else { return };
    let connections: Vec<&[u8]> = rest.split(|byte| *byte == 0).collect();
    RIG.with_borrow_mut(|rig| {
        let (monitor, agent) = (rig.directory.path().join("monitor"), rig.directory.path().join("agent"));
        // Under QEMU every other connection is the agent's.
        let qemu = who % 3 == 0;
        let (mut monitors, mut agents) = (Vec::new(), Vec::new());
        for (at, said) in connections.iter().enumerate() {
            if qemu && at % 2 == 1 { agents.push(*said) } else { monitors.push(*said) }
        }
        let first = if qemu { When::First } else { When::Asked };
        let mut guest = Guest::new(match who % 3 {
            0 => Address::Qemu { monitor, agent: Some(agent) },
            1 => Address::CloudHypervisor(monitor),
            _ => Address::Firecracker(monitor),
        });
        rig.runtime.block_on(async {
            let all = async { tokio::time::timeout(Duration::from_secs(30), ask(&mut guest, 1 << 28)).await };
            let served = async {
                tokio::select! { () = serve(&rig.monitor, first, &monitors) => (), () = serve(&rig.agent, When::Synced, &agents) => () }
            };
            tokio::select! {
                asked = all => asked.expect("an answer, or the end of waiting"),
                () = served => unreachable!("a listener fails"),
            }
            // Who has given up is not the next input's.
            for listener in [&rig.monitor, &rig.agent] {
                while tokio::time::timeout(Duration::ZERO, listener.accept()).await.is_ok() {}
            }
        });
    });
});
