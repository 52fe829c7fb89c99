//! A monitor that is played: it answers, and its guest says what it likes of itself.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde_json::{Value, json};

/// A guest that says what it likes.
pub struct Liar {
    state: Arc<State>,
}

struct State {
    most_bytes: u64,
    size_bytes: AtomicU64,
    available_bytes: u64,
    obeys: bool,
    /// The least that it was told to keep, in bytes.
    least_told: AtomicU64,
}

impl Liar {
    /// Has so much, says that so much is available, and does what it is told or nothing.
    pub fn new(socket: &Path, size_bytes: u64, available_bytes: u64, obeys: bool) -> Result<Liar> {
        let listener = UnixListener::bind(socket)?;
        let (most_bytes, least_told) = (size_bytes, AtomicU64::new(u64::MAX));
        let size_bytes = AtomicU64::new(size_bytes);
        let state = Arc::new(State { most_bytes, size_bytes, available_bytes, obeys, least_told });
        let told = state.clone();
        // The thread ends with the test's process.
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // Whoever hangs up may come again.
                let _over = converse(stream, &told);
            }
        });
        Ok(Liar { state })
    }

    pub fn least_told_bytes(&self) -> u64 {
        self.state.least_told.load(Ordering::Relaxed)
    }
}

fn converse(stream: UnixStream, state: &State) -> Result<()> {
    let mut say = stream.try_clone()?;
    writeln!(say, "{}", json!({"QMP": {"version": {}, "capabilities": []}}))?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match request["execute"].as_str().unwrap_or_default() {
            "balloon" => {
                let told_bytes = request["arguments"]["value"].as_u64().unwrap_or(0);
                state.least_told.fetch_min(told_bytes, Ordering::Relaxed);
                if state.obeys {
                    state.size_bytes.store(told_bytes.min(state.most_bytes), Ordering::Relaxed);
                }
                json!({})
            }
            "query-balloon" => json!({"actual": state.size_bytes.load(Ordering::Relaxed)}),
            "query-memory-size-summary" => json!({"base-memory": state.most_bytes}),
            "qom-list" => json!([{"name": "device[0]", "type": "child<virtio-balloon-pci>"}]),
            "qom-get" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                json!({"last-update": now, "stats": {"stat-available-memory": state.available_bytes}})
            }
            _ => json!({}),
        };
        writeln!(say, "{}", json!({"return": answer}))?;
    }
    Ok(())
}
