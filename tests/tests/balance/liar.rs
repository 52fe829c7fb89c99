//! A monitor that is played: it answers, and its guest does not do what it is told.

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
    /// The least that it was told to keep, in bytes.
    least_told: Arc<AtomicU64>,
}

impl Liar {
    /// Has so much, keeps it whatever it is told, and says that so much of it is available.
    pub fn new(socket: &Path, size_bytes: u64, available_bytes: u64) -> Result<Liar> {
        let listener = UnixListener::bind(socket)?;
        let least_told = Arc::new(AtomicU64::new(u64::MAX));
        let told = least_told.clone();
        // The thread ends with the test's process.
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // Whoever hangs up may come again.
                let _over = converse(stream, size_bytes, available_bytes, &told);
            }
        });
        Ok(Liar { least_told })
    }

    pub fn least_told_bytes(&self) -> u64 {
        self.least_told.load(Ordering::Relaxed)
    }
}

fn converse(stream: UnixStream, size_bytes: u64, available_bytes: u64, least_told: &AtomicU64) -> Result<()> {
    let mut say = stream.try_clone()?;
    writeln!(say, "{}", json!({"QMP": {"version": {}, "capabilities": []}}))?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match request["execute"].as_str().unwrap_or_default() {
            "balloon" => {
                let told_bytes = request["arguments"]["value"].as_u64().unwrap_or(0);
                least_told.fetch_min(told_bytes, Ordering::Relaxed);
                json!({})
            }
            "query-balloon" => json!({"actual": size_bytes}),
            "query-memory-size-summary" => json!({"base-memory": size_bytes}),
            "qom-list" => json!([{"name": "device[0]", "type": "child<virtio-balloon-pci>"}]),
            "qom-get" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                json!({"last-update": now, "stats": {"stat-available-memory": available_bytes}})
            }
            _ => json!({}),
        };
        writeln!(say, "{}", json!({"return": answer}))?;
    }
    Ok(())
}
