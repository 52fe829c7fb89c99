//! A QEMU monitor, as far as it is needed here: one command, one answer.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// A conversation with a monitor.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    pub(super) fn connect(socket: &Path) -> Result<Monitor> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut monitor = Monitor { stream: BufReader::new(stream) };
        ensure!(monitor.message()?["QMP"].is_object(), "no greeting");
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Has the guest keep so much.
    pub(super) fn balloon(&mut self, bytes: u64) -> Result<()> {
        self.ask("balloon", &json!({ "value": bytes })).map(drop)
    }

    /// What the guest has, in bytes.
    pub(super) fn size_bytes(&mut self) -> Result<u64> {
        let answer = self.ask("query-balloon", &json!({}))?;
        answer["actual"].as_u64().with_context(|| format!("no size: {answer}"))
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let message = self.message()?;
            if message.get("return").is_some() {
                return Ok(message["return"].clone());
            }
            ensure!(message.get("error").is_none(), "{command}: {message}");
            // An event.
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).context("the monitor says nothing")?;
        ensure!(read > 0, "the monitor has hung up");
        serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))
    }
}
