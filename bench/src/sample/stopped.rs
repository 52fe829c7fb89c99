//! Holding a process while its memory is copied.
//!
//! By `ptrace`, not SIGSTOP: the process's parent sees nothing of it, a process that was stopped before stays stopped after, and if
//! this program dies the kernel lets the process go by itself.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use libc::{c_int, c_uint, pid_t};

use crate::{error::BenchError, interrupt::Interrupt};

/// A thread stops within microseconds, unless it waits in the kernel for a device.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process of which no thread runs, until this value is dropped.
pub(super) struct Stopped {
    threads: Vec<Thread>,
}

struct Thread {
    id: pid_t,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    /// It goes on with this signal, which was just arriving; 0 = none.
    Stopped(c_int),
    Ended,
}

impl Stopped {
    /// Errors: the process may not be traced, is traced already, or does not stop.
    pub(super) fn stop(pid: u32, interrupt: &Interrupt) -> Result<Self, BenchError> {
        let mut stopped = Self { threads: Vec::new() };
        let end = Instant::now() + PATIENCE;
        // A thread that has not stopped yet may start another one.
        while stopped.ask_new_threads(pid).map_err(|error| BenchError::Stop { pid, error })? {
            while stopped.threads.iter_mut().any(|thread| !thread.has_stopped()) {
                interrupt.check()?;
                if Instant::now() > end {
                    return Err(BenchError::Stop { pid, error: io::ErrorKind::TimedOut.into() });
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(stopped)
    }

    /// Asks all threads to stop that were not asked before; says whether there were any.
    fn ask_new_threads(&mut self, pid: u32) -> io::Result<bool> {
        let before = self.threads.len();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.threads.iter().any(|thread| thread.id == id) {
                continue;
            }
            match ptrace(libc::PTRACE_SEIZE, id, 0) {
                Ok(()) => {
                    self.threads.push(Thread { id, state: State::Asked });
                    // It may have ended since; waiting will show.
                    let _ = ptrace(libc::PTRACE_INTERRUPT, id, 0);
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.threads.len() > before)
    }
}

impl Thread {
    fn has_stopped(&mut self) -> bool {
        if self.state == State::Asked {
            let mut status = 0;
            // SAFETY: writes to `status` only.
            let waited = unsafe { libc::waitpid(self.id, &raw mut status, libc::WNOHANG | libc::__WALL) };
            if waited == self.id && libc::WIFSTOPPED(status) {
                let asked_for = status >> 16 == libc::PTRACE_EVENT_STOP;
                self.state = State::Stopped(if asked_for { 0 } else { libc::WSTOPSIG(status) });
            } else if waited != 0 {
                self.state = State::Ended;
            }
        }
        self.state != State::Asked
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            // One that was asked but not waited for is let go by the kernel when this program ends, if not here.
            thread.has_stopped();
            let signal = if let State::Stopped(signal) = thread.state { signal } else { 0 };
            let _ = ptrace(libc::PTRACE_DETACH, thread.id, signal);
        }
    }
}

fn ptrace(request: c_uint, thread: pid_t, data: c_int) -> io::Result<()> {
    // SAFETY: the requests used here take no addresses; the last argument is a plain number.
    if unsafe { libc::ptrace(request, thread, 0_usize, data as usize) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
