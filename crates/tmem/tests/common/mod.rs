//! A real daemon in a directory of its own, and the command line that talks to it.
// Every test file uses another part of it, and a failed step is a failed test.
#![allow(dead_code, clippy::expect_used)]

pub mod nbd;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes more than a second; this is for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `tmem serve`. Dropping it kills it.
pub struct Daemon {
    child: Child,
    pub ready_line: String,
    pub dir: PathBuf,
    _home: Option<TempDir>,
}

/// Sends a signal to a process that this test started.
pub fn send(process: u32, signal: i32) {
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0, "cannot signal {process}");
}

impl Daemon {
    /// In a new directory, with a small pool and a TCP port that the OS chooses.
    pub fn start() -> Self {
        Self::start_with(&["--pool-size", "64M"])
    }

    pub fn start_with(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("directory");
        let dir = home.path().join("run");
        let mut daemon = Self::start_in(&dir, arguments);
        daemon._home = Some(home);
        daemon
    }

    /// With what it says on stderr in a file.
    pub fn start_with_log(arguments: &[&str]) -> (Self, PathBuf) {
        let home = tempfile::tempdir().expect("directory");
        let log = home.path().join("log");
        let file = std::fs::File::create(&log).expect("log");
        let mut daemon = Self::spawn(&home.path().join("run"), arguments, file.into());
        daemon._home = Some(home);
        (daemon, log)
    }

    /// The same from a program that is at some other place.
    pub fn start_program(program: &Path, arguments: &[&str]) -> (Self, PathBuf) {
        let home = tempfile::tempdir().expect("directory");
        let log = home.path().join("log");
        let file = std::fs::File::create(&log).expect("log");
        let mut daemon = Self::spawn_program(program, &home.path().join("run"), arguments, file.into());
        daemon._home = Some(home);
        (daemon, log)
    }

    pub fn start_in(dir: &Path, arguments: &[&str]) -> Self {
        Self::spawn(dir, arguments, Stdio::inherit())
    }

    fn spawn(dir: &Path, arguments: &[&str], stderr: Stdio) -> Self {
        Self::spawn_program(Path::new(env!("CARGO_BIN_EXE_tmem")), dir, arguments, stderr)
    }

    fn spawn_program(program: &Path, dir: &Path, arguments: &[&str], stderr: Stdio) -> Self {
        let mut child = tmem_at(program, &["serve", "--http", "127.0.0.1:0"])
            .arg("--runtime-dir")
            .arg(dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("tmem serve");
        let mut ready_line = String::new();
        let stdout = child.stdout.as_mut().expect("stdout");
        BufReader::new(stdout).read_line(&mut ready_line).expect("ready line");
        assert!(ready_line.contains(" is ready: "), "{ready_line}");
        Self { child, ready_line, dir: dir.to_owned(), _home: None }
    }

    /// The process that was started, which signals go to.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves.
    pub fn worker(&self) -> u32 {
        self.status()["worker_pid"].as_u64().expect("a number") as u32
    }

    /// Runs a command against this daemon.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::new(tmem(arguments).arg("--runtime-dir").arg(&self.dir))
    }

    /// The status document.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "--json"]).ok()).expect("JSON")
    }

    /// The status document without what changes by itself: what a refused request must leave alone.
    pub fn state(&self) -> Value {
        Self::without_what_changes(self.status())
    }

    /// A status document without what changes by itself.
    pub fn without_what_changes(mut status: Value) -> Value {
        status["uptime_seconds"] = Value::Null;
        status["pool"]["held_bytes"] = Value::Null; // memory is found ahead, and given back when it is not used
        for client in status["clients"].as_array_mut().into_iter().flatten() {
            client["metadata_bytes"] = Value::Null; // what is known of pages may take another page of memory at any time
        }
        status
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Adds a disk with a socket in the daemon's directory and gives the socket's path.
    pub fn add(&self, name: &str, size: &str) -> String {
        let socket = self.path(&format!("{name}.sock"));
        assert_eq!(self.run(&["disk", "add", name, "--size", size, "--vhost-user", &socket]).ok(), "");
        socket
    }

    pub fn http_address(&self) -> String {
        self.status()["http"].as_str().expect("address").to_owned()
    }

    /// A request to the admin socket, written by hand.
    pub fn admin(&self, request: &str, body: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.dir.join("admin.sock")).expect("connect");
        exchange(stream, request, body)
    }

    /// A request to the TCP listener, written by hand.
    pub fn http(&self, request: &str) -> (u16, String) {
        exchange(TcpStream::connect(self.http_address()).expect("connect"), request, "")
    }

    /// How often a thread of that name has gone to sleep.
    pub fn naps(&self, thread: &str) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.worker())).expect("tasks");
        let naps = tasks.filter_map(|task| {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            (field("Name:")? == thread).then_some(field("voluntary_ctxt_switches:")?.parse::<u64>().ok()?)
        });
        naps.sum()
    }

    /// What it has used of CPUs.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.worker())).expect("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks"));
        // A tick is a hundredth of a second, whatever the kernel counts in.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    pub fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the daemon ends", || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("status")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A finished command.
pub struct Ran {
    output: Output,
    shown: String,
}

impl Ran {
    /// Runs it to its end; one that does not end is killed and fails the test.
    pub fn new(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
        let mut child = Killed(Some(child));
        eventually(&shown, || {
            child.0.as_mut().is_some_and(|child| child.try_wait().expect("wait").is_some())
        });
        // What these commands print fits in a pipe, so they end although nobody reads it yet.
        let output = child.0.take().expect("child").wait_with_output().expect("output");
        Self { output, shown }
    }

    /// It succeeded and said nothing on stderr; what it said on stdout.
    pub fn ok(&self) -> String {
        let error = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.output.status.success() && error.is_empty(), "{}: {error}", self.shown);
        String::from_utf8(self.output.stdout.clone()).expect("UTF-8")
    }

    /// What it said on stdout, if it succeeded.
    pub fn try_ok(&self) -> Option<String> {
        self.output.status.success().then(|| String::from_utf8(self.output.stdout.clone()).expect("UTF-8"))
    }

    /// It failed with this exit code and one line on stderr that mentions all of these.
    pub fn fails(&self, code: i32, mentions: &[&str]) {
        let error = String::from_utf8_lossy(&self.output.stderr);
        assert_eq!(self.output.status.code(), Some(code), "{}: {error}", self.shown);
        assert!(error.starts_with("tmem: ") && error.matches('\n').count() == 1, "{}: {error}", self.shown);
        for mention in mentions {
            assert!(error.contains(mention), "{}: {error} does not mention {mention}", self.shown);
        }
        assert!(self.output.stdout.is_empty(), "{}", self.shown);
    }
}

/// A process that does not outlive its test.
pub struct Killed(pub Option<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary with arguments, in an environment of its own.
pub fn tmem(arguments: &[&str]) -> Command {
    tmem_at(Path::new(env!("CARGO_BIN_EXE_tmem")), arguments)
}

fn tmem_at(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("NOTIFY_SOCKET").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Ran {
    Ran::new(&mut tmem(arguments))
}

/// Waits for what another process does.
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(10));
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, body: &str) -> (u16, String) {
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: tmem\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    .expect("head");
    // A server that refuses a body may hang up before it is all sent.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status code");
    (code, body.to_owned())
}
