//! How long workers are waited for.

use std::time::{Duration, Instant};

use super::Keeper;
use crate::{
    hired::{Hired, SPARE_STAND_BY, STAND_BY},
    log_lines::say,
    post_mortem,
};

/// A worker that has closed its socket has this long to end.
const LEAVE: Duration = Duration::from_secs(60);
/// A hung worker has this long to say where its threads are.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Keeper<'_> {
    /// Kills whoever has not been heard of for too long.
    pub(super) fn look_after_hung(&mut self) {
        let now = Instant::now();
        let hung = |hired: &Hired, patience| !hired.is_ending && now.duration_since(hired.heard) >= patience;
        for hired in [&mut self.serving, &mut self.next, &mut self.spare.hired].into_iter().flatten() {
            if !hired.is_heard && hung(hired, LEAVE) {
                say(format_args!("error: worker {} neither serves nor ends and is killed", hired.worker.pid));
                hired.worker.signal(libc::SIGKILL);
                hired.is_ending = true;
            }
        }
        if let Some(serving) = &mut self.serving
            && serving.is_starting()
            && now >= serving.worker.started + self.options.start
        {
            let (pid, limit) = (serving.worker.pid, self.options.start);
            say(format_args!("error: worker {pid} does not serve {limit:?} after its start and is killed"));
            serving.worker.signal(libc::SIGKILL);
            serving.is_ending = true;
        }
        if let (Some(serving), Some(patience)) = (&mut self.serving, self.options.patience)
            && serving.is_ready
        {
            match serving.asked {
                None if hung(serving, patience) => {
                    let pid = serving.worker.pid;
                    say(format_args!(
                        "error: worker {pid} was silent for {patience:?}: it hangs and is killed"
                    ));
                    // Where the host waits for this worker to find memory, a child would, too.
                    if !self.spare.is_there() {
                        post_mortem::describe(pid);
                    }
                    serving.worker.signal(libc::SIGUSR1);
                    serving.asked = Some(now);
                }
                Some(asked) if now >= asked + LAST_WORDS => {
                    serving.worker.signal(libc::SIGKILL);
                    (serving.asked, serving.is_ending) = (None, true);
                }
                _ => {}
            }
        }
        let limits = [(&mut self.next, STAND_BY), (&mut self.spare.hired, SPARE_STAND_BY)];
        for (late, limit) in limits.into_iter().filter_map(|(hired, limit)| Some((hired.as_mut()?, limit))) {
            if late.is_late(now, limit) {
                say(format_args!("error: worker {} did not stand by in time and is killed", late.worker.pid));
                late.worker.signal(libc::SIGKILL);
                late.is_ending = true;
            }
        }
    }

    /// Until something has to be done whatever happens. -1: never.
    pub(super) fn timeout_ms(&self) -> libc::c_int {
        let now = Instant::now();
        let is_free = self.serving.is_none() && self.next.is_none() && !self.spare.is_coming();
        let start = self.start_at.as_ref().filter(|_| is_free).map(|(at, _)| *at);
        let silent = |hired: &Hired, patience| (!hired.is_ending).then(|| hired.heard + patience);
        let hung = self.serving.as_ref().filter(|serving| serving.is_ready);
        let hung = hung.zip(self.options.patience).and_then(|(serving, patience)| match serving.asked {
            Some(asked) => Some(asked + LAST_WORDS),
            None => silent(serving, patience),
        });
        let late = [(&self.next, STAND_BY), (&self.spare.hired, SPARE_STAND_BY)].into_iter();
        let late = late.filter_map(|(hired, limit)| Some((hired.as_ref()?, limit)));
        let late = late.filter(|(hired, _)| !hired.wants_to_take && !hired.is_ending);
        let late = late.map(|(hired, limit)| hired.worker.started + limit).min();
        let starts = self.serving.as_ref().filter(|serving| serving.is_starting());
        let starts = starts.map(|serving| serving.worker.started + self.options.start);
        let spare = self.spare.start_at().filter(|_| self.may_have_spare());
        let left = [&self.serving, &self.next, &self.spare.hired]
            .into_iter()
            .flatten()
            .filter(|hired| !hired.is_heard);
        let left = left.filter_map(|hired| silent(hired, LEAVE)).min();
        let first = [start, starts, hung, late, spare, left].into_iter().flatten().min();
        let wait_ms = |at: Instant| at.saturating_duration_since(now).as_millis() + 1;
        first.map_or(-1, |at| libc::c_int::try_from(wait_ms(at)).unwrap_or(libc::c_int::MAX))
    }
}
