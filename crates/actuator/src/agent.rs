//! QEMU's guest agent (<https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>): reads two files in the guest, for what balloon statistics
//! do not have.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tmem_balance::Report;

use crate::{
    ActuatorError,
    json_lines::{JsonLines, returned},
    kernel_text::{meminfo_bytes, some_pressure},
    limits::{in_time, quoted},
};

/// Both files are far shorter.
const READ_BYTES: usize = 16 << 10;
/// An agent that did not answer is not asked for so long: each time takes as long as a call may.
const PAUSE: Duration = Duration::from_secs(30);
/// Ends whatever the agent has of a command that was never finished, and comes before the answer to what makes it do so.
const SENTINEL: u8 = 0xff;

/// See the module.
pub(crate) struct Agent {
    socket: PathBuf,
    connected: Option<JsonLines>,
    /// A file that is open in the guest.
    open: Option<Value>,
    /// Tells answers to this connection from those to the one before it.
    synced: u64,
    not_before: Option<Instant>,
}

impl Agent {
    pub(crate) fn new(socket: PathBuf) -> Agent {
        Agent { socket, connected: None, open: None, synced: 0, not_before: None }
    }

    /// What it says. `None`: nothing, which is said to the log and is nobody's trouble.
    pub(crate) async fn read(&mut self) -> Option<Report> {
        if self.not_before.is_some_and(|then| Instant::now() < then) {
            return None;
        }
        let socket = self.socket.clone();
        match in_time(&socket, self.ask()).await {
            Ok(report) => {
                if self.not_before.take().is_some() {
                    log::info!("the guest's agent at {} answers again", socket.display());
                }
                Some(report)
            }
            Err(error) => {
                if self.not_before.is_none() {
                    log::warn!("the guest's agent is not asked for now: {error}");
                }
                self.not_before = Some(Instant::now() + PAUSE);
                None
            }
        }
    }

    async fn ask(&mut self) -> Result<Report, ActuatorError> {
        let mut lines = match self.connected.take() {
            Some(lines) => lines,
            None => self.connect().await?,
        };
        let meminfo = self.read_file(&mut lines, "/proc/meminfo").await?;
        // Guests whose kernel keeps no account of it have no such file.
        let pressure = self.read_file(&mut lines, "/proc/pressure/memory").await;
        let pressure = match pressure {
            Err(ActuatorError::Refused { .. }) => None,
            text => some_pressure(&text?),
        };
        self.connected = Some(lines);
        Ok(Report {
            available_bytes: meminfo_bytes(&meminfo, "MemAvailable"),
            committed_bytes: meminfo_bytes(&meminfo, "Committed_AS"),
            pressure,
        })
    }

    /// Connects, and finds the way past what is left of whoever was connected before.
    async fn connect(&mut self) -> Result<JsonLines, ActuatorError> {
        let mut lines = JsonLines::connect(&self.socket).await?;
        self.synced += 1;
        let id = u64::from(std::process::id()) << 20 | self.synced & 0xf_ffff;
        let sync = json!({"execute": "guest-sync-delimited", "arguments": {"id": id}});
        lines.send(&[SENTINEL], &sync).await?;
        loop {
            let line = lines.line().await?;
            let answer = line.rsplit(|byte| *byte == SENTINEL).next().unwrap_or_default();
            let value: Option<Value> = serde_json::from_slice(answer).ok();
            if value.is_some_and(|value| value.get("return").and_then(Value::as_u64) == Some(id)) {
                break;
            }
        }
        if let Some(handle) = self.open.take() {
            // It fails where the agent was started anew.
            let _ = command(&mut lines, "guest-file-close", json!({"handle": handle})).await;
        }
        Ok(lines)
    }

    async fn read_file(&mut self, lines: &mut JsonLines, path: &str) -> Result<String, ActuatorError> {
        let handle = command(lines, "guest-file-open", json!({"path": path, "mode": "r"})).await?;
        if !handle.is_i64() {
            return Err(lines.garbage(handle.to_string().as_bytes()));
        }
        self.open = Some(handle.clone());
        let read = json!({"handle": handle, "count": READ_BYTES});
        let content = command(lines, "guest-file-read", read).await;
        command(lines, "guest-file-close", json!({"handle": handle})).await?;
        self.open = None;
        let content = content?;
        let text = content.get("buf-b64").and_then(Value::as_str);
        let bytes = text.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let bytes = bytes.ok_or_else(|| lines.garbage(content.to_string().as_bytes()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

async fn command(lines: &mut JsonLines, name: &str, arguments: Value) -> Result<Value, ActuatorError> {
    lines.send(b"", &json!({"execute": name, "arguments": arguments})).await?;
    let mut answer = lines.value().await?;
    match returned(&mut answer) {
        Some(Ok(value)) => Ok(value),
        Some(Err(why)) => {
            let (place, request) =
                (lines.place().into(), format!("{name} {}", quoted(&arguments.to_string())));
            Err(ActuatorError::Refused { place, request, why })
        }
        None => Err(lines.garbage(answer.to_string().as_bytes())),
    }
}
