//! The plan of this process.

use std::{
    fmt,
    sync::{OnceLock, atomic::AtomicU64},
    thread,
    time::Duration,
};

use crate::{
    dice::{Dice, mix, next},
    plan::{Plan, When},
    points::{Fault, Point},
};

static ARMED: OnceLock<Armed> = OnceLock::new();

/// What this process does wrong, and when.
#[derive(Debug)]
pub struct Armed {
    plan: Plan,
    kills: Vec<Dice>,
    anywhere: Dice,
    faults: Vec<(Dice, Duration)>,
    state: AtomicU64,
}

impl Armed {
    /// Arms this process, of which as many were before as died. Each has its own course of things, and all follow from the plan's seed. Only
    /// the first call counts.
    pub fn arm(plan: Plan, deaths: u32) {
        let _ = ARMED.set(Armed::new(plan, deaths));
    }

    fn new(plan: Plan, deaths: u32) -> Armed {
        let seed = mix(plan.seed ^ mix(u64::from(deaths) + 1));
        let seeds = AtomicU64::new(seed);
        let kill_at = |point: Option<Point>| {
            let seed = next(&seeds);
            match plan.kills.iter().find(|(at, _)| *at == point).map(|(_, when)| *when) {
                Some(When::OneIn(one_in)) => Dice::every(one_in, seed),
                Some(When::Nth(n)) if deaths == 0 => Dice::at(n),
                Some(When::Nth(_)) | None => Dice::default(),
            }
        };
        let fault = |fault: &Fault| {
            let seed = next(&seeds);
            let planned = plan.faults.iter().find(|(of, ..)| of == fault);
            planned.map_or_else(Default::default, |(_, one_in, time)| (Dice::every(*one_in, seed), *time))
        };
        let kills = Point::ALL.iter().map(|point| kill_at(Some(*point))).collect();
        let (anywhere, faults) = (kill_at(None), Fault::ALL.iter().map(fault).collect());
        let state = AtomicU64::new(next(&seeds));
        Armed { plan, kills, anywhere, faults, state }
    }

    fn is_fatal(&self, point: Point) -> bool {
        self.kills[point as usize].hits() | self.anywhere.hits()
    }

    fn comes(&self, fault: Fault) -> Option<Duration> {
        let (dice, time) = &self.faults[fault as usize];
        dice.hits().then_some(*time)
    }
}

/// The plan, in its own words. `None`: there is none.
pub fn describe() -> Option<String> {
    ARMED.get().map(|armed| armed.plan.to_string())
}

/// How often a bit of the arena, and one of an index, is to be turned over.
pub fn flips() -> (Option<Duration>, Option<Duration>) {
    ARMED.get().map_or((None, None), |armed| (armed.plan.flip_arena, armed.plan.flip_index))
}

/// The next number that follows from the seed.
pub fn random() -> u64 {
    ARMED.get().map_or(0, |armed| next(&armed.state))
}

pub(crate) fn pass(point: Point) {
    if let Some(armed) = ARMED.get()
        && armed.is_fatal(point)
    {
        die(point);
    }
}

pub(crate) fn fails(fault: Fault) -> bool {
    let fails = ARMED.get().is_some_and(|armed| armed.comes(fault).is_some());
    if fails {
        say(format_args!("{}", fault.name()));
    }
    fails
}

pub(crate) fn delay(fault: Fault) {
    if let Some(time) = ARMED.get().and_then(|armed| armed.comes(fault)) {
        say(format_args!("{}", fault.name()));
        thread::sleep(time);
    }
}

pub(crate) fn say(what: fmt::Arguments<'_>) {
    if ARMED.get().is_some() {
        write_line(&format!("tmem: fault: {what}\n"));
    }
}

/// With one system call, and no lock that a thread might hold that is about to die.
fn write_line(line: &str) {
    // SAFETY: the text is valid for its length. A line that nobody takes is lost.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

fn die(point: Point) -> ! {
    write_line(&format!("tmem: fault: killed at {}\n", point.name()));
    // SAFETY: takes two numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort() // where that is not allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(plan: &str, deaths: u32) -> Vec<bool> {
        let armed = Armed::new(plan.parse().unwrap(), deaths);
        (0..5000)
            .flat_map(|n| {
                let point = Point::ALL[n % Point::ALL.len()];
                [armed.is_fatal(point), armed.comes(Fault::TierFail).is_some()]
            })
            .collect()
    }

    #[test]
    fn a_course_follows_from_seed_and_deaths() {
        let plan = |seed| format!("seed={seed},kill=block:1/20,kill=*:1/100,tier-fail=1/10");
        assert_eq!(course(&plan(1), 3), course(&plan(1), 3));
        assert_ne!(course(&plan(1), 3), course(&plan(1), 4));
        assert_ne!(course(&plan(1), 3), course(&plan(2), 3));
        assert!(course("seed=1", 0).iter().all(|comes| !comes));
    }

    #[test]
    fn the_nth_passage_is_the_first_workers() {
        assert_eq!(course("kill=block:2", 0).iter().filter(|dies| **dies).count(), 1);
        assert_eq!(course("kill=block:2", 1).iter().filter(|dies| **dies).count(), 0);
    }

    #[test]
    fn a_process_without_a_plan_does_nothing_wrong() {
        pass(Point::Block);
        assert!(!fails(Fault::RefuseMemory) && describe().is_none() && flips() == (None, None));
    }
}
