//! The policy `reuse`: memory goes where it saves the most swap-ins.
//!
//! For each guest the store counts how far back its swap-ins reach ([`Demand`](crate::Demand)), so it is known how many of them so much more memory would have
//! saved. What less memory would cost is not known, and is found out by taking a little of it.
//!
//! ```text
//! swap-ins a second   |  hardly any          | some    | many: thrashes
//! what is done        |  tried with less     | kept    | gets what saves most of them, at once
//! while others thrash |  gives a lot         | gives, if those would gain twice what it loses
//! ```
//!
//! Two things keep it from going to and fro: whoever got more is left alone for a minute, and whoever began to thrash after it was given less is not
//! tried with so little again for some minutes, each time for longer. Where others thrash it may have to give earlier, but only a little, as long as that
//! does it no harm.

mod memory;

use std::{collections::HashMap, time::Duration};

use tmem_store::PAGE_BYTES;

use crate::{
    policy::{Decision, Policy, Reason},
    subject::{Scene, Subject},
};
use memory::Memory;

const MIB: u64 = 1 << 20;

/// What a person may want to be otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReuseOptions {
    /// A guest with no more swap-ins in a minute than this part of its pages is idle.
    pub idle_part: f64,
    /// One that says it waits for memory for a larger part of its time is not idle.
    pub idle_pressure: f64,
    /// What an idle one is tried with less of at a time: this part of what it has above its floor.
    pub probe_part: f64,
    /// Nobody carries out what is decided. So what it said before is not expected to show.
    pub is_dry_run: bool,
}

impl Default for ReuseOptions {
    fn default() -> Self {
        Self { idle_part: 0.002, idle_pressure: 0.001, probe_part: 0.03, is_dry_run: false }
    }
}

/// Of what was before the last interval, so much counts.
const SMOOTHING: f64 = 0.5;
/// So many times what an idle guest may swap in is thrashing, and so many swap-ins a second at least.
const THRASHES_FROM: f64 = 4.0;
/// Memory that saves so much of all that memory can save is enough.
const ENOUGH: f64 = 0.9;
/// Guests only come near to what they would do with the least recently used page, so they get this much more than the distances say.
const MORE: f64 = 1.1;
/// Whoever thrashes gets this part of its size at least.
const LEAST_GROWTH: u64 = 8;
/// The most that a guest gives to others at a time, as a part of what it has above its floor: one that hardly swaps in and says that it does not use
/// that, any other that hardly swaps in, and one that does.
const UNUSED_GIVES: u64 = 2;
const IDLE_GIVES: u64 = 4;
const BUSY_GIVES: u64 = 16;
/// Memory moves to whoever gains so many times what it costs the other.
const WORTH: f64 = 2.0;
/// Who hardly swaps in and keeps less of a CPU busy is asleep: it does not need its memory now, rather than just having enough of it.
const ASLEEP_CPUS: f64 = 0.1;
/// Of what it says that it does not use, an idle guest is tried without such a part at a time, and where that is little, so many times more slowly.
const AVAILABLE_PART: u64 = 4;
const SLOWER: u64 = 3;
/// So far apart are steps of an idle guest at least.
const PROBES_EVERY: Duration = Duration::from_secs(4);
/// Smaller moves are not worth a word.
const LEAST_MOVE_BYTES: u64 = MIB;

/// See the module.
#[derive(Debug, Default)]
pub struct Reuse {
    options: ReuseOptions,
    memories: HashMap<String, Memory>,
}

/// How a subject is at the moment.
struct State {
    swap_ins: f64,
    pressure: Option<f64>,
    mood: Mood,
    /// It hardly swaps in. That it waits for memory may come from giving some.
    hardly_swaps: bool,
    is_asleep: bool,
    weight: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    New,
    Uncounted,
    Silent,
    Idle,
    Content,
    Thrashes,
}

/// What a thrashing subject would like to have.
struct Ask {
    subject: usize,
    bytes: u64,
    saved: f64,
    /// Swap-ins a second saved by a byte, weighted.
    gain: f64,
}

/// Memory that nobody has to give yet.
#[derive(Clone, Copy)]
struct Lack {
    bytes: u64,
    /// Of who gains most by it: swap-ins a second saved by a byte, and by all that it asks for, weighted.
    gain: f64,
    saved: f64,
}

