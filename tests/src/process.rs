//! A child process whose output is read line by line, and that ends with its test, also when that panics.

use std::{
    io::{BufRead, BufReader},
    mem::MaybeUninit,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);
/// How many lines of output an error shows.
const SHOWN_LINES: usize = 30;

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running child in a process group of its own. Dropping it kills the group.
pub struct Process {
    name: String,
    child: Child,
    waited_for: bool,
    output: Arc<Output>,
}

impl Process {
    /// Starts a command without input.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        // Both streams go through one pipe, so that lines keep their order.
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let second = writer.try_clone().context("cannot share a pipe")?;
        command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        // The command holds the pipe's writing end; without it, the reader never sees the end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let output = Arc::<Output>::default();
        let sink = Arc::clone(&output);
        thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                sink.lock().all.push(line);
                sink.more.notify_all();
            }
            sink.lock().ended = true;
            sink.more.notify_all();
        });
        Ok(Self { name: name.to_owned(), child, waited_for: false, output })
    }

    /// Waits for a line that starts with `prefix` and returns what follows it.
    ///
    /// # Errors
    /// The time is up, or the process closed its output without that line.
    pub fn wait_for(&self, prefix: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut lines = self.output.lock();
        loop {
            if let Some(rest) = lines.all.iter().find_map(|line| line.strip_prefix(prefix)) {
                return Ok(rest.trim().to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                let what = if lines.ended { "ended".to_owned() } else { format!("took over {timeout:?}") };
                let last = tail(&lines.all);
                return Err(anyhow!("{} {what} without `{prefix}`; its last lines:\n{last}", self.name));
            }
            lines = self.output.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().all.clone()
    }

    /// The lines after the first so many.
    pub fn lines_after(&self, known: usize) -> Vec<String> {
        self.output.lock().all.get(known..).unwrap_or_default().to_vec()
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// The time is up.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.has_ended() {
                return self.end();
            }
            if Instant::now() > deadline {
                bail!(
                    "{} still runs after {timeout:?}; its last lines:\n{}",
                    self.name,
                    tail(&self.output.lock().all)
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the process itself, not its group, to end.
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM, false);
    }

    /// `kill -9` for the process and all that it started, and waits for its end.
    pub fn kill(&mut self) {
        if !self.waited_for {
            // It fails only for a child that somebody else waited for.
            let _ = self.end();
        }
    }

    /// Whether the process itself has ended. It stays a zombie, so that its id, and its group's, stays taken.
    fn has_ended(&self) -> bool {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is writable for one siginfo_t, and all zeroes is a valid one.
        unsafe {
            libc::waitid(libc::P_PID, self.child.id(), info.as_mut_ptr(), flags) == 0
                && info.assume_init().si_signo == libc::SIGCHLD
        }
    }

    /// Kills what is left of the group (User-Mode Linux leaves helpers behind), then waits for the process.
    fn end(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGKILL, true);
        self.waited_for = true;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    fn signal(&self, signal: libc::c_int, group: bool) {
        let Ok(id) = libc::pid_t::try_from(self.child.id()) else { return };
        if !self.waited_for {
            // SAFETY: kill() touches no memory. The child leads its group, and nobody else can have its id before
            // it was waited for.
            unsafe { libc::kill(if group { -id } else { id }, signal) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
