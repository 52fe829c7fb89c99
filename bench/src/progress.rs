//! A line on standard error that shows a long step is alive.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

/// A step that is done sooner needs no progress shown.
const FIRST_SHOWN: Duration = Duration::from_secs(2);

/// One step's progress. Says nothing for steps that are done within two seconds.
pub(crate) struct Progress {
    step: String,
    next: Instant,
    terminal: bool,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(step: String) -> Self {
        let terminal = stderr().is_terminal();
        Self { step, next: Instant::now() + FIRST_SHOWN, terminal, shown: false }
    }

    /// Shows how far the step is; at most once a second on a terminal, every ten seconds in a log.
    pub(crate) fn update(&mut self, now: Instant, done: f64) {
        if now < self.next {
            return;
        }
        let percent = (done * 100.0).min(100.0);
        let (start, end, pause_seconds) = if self.terminal { ("\r", "\x1b[K", 1) } else { ("", "\n", 10) };
        self.next = now + Duration::from_secs(pause_seconds);
        self.shown = true;
        // Progress that cannot be shown is not worth failing for.
        let _ = write!(stderr(), "{start}{}: {percent:.0}%{end}", self.step);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
