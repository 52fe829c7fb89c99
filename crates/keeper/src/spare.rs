//! The spare worker: it stands by with all its memory, to follow at once when the one that serves dies.
//!
//! ```text
//! wanted --a pause--> started --Take--> stands by --the other dies--> serves
//!   ^                    |                 |--another program takes over, not wanted any more--> dismissed
//!   '--a longer pause----'--ends by itself-'
//! ```

use std::time::{Duration, Instant};

use crate::{hired::Hired, log_lines::say};

/// Between a worker's word that it serves and its spare one's start: workers that die one after the other do not cost two processes each.
const PAUSE: Duration = Duration::from_millis(500);
/// After each failure in a row the pause is twice as long, up to so many times: half an hour.
const MOST_DOUBLINGS: u32 = 12;

/// See the module.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) hired: Option<Hired>,
    /// It was told to go, so its end is none of its own.
    is_dismissed: bool,
    /// What the worker that serves said last of what one has to be ready for; 0: none is wanted.
    wanted: u32,
    not_before: Option<Instant>,
    /// Those in a row that ended by themselves, or could not be started.
    failures: u32,
}

impl Spare {
    /// The worker that serves wants one, or with 0 none. Where it wants another than there is, that one goes. Gives 0.
    pub(crate) fn is_wanted(&mut self, number: u32) -> u32 {
        if self.wanted != number {
            self.wanted = number;
            self.dismiss();
            self.may_come_after_a_pause();
        }
        0
    }

    /// Not at once.
    pub(crate) fn may_come_after_a_pause(&mut self) {
        self.not_before = Some(Instant::now() + PAUSE * (1 << self.failures.min(MOST_DOUBLINGS)));
    }

    /// When one is to be started, if one is wanted and there is none.
    pub(crate) fn start_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.wanted > 0 && self.hired.is_none())
    }

    /// One stands by.
    pub(crate) fn is_there(&self) -> bool {
        self.ready().is_some()
    }

    /// One is there or on its way.
    pub(crate) fn is_coming(&self) -> bool {
        self.hired.as_ref().is_some_and(|hired| !hired.is_ending)
    }

    /// The number of the process that stands by; 0: none does.
    pub(crate) fn ready_pid(&self) -> u32 {
        self.ready().map_or(0, |hired| hired.worker.pid as u32)
    }

    fn ready(&self) -> Option<&Hired> {
        self.hired.as_ref().filter(|hired| hired.wants_to_take && !hired.is_ending)
    }

    /// The one that stands by, to serve.
    pub(crate) fn take(&mut self) -> Option<Hired> {
        self.ready()?;
        self.hired.take()
    }

    /// Ends the one that is there.
    pub(crate) fn dismiss(&mut self) {
        if let Some(hired) = &mut self.hired {
            hired.worker.signal(libc::SIGKILL);
            (hired.is_ending, self.is_dismissed) = (true, true);
        }
    }

    /// Sees whether it has died.
    pub(crate) fn bury(&mut self) {
        let Some(end) = self.hired.as_ref().and_then(|hired| hired.worker.ended()) else { return };
        self.hired = None;
        if !std::mem::take(&mut self.is_dismissed) {
            self.failed(format_args!("{end}"));
        }
    }

    /// One that ends by itself would do so again.
    pub(crate) fn failed(&mut self, why: std::fmt::Arguments<'_>) {
        self.failures = self.failures.saturating_add(1);
        self.may_come_after_a_pause();
        say(format_args!("warn: no spare worker stands by: {why}; there will be another try"));
    }

    /// Somebody has looked into it.
    pub(crate) fn forget_failures(&mut self) {
        self.failures = 0;
    }
}
