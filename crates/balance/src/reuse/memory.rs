//! What is remembered of a subject: where it is on its way to, and what became of it before.

use std::time::Duration;

use super::{LEAST_MOVE_BYTES, Mood, State};
use crate::{
    demand::{Demand, Rates},
    policy::Reason,
    subject::Subject,
};

/// Whoever got more keeps it for so long, unless it falls asleep. Nor does anybody's target turn twice within that.
const SETTLES: Duration = Duration::from_secs(60);
/// What was too little is for so long, times how often it was found to be; for a fifth of that where others thrash.
const REMEMBERS: Duration = Duration::from_secs(300);
const REMEMBERS_AT_MOST: Duration = Duration::from_secs(3600);
/// Room above what was too little.
const ABOVE_HURT: f64 = 1.05;
/// A guest that has not come down for so long is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// What is remembered of a subject.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) at: Duration,
    pub(super) demand: Option<Demand>,
    pub(super) rates: Rates,
    pub(super) target_bytes: u64,
    /// What it had when it was looked at last.
    pub(super) size_bytes: u64,
    /// When its size last rose, or had no reason to.
    pub(super) rose: Duration,
    pub(super) last_up: Option<Duration>,
    pub(super) last_down: Option<Duration>,
    /// When it was last given the contrary of what it had been given less than a minute before.
    pub(super) last_turn: Option<Duration>,
    /// The least size that it was seen with on its way down, and when.
    pub(super) came_down: (u64, Duration),
    pub(super) stuck_until: Duration,
    pub(super) hurt: Option<Hurt>,
    pub(super) is_thrashing: bool,
}

/// That it thrashed with so little.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hurt {
    pub(super) size_bytes: u64,
    pub(super) at: Duration,
    /// How often that was found.
    pub(super) times: u32,
    /// Its swap-ins per second then, at most.
    pub(super) swap_ins: f64,
}

impl Memory {
    pub(super) fn new(subject: &Subject, at: Duration) -> Memory {
        Memory {
            at,
            demand: None,
            rates: Rates::default(),
            target_bytes: subject.size_bytes,
            size_bytes: subject.size_bytes,
            rose: at,
            last_up: None,
            last_down: None,
            last_turn: None,
            came_down: (subject.size_bytes, at),
            stuck_until: Duration::ZERO,
            hurt: None,
            is_thrashing: false,
        }
    }

    /// Who grows by itself, as a container does, or a guest whose balloon gives way, is not on its way down for that.
    pub(super) fn see(&mut self, size_bytes: u64) {
        let was_there = self.size_bytes <= self.target_bytes.saturating_add(2 * LEAST_MOVE_BYTES);
        let grows = size_bytes > self.size_bytes.saturating_add(LEAST_MOVE_BYTES);
        if (was_there || grows) && size_bytes > self.target_bytes {
            self.target_bytes = size_bytes;
        }
        self.size_bytes = size_bytes;
    }

    /// Who does not take what it was given for a while does not keep it from others.
    pub(super) fn lets_go(&mut self, size_bytes: u64, before_bytes: u64, at: Duration) {
        let is_there = size_bytes.saturating_add(2 * LEAST_MOVE_BYTES) >= self.target_bytes;
        if is_there || size_bytes >= before_bytes.saturating_add(LEAST_MOVE_BYTES) {
            self.rose = at;
        } else if at.saturating_sub(self.rose) >= STUCK {
            self.target_bytes = size_bytes;
        }
    }

    /// Remembers that it began to thrash after it came down.
    pub(super) fn remember_hurt(&mut self, size_bytes: u64, state: &State, at: Duration) {
        let (mood, swap_ins) = (state.mood, state.swap_ins);
        let within = |when: Duration, time| at.saturating_sub(when) < time;
        let begins = mood == Mood::Thrashes && !self.is_thrashing;
        self.is_thrashing = mood == Mood::Thrashes;
        if begins && self.last_down.is_some_and(|down| within(down, SETTLES)) {
            let times = self.hurt.map_or(1, |hurt| hurt.times.saturating_add(1));
            self.hurt = Some(Hurt { size_bytes, at, times, swap_ins });
        } else if let Some(hurt) = &mut self.hurt
            && self.is_thrashing
        {
            hurt.swap_ins = hurt.swap_ins.max(swap_ins);
        } else if self.hurt.is_some_and(|hurt| mood == Mood::Idle && size_bytes < hurt.size_bytes) {
            // It does not need that any more.
            self.hurt = None;
        }
    }

    /// The least that it should have for a while, and whether less may be tried where others thrash.
    pub(super) fn floor(&self, subject: &Subject, at: Duration) -> (u64, bool) {
        let floor_bytes = subject.limits.floor_bytes;
        let Some(hurt) = self.hurt else { return (floor_bytes, true) };
        let (age, remembers) = (at.saturating_sub(hurt.at), (REMEMBERS * hurt.times).min(REMEMBERS_AT_MOST));
        if age >= remembers {
            return (floor_bytes, true);
        }
        let above = (hurt.size_bytes as f64 * ABOVE_HURT) as u64;
        (floor_bytes.max(above.min(subject.limits.ceiling_bytes)), age >= remembers / 5)
    }

    /// Whether it may be given less now.
    pub(super) fn may_go_down(&self, at: Duration) -> bool {
        let is_settled = self.last_up.is_none_or(|up| at.saturating_sub(up) >= SETTLES);
        (is_settled || self.last_down > self.last_up) && at >= self.stuck_until
    }

    /// Whether that is a turn: the contrary of what it was given less than a minute before.
    pub(super) fn is_turn(&self, goes_up: bool, at: Duration) -> bool {
        let (along, against) =
            if goes_up { (self.last_up, self.last_down) } else { (self.last_down, self.last_up) };
        against > along && against.is_some_and(|when| at.saturating_sub(when) < SETTLES)
    }

    /// Whether it is no second turn within a minute.
    pub(super) fn may_turn(&self, goes_up: bool, at: Duration) -> bool {
        !self.is_turn(goes_up, at) || self.last_turn.is_none_or(|when| at.saturating_sub(when) >= SETTLES)
    }

    /// Takes note of another target.
    pub(super) fn turn(&mut self, goes_up: bool, at: Duration) {
        if self.is_turn(goes_up, at) {
            self.last_turn = Some(at);
        }
        *(if goes_up { &mut self.last_up } else { &mut self.last_down }) = Some(at);
    }

    /// Whether it is on its way down, and whether it has been for too long.
    pub(super) fn follows(&mut self, size_bytes: u64, at: Duration) -> Option<Reason> {
        let is_there = size_bytes <= self.target_bytes.saturating_add(2 * LEAST_MOVE_BYTES);
        if is_there || size_bytes.saturating_add(LEAST_MOVE_BYTES) <= self.came_down.0 {
            self.came_down = (size_bytes, at);
        }
        if is_there {
            None
        } else if at.saturating_sub(self.came_down.1) < STUCK {
            Some(Reason::Follows)
        } else {
            self.target_bytes = size_bytes;
            self.stuck_until = at + SETTLES;
            Some(Reason::Stuck)
        }
    }
}
