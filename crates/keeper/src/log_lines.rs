//! What the keeper says, to whoever reads its stderr.

use std::{
    io,
    time::{Duration, Instant},
};

/// A line to stderr, as the worker's lines are, without memory from the heap. One that nobody reads is not waited for.
pub(crate) fn say(text: std::fmt::Arguments<'_>) {
    let mut line = arrayvec::ArrayVec::<u8, 1024>::new();
    // A line that is too long is cut.
    let _ = io::Write::write_fmt(&mut line, format_args!("tmem: {text}\n"));
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid entry; the buffer is valid for its length. A line that cannot be written has nobody to be told to.
    unsafe {
        if libc::poll(&mut stderr, 1, 0) == 1 {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        }
    }
}

/// Keeps guests from filling the log: a line in this time says that one was turned away.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);

/// What is said of guests that were turned away.
#[derive(Default)]
pub(crate) struct Complaints {
    last: Option<Instant>,
    hidden: u64,
}

impl Complaints {
    pub(crate) fn tell(&mut self, label: &[u8], error: &dyn std::fmt::Display) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < COMPLAIN_EVERY) {
            self.hidden += 1;
            return;
        }
        self.last = Some(now);
        let hidden = std::mem::take(&mut self.hidden);
        say(format_args!(
            "warn: guest of {}: connection closed: {error} ({hidden} like it not logged)",
            label.escape_ascii()
        ));
    }
}