impl Reuse {
    /// With these options.
    pub fn new(options: ReuseOptions) -> Reuse {
        Reuse { options, memories: HashMap::new() }
    }

    fn look_at(&mut self, subject: &Subject, at: Duration) -> State {
        let memory = self.memories.entry(subject.name.clone()).or_insert_with(|| Memory::new(subject, at));
        let seconds = at.saturating_sub(memory.at).as_secs_f64();
        let pressure = subject.report.and_then(|report| report.pressure);
        let mut state = State {
            swap_ins: 0.0,
            pressure,
            mood: Mood::Silent,
            hardly_swaps: false,
            is_asleep: false,
            weight: f64::from(subject.limits.weight) / 100.0,
        };
        // What is counted when it answers again is of all the time in between.
        if !subject.answers {
            return state;
        }
        let before_bytes = memory.size_bytes;
        memory.see(subject.size_bytes);
        memory.lets_go(subject.size_bytes, before_bytes, at);
        let counted = match (&subject.demand, &memory.demand) {
            (Some(demand), Some(before)) if seconds > 0.0 => Some(demand.since(before)),
            _ => None,
        };
        memory.demand = subject.demand.clone();
        memory.at = at;
        let Some(counted) = counted else {
            // Without a client in the pool its own word is all there is, which is enough to leave it what it has.
            state.mood = if subject.demand.is_some() { Mood::New } else { Mood::Uncounted };
            return state;
        };
        memory.rates.take_in(&counted, seconds, SMOOTHING);
        state.swap_ins = counted.swap_ins() as f64 / seconds;
        let idle = self.options.idle_part * (subject.size_bytes / PAGE_BYTES as u64) as f64 / 60.0;
        state.hardly_swaps = state.swap_ins <= idle;
        state.is_asleep = state.hardly_swaps && subject.cpus.is_some_and(|cpus| cpus < ASLEEP_CPUS);
        // Who is asleep waits for nothing but what it is giving.
        let waits =
            !state.is_asleep && pressure.is_some_and(|pressure| pressure > self.options.idle_pressure);
        state.mood = if state.swap_ins >= THRASHES_FROM * idle.max(1.0) {
            Mood::Thrashes
        } else if !state.hardly_swaps || waits {
            Mood::Content
        } else {
            Mood::Idle
        };
        memory.remember_hurt(subject.size_bytes, &state, at);
        state
    }

    fn ask(&self, at: usize, subject: &Subject, state: &State) -> Option<Ask> {
        let rates = &self.memories.get(&subject.name)?.rates;
        let possible_bytes = subject.limits.ceiling_bytes.saturating_sub(subject.size_bytes);
        let savable = rates.saved_by(possible_bytes);
        let wanted = rates.steps().find(|(_, saved)| *saved >= savable * ENOUGH);
        let wanted_bytes =
            wanted.filter(|_| savable > 0.0).map_or(0, |(bytes, _)| (bytes as f64 * MORE) as u64);
        let bytes = wanted_bytes.max(subject.size_bytes / LEAST_GROWTH).min(possible_bytes);
        if bytes < LEAST_MOVE_BYTES {
            return None;
        }
        // Of what is not known to be savable, a little may be.
        let saved = rates.saved_by(bytes).max(state.swap_ins / LEAST_GROWTH as f64);
        Some(Ask { subject: at, bytes, saved, gain: state.weight * saved / bytes as f64 })
    }
}

impl Policy for Reuse {
    fn name(&self) -> &'static str {
        "reuse"
    }

    fn decide(&mut self, scene: &Scene) -> Vec<Decision> {
        let at = scene.at;
        self.memories.retain(|name, _| scene.subjects.iter().any(|subject| subject.name == *name));
        let states: Vec<_> = scene.subjects.iter().map(|subject| self.look_at(subject, at)).collect();
        let mut decisions: Vec<_> = scene
            .subjects
            .iter()
            .zip(&states)
            .map(|(subject, state)| self.decide_alone(subject, state, at))
            .collect();
        let mut asks: Vec<_> = (0..)
            .zip(scene.subjects.iter().zip(&states))
            .filter(|(_, (subject, state))| state.mood == Mood::Thrashes && self.may_turn(subject, true, at))
            .filter_map(|(at, (subject, state))| self.ask(at, subject, state))
            .collect();
        asks.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        let lacking = grant(scene, &asks, &states, &mut decisions);
        self.collect(scene, &states, lacking, &mut decisions);
        self.note(scene, &decisions);
        decisions
    }
}

