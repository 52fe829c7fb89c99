//! A Redis server of a test's own, on loopback.

use std::{
    net::TcpListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::Process;

const START: Duration = Duration::from_secs(30);

/// A running server. Dropping it kills the server and removes what it has.
pub struct RedisServer {
    process: Process,
    port: u16,
    _directory: TempDir,
}

impl RedisServer {
    /// Starts one that writes nothing to a disk, and waits until it answers.
    ///
    /// # Errors
    /// There is no redis-server, or it does not come up.
    pub fn start() -> Result<Self> {
        for _ in 0..5 {
            // Somebody else may take the port before the server does.
            let port = TcpListener::bind(("127.0.0.1", 0)).context("a port")?.local_addr()?.port();
            let directory = tempfile::tempdir().context("a directory")?;
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
            command.arg(directory.path());
            let server =
                Self { process: Process::start("redis-server", &mut command)?, port, _directory: directory };
            let deadline = Instant::now() + START;
            while Instant::now() < deadline {
                if server.cli(&["PING"]).is_ok_and(|answer| answer == "PONG") {
                    return Ok(server);
                }
                thread::sleep(Duration::from_millis(50));
            }
        }
        bail!("redis-server does not come up: is it installed?")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it says to a command.
    ///
    /// # Errors
    /// It does not answer.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(words)
            .output()
            .context("redis-cli")?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(said)
    }

    /// The keys that it has, but for the one that says whether it takes any.
    ///
    /// # Errors
    /// It does not answer.
    pub fn keys(&self) -> Result<usize> {
        let keys = self.cli(&["--scan"])?;
        Ok(keys.lines().filter(|key| !key.is_empty() && !key.ends_with(":trial")).count())
    }
}
