//! The real daemon, in a runtime directory of its own.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{namespace::Namespace, places, process::Process, terminal::Terminal};

const START: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(15);
/// A daemon's own program, in its directory.
const COPY: &str = "tmem";
const POLL: Duration = Duration::from_millis(50);

/// What a tmem command did.
pub struct Answer {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A running `tmem serve`. Dropping it kills the daemon and removes its directory.
pub struct Daemon {
    binary: PathBuf,
    process: Process,
    directory: TempDir,
}

impl Daemon {
    /// Starts a daemon whose pool has this size, and waits until it answers.
    ///
    /// # Errors
    /// The binary is missing, or the daemon does not come up.
    pub fn start(pool_size: &str) -> Result<Self> {
        Self::start_with(pool_size, &[], None)
    }

    /// The same with further flags, in a network of its own where one is given.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_with(pool_size: &str, more: &[String], network: Option<&Namespace>) -> Result<Self> {
        let binary = places::tmem_binary()?;
        let command = match network {
            Some(network) => network.command(&binary)?,
            None => Command::new(&binary),
        };
        Self::start_command(command, binary, pool_size, more)
    }

    /// A daemon that goes wrong on purpose, as the plan says.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_faulty(pool_size: &str, more: &[String], plan: &str) -> Result<Self> {
        let binary = places::faulty_binary()?;
        let mut command = Command::new(&binary);
        command.env("TMEM_FAULTS", plan);
        Self::start_command(command, binary, pool_size, more)
    }

    /// A daemon from a copy of the program that lies in its directory, where [`Daemon::replace_program`] puts another. The plan is for that one,
    /// if it goes wrong on purpose.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_copy(pool_size: &str, plan: &str) -> Result<Self> {
        let (binary, directory) = (places::tmem_binary()?, places::scratch()?);
        let copy = directory.path().join(COPY);
        fs::copy(&binary, &copy).with_context(|| format!("cannot copy {}", binary.display()))?;
        let mut command = Command::new(copy);
        command.env("TMEM_FAULTS", plan);
        let process = serve(&mut command, directory.path(), pool_size, &[])?;
        Ok(Self { binary, process, directory })
    }

    /// Puts the program that goes wrong on purpose, or the usual one, in the place of the one that [`Daemon::start_copy`] started.
    ///
    /// # Errors
    /// It is not there, or cannot be copied.
    pub fn replace_program(&self, by_faulty: bool) -> Result<()> {
        let other = if by_faulty { places::faulty_binary()? } else { places::tmem_binary()? };
        let new = self.directory.path().join("new");
        fs::copy(&other, &new).with_context(|| format!("cannot copy {}", other.display()))?;
        fs::rename(&new, self.directory.path().join(COPY)).context("cannot put a program in its place")
    }

    fn start_command(
        mut command: Command,
        binary: PathBuf,
        pool_size: &str,
        more: &[String],
    ) -> Result<Self> {
        let directory = places::scratch()?;
        let process = serve(&mut command, directory.path(), pool_size, more)?;
        Ok(Self { binary, process, directory })
    }

    /// `kill -9` for all of it, and nobody follows.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Another daemon in the place of one that was killed.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_again(&mut self, pool_size: &str) -> Result<()> {
        self.process = serve(&mut Command::new(&self.binary), self.directory.path(), pool_size, &[])?;
        Ok(())
    }

    /// A terminal of this size in which a tmem command runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn terminal(&self, arguments: &[&str], columns: u16, rows: u16) -> Result<Terminal> {
        let mut command = Command::new(&self.binary);
        command.arg("--runtime-dir").arg(self.directory.path().join("run")).args(arguments);
        Terminal::start(command, columns, rows)
    }

    /// A request to its admin socket, `GET /metrics` and the like; gives the body of an answer that says yes.
    ///
    /// # Errors
    /// It is not there, or it said no.
    pub fn admin(&self, request: &str, body: &str) -> Result<String> {
        let socket = self.directory.path().join("run/admin.sock");
        let mut stream = UnixStream::connect(&socket).context("no admin socket")?;
        let length = body.len();
        let head = "Host: tmem\r\nContent-Type: application/json";
        write!(stream, "{request} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("the admin socket broke off")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 2"), "{request}: {answer}");
        Ok(body.to_owned())
    }

    /// Tells it what a balancer would that has one guest, and has just decided about it.
    ///
    /// # Errors
    /// As [`Daemon::admin`].
    pub fn report_balance(&self, guest: &str, reason: &str) -> Result<()> {
        let guests = json!([{
            "name": guest, "kind": "qemu", "size_bytes": 1u64 << 30, "target_bytes": 1u64 << 29,
            "floor_bytes": 1u64 << 28, "ceiling_bytes": 1u64 << 30, "weight": 100, "answers": true,
            "available_bytes": 1u64 << 27, "pressure": 0.25, "reason": reason, "trouble": null,
        }]);
        let decisions = json!([{
            "unix_ms": 0, "guest": guest, "from_bytes": 1u64 << 30, "to_bytes": 1u64 << 29, "reason": reason,
        }]);
        let report = json!({
            "pid": 1, "policy": "reuse", "dry_run": false, "interval_seconds": 1.0, "budget_bytes": 1u64 << 31,
            "guests": guests, "decisions": decisions, "heard": 0,
        });
        self.admin("POST /api/v1/balance", &report.to_string()).map(drop)
    }

    /// The program that it runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A directory that lives as long as the daemon.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a tmem command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn tmem(&self, arguments: &[&str]) -> Result<Answer> {
        let output = Command::new(&self.binary)
            .arg("--runtime-dir")
            .arg(self.directory.path().join("run"))
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        Ok(Answer {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a tmem command that has to succeed, and returns what it printed.
    ///
    /// # Errors
    /// It did not exit with 0.
    pub fn tmem_ok(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.tmem(arguments)?;
        if answer.code != Some(0) {
            bail!("tmem {} exited with {:?}: {}", arguments.join(" "), answer.code, answer.stderr);
        }
        Ok(answer.stdout)
    }

    /// Makes a disk on a vhost-user socket; `more` are further flags.
    ///
    /// # Errors
    /// The daemon refused.
    pub fn add_disk(&self, name: &str, size: &str, more: &[&str]) -> Result<()> {
        let socket = self.directory.path().join(format!("{name}.sock"));
        let socket = socket.to_str().context("the socket's path is not UTF-8")?;
        let arguments = [&["disk", "add", name, "--size", size, "--vhost-user", socket], more].concat();
        self.tmem_ok(&arguments).map(drop)
    }

    /// Exports a disk over NBD; gives where it came to be.
    ///
    /// # Errors
    /// The daemon refused.
    pub fn add_nbd_disk(&self, name: &str, size: &str, place: &str, more: &[&str]) -> Result<String> {
        self.tmem_ok(&[&["disk", "add", name, "--size", size, "--nbd", place], more].concat())?;
        let disk = &self.client_entry(name)?["disk"];
        let place = disk["socket"].as_str().or(disk["address"].as_str());
        place.map(str::to_owned).with_context(|| format!("no place of {name}: {disk}"))
    }

    /// What a guest with so much memory needs on its command line to have this disk.
    ///
    /// # Errors
    /// The daemon has no such disk.
    pub fn guest_arguments(&self, disk: &str, vmm: &str, memory_mib: u64) -> Result<Vec<String>> {
        let memory = format!("{memory_mib}M");
        let text = self.tmem_ok(&["guest-config", disk, "--vmm", vmm, "--memory", &memory, "--args-only"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The status document.
    ///
    /// # Errors
    /// The daemon does not answer with JSON.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.tmem_ok(&["status", "--json"])?).context("status is no JSON")
    }

    /// A number of the pool, by its name in the status.
    ///
    /// # Errors
    /// There is no such number.
    pub fn pool(&self, field: &str) -> Result<u64> {
        self.status()?["pool"][field].as_u64().with_context(|| format!("status has no pool.{field}"))
    }

    /// A number of a client, by its name in the status.
    ///
    /// # Errors
    /// There is no such client or number.
    pub fn client(&self, name: &str, field: &str) -> Result<u64> {
        let client = self.client_entry(name)?;
        client[field].as_u64().with_context(|| format!("status has no {field} of client {name}"))
    }

    /// Whether a guest is connected to a disk.
    ///
    /// # Errors
    /// There is no such disk.
    pub fn is_connected(&self, disk: &str) -> Result<bool> {
        let client = self.client_entry(disk)?;
        client["disk"]["connected"].as_bool().with_context(|| format!("{disk} is no disk: {client}"))
    }

    fn client_entry(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let clients = status["clients"].as_array().context("status has no clients")?;
        let found = clients.iter().find(|client| client["name"] == name);
        found.cloned().with_context(|| format!("status has no client {name}"))
    }

    /// What it logged after the first so many lines.
    pub fn lines_after(&self, known: usize) -> Vec<String> {
        self.process.lines_after(known)
    }

    /// The process that was started, which keeps what must outlive the one that serves.
    pub fn keeper(&self) -> u32 {
        self.process.id()
    }

    /// The process that serves: the keeper's child.
    ///
    /// # Errors
    /// There is none just now, or there are two.
    pub fn worker(&self) -> Result<u32> {
        let keeper = self.process.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))
            .with_context(|| format!("keeper {keeper} is gone"))?;
        let [worker] = children.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("keeper {keeper} has these children: `{children}`");
        };
        worker.parse().with_context(|| format!("no process id: {worker}"))
    }

    /// `kill -9` for the process that serves. Gives its id.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_worker(&self) -> Result<u32> {
        let worker = self.worker()?;
        let id = libc::pid_t::try_from(worker)?;
        // SAFETY: kill() touches no memory. The keeper has not waited for its child, or there is another: both are this daemon's.
        unsafe { libc::kill(id, libc::SIGKILL) };
        Ok(worker)
    }

    /// Waits until another process than that one serves.
    ///
    /// # Errors
    /// The time is up.
    pub fn wait_for_worker_after(&self, dead: u32, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !(self.worker().is_ok_and(|worker| worker != dead) && self.status().is_ok()) {
            if Instant::now() > deadline {
                bail!(
                    "no worker after {dead} within {timeout:?}; the daemon said:\n{}",
                    self.process.lines().join("\n")
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until something is true.
    ///
    /// # Errors
    /// It could not be asked, or the time is up; `what` says what did not come true.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !condition(self)? {
            if Instant::now() > deadline {
                bail!("not within {timeout:?}: {what}; status: {:#}", self.status()?);
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Stops the daemon as a service manager does, and returns what it logged.
    ///
    /// # Errors
    /// It does not end in time, or not with exit code 0.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.process.terminate();
        let status = self.process.wait(STOP)?;
        if !status.success() {
            bail!("tmem serve ended with {status}:\n{}", self.process.lines().join("\n"));
        }
        Ok(self.process.lines())
    }
}

/// Starts a daemon that has its runtime directory in this one, and waits until it answers.
fn serve(command: &mut Command, directory: &Path, pool_size: &str, more: &[String]) -> Result<Process> {
    command.arg("--runtime-dir").arg(directory.join("run"));
    command.args(["serve", "--pool-size", pool_size]).args(more);
    if !more.iter().any(|flag| flag == "--http") {
        command.args(["--http", "off"]);
    }
    let process = Process::start("tmem serve", command)?;
    process.wait_for("tmem ", START)?;
    Ok(process)
}