impl Reuse {
    /// What becomes of a subject as long as nobody else wants anything.
    fn decide_alone(&mut self, subject: &Subject, state: &State, at: Duration) -> Decision {
        let size_bytes = subject.size_bytes;
        let keep = |reason| Decision { target_bytes: size_bytes, reason };
        let Some(memory) = self.memories.get_mut(&subject.name) else { return keep(Reason::New) };
        let (swap_ins, pressure) = (state.swap_ins, state.pressure);
        match state.mood {
            Mood::New => return keep(Reason::New),
            Mood::Uncounted => return keep(Reason::Uncounted),
            Mood::Silent => return keep(Reason::Silent),
            Mood::Thrashes => {
                let reason = if size_bytes >= subject.limits.ceiling_bytes {
                    Reason::AtCeiling
                } else {
                    Reason::Waits { swap_ins }
                };
                return Decision { target_bytes: memory.target_bytes.max(size_bytes), reason };
            }
            Mood::Content | Mood::Idle => {}
        }
        if let Some(reason) = memory.follows(size_bytes, at) {
            return Decision { target_bytes: memory.target_bytes.min(size_bytes), reason };
        }
        // What it has not taken yet of what it got stays its own.
        let target_bytes = memory.target_bytes.max(size_bytes);
        if !memory.may_go_down(at) || !memory.may_turn(false, at) {
            return Decision { target_bytes, reason: Reason::Settles };
        }
        // Also where somebody looks more often, so that what a step did is seen before the next.
        let just_now = memory.last_down.is_some_and(|down| at.saturating_sub(down) < PROBES_EVERY);
        if state.mood == Mood::Content || just_now || self.options.probe_part == 0.0 {
            return Decision { target_bytes, reason: Reason::Content { swap_ins, pressure } };
        }
        let (floor_bytes, _) = memory.floor(subject, at);
        let above_bytes = size_bytes.saturating_sub(floor_bytes);
        let most_bytes = (self.options.probe_part * above_bytes as f64) as u64;
        let unused_bytes = subject.available_bytes().map_or(u64::MAX, |bytes| bytes / AVAILABLE_PART);
        let step_bytes = unused_bytes.clamp(most_bytes / SLOWER, most_bytes).max(LEAST_MOVE_BYTES);
        if step_bytes <= above_bytes {
            return Decision { target_bytes: size_bytes - step_bytes, reason: Reason::Probed { swap_ins } };
        }
        match memory.hurt {
            Some(hurt) if floor_bytes > subject.limits.floor_bytes => {
                keep(Reason::HurtBelow { size_bytes: hurt.size_bytes })
            }
            _ => keep(Reason::AtFloor),
        }
    }

    fn may_turn(&self, subject: &Subject, goes_up: bool, at: Duration) -> bool {
        self.memories.get(&subject.name).is_some_and(|memory| memory.may_turn(goes_up, at))
    }

    /// What it can give to others, and what it loses by a byte of that, in swap-ins a second, weighted. They would be saved so many.
    fn offer(&self, subject: &Subject, state: &State, at: Duration, saved: f64) -> Option<(u64, f64)> {
        let memory = self.memories.get(&subject.name)?;
        let is_there = subject.size_bytes <= memory.target_bytes.saturating_add(2 * LEAST_MOVE_BYTES);
        let may_go_down = memory.may_go_down(at) || (state.is_asleep && at >= memory.stuck_until);
        let may_go_down = may_go_down && memory.may_turn(false, at);
        if matches!(state.mood, Mood::New | Mood::Uncounted | Mood::Silent) || !may_go_down || !is_there {
            return None;
        }
        let (careful_bytes, may_be_tried) = match memory.hurt {
            // What that did to it is little beside what others suffer.
            Some(hurt) if hurt.swap_ins * state.weight * WORTH < saved => (subject.limits.floor_bytes, true),
            _ => memory.floor(subject, at),
        };
        let above_bytes = |floor_bytes: u64| subject.size_bytes.saturating_sub(floor_bytes);
        let is_unused = |bytes| subject.available_bytes().is_some_and(|available| available >= bytes);
        let careful_above_bytes = above_bytes(careful_bytes);
        let bytes = if state.hardly_swaps && careful_above_bytes >= LEAST_MOVE_BYTES * IDLE_GIVES {
            // Whoever lies about what it uses has the harm.
            let unused_bytes = careful_above_bytes / UNUSED_GIVES;
            if is_unused(unused_bytes) { unused_bytes } else { careful_above_bytes / IDLE_GIVES }
        } else if may_be_tried {
            above_bytes(subject.limits.floor_bytes) / BUSY_GIVES
        } else {
            careful_above_bytes / BUSY_GIVES
        };
        if bytes < LEAST_MOVE_BYTES {
            return None;
        }
        // What more would save it is near to what less would cost it.
        let loss = memory.rates.saved_by(bytes).max(state.swap_ins / 4.0);
        Some((bytes, state.weight * loss / bytes as f64))
    }

    /// Takes what is lacking from those who lose least by it.
    fn collect(&self, scene: &Scene, states: &[State], lacking: Option<Lack>, decisions: &mut [Decision]) {
        let Some(Lack { bytes: mut lacking_bytes, gain, saved }) = lacking else { return };
        let mut donors: Vec<_> = scene
            .subjects
            .iter()
            .zip(states)
            .enumerate()
            .filter_map(|(index, (subject, state))| {
                let (bytes, loss) = self.offer(subject, state, scene.at, saved)?;
                (state.hardly_swaps || loss * WORTH < gain).then_some((loss, index, bytes))
            })
            .collect();
        donors.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, index, gives_bytes) in donors {
            if lacking_bytes == 0 {
                break;
            }
            let (subject, decision) = (&scene.subjects[index], &mut decisions[index]);
            let given_bytes = gives_bytes.min(lacking_bytes.max(LEAST_MOVE_BYTES));
            lacking_bytes = lacking_bytes.saturating_sub(given_bytes);
            let target_bytes = subject.size_bytes - given_bytes;
            if target_bytes < decision.target_bytes {
                *decision =
                    Decision { target_bytes, reason: Reason::Gives { swap_ins: states[index].swap_ins } };
            }
        }
    }

    /// Remembers what was decided.
    fn note(&mut self, scene: &Scene, decisions: &[Decision]) {
        for (subject, decision) in scene.subjects.iter().zip(decisions) {
            let Some(memory) = self.memories.get_mut(&subject.name) else { continue };
            if self.options.is_dry_run {
                memory.target_bytes = subject.size_bytes;
                continue;
            }
            let before_bytes = memory.target_bytes;
            let goes_up = decision.target_bytes > before_bytes;
            match decision.reason {
                Reason::Grows { .. } if goes_up => memory.turn(true, scene.at),
                Reason::Probed { .. } | Reason::Gives { .. } => memory.turn(false, scene.at),
                _ => {}
            }
            memory.target_bytes = decision.target_bytes;
        }
    }
}

/// Gives what is there, to whoever gains most first. Says what is lacking.
fn grant(scene: &Scene, asks: &[Ask], states: &[State], decisions: &mut [Decision]) -> Option<Lack> {
    let taken = scene
        .subjects
        .iter()
        .zip(&*decisions)
        .map(|(subject, decision)| subject.size_bytes.max(decision.target_bytes));
    let mut spare_bytes = scene.budget_bytes.saturating_sub(taken.sum());
    let mut lacking: Option<Lack> = None;
    for ask in asks {
        let (subject, decision) = (&scene.subjects[ask.subject], &mut decisions[ask.subject]);
        let wanted_bytes = subject.size_bytes.saturating_add(ask.bytes).saturating_sub(decision.target_bytes);
        let granted_bytes = wanted_bytes.min(spare_bytes);
        if granted_bytes >= LEAST_MOVE_BYTES || wanted_bytes == 0 {
            spare_bytes -= granted_bytes;
            decision.target_bytes += granted_bytes;
            decision.reason = Reason::Grows { swap_ins: states[ask.subject].swap_ins, saved: ask.saved };
        }
        let rest_bytes = wanted_bytes - granted_bytes;
        if rest_bytes >= LEAST_MOVE_BYTES {
            let saved = states[ask.subject].weight * ask.saved;
            let lack = lacking.get_or_insert(Lack { bytes: 0, gain: ask.gain, saved });
            lack.bytes += rest_bytes;
        }
    }
    lacking
}
