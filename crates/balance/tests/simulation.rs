//! Policies over simulated guests, whose memory follows what is decided: a program that touches pages of its working set at random, a kernel that
//! evicts the least recently used one, and a balloon that takes its time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::VecDeque, time::Duration};

use proptest::prelude::*;
use tmem_balance::{
    Balancer, CommittedAs, Demand, Limits, Policy, Reason, Report, Reuse, ReuseOptions, Scene, Static,
    Subject, Verdict,
};
use tmem_store::ReuseDistances;

const MIB: f64 = 1048576.0;
const PAGE: f64 = 4096.0;
const INTERVAL: f64 = 5.0;
/// A touch of a page that is in memory, and of one that is not, in seconds.
const TOUCH: f64 = 2e-6;
const SWAP_IN: f64 = 100e-6;
/// Swapping a page out, which a guest does when its balloon takes memory that it uses.
const SWAP_OUT: f64 = 40e-6;
/// How fast a balloon goes up and down, in MiB a second.
const BALLOON: f64 = 40.0;

/// One guest.
#[derive(Clone, Debug)]
struct Guest {
    limits: (f64, f64),
    size: f64,
    /// In MiB: what its kernel takes, and what its program does.
    kernel: f64,
    working_set: f64,
    /// Touches a second at most.
    pace: f64,
    /// Pages of the working set that are in memory, in MiB.
    resident: f64,
    counted: Vec<f64>,
    done: f64,
    swap_ins: f64,
    /// Since it was looked at: time, CPU time, and time that it waited for memory, in seconds.
    lived: f64,
    worked: f64,
    waited: f64,
}

impl Guest {
    fn new(floor: f64, size: f64, ceiling: f64, working_set: f64, pace: f64) -> Guest {
        let counted = vec![0.0; ReuseDistances::default().buckets().count()];
        let resident = working_set.min(size - 24.0);
        Guest {
            limits: (floor, ceiling),
            size,
            kernel: 24.0,
            working_set,
            pace,
            resident,
            counted,
            done: 0.0,
            swap_ins: 0.0,
            lived: 0.0,
            worked: 0.0,
            waited: 0.0,
        }
    }

    fn live(&mut self, seconds: f64, target: f64) {
        self.size += (target - self.size).clamp(-BALLOON * seconds, BALLOON * seconds);
        let room = (self.size - self.kernel).max(1.0);
        let swapped_out = (self.resident - self.resident.min(room)) * MIB / PAGE;
        self.resident = self.resident.min(room).min(self.working_set);
        let misses_part = 1.0 - self.resident / self.working_set.max(1.0);
        let touches = (seconds * self.pace).min(seconds / (TOUCH + misses_part * SWAP_IN));
        let misses = touches * misses_part;
        // Beyond what is in memory all are as likely.
        let span_pages = (self.working_set - room).max(0.25) * MIB / PAGE;
        let mut before = 0.0;
        for ((end, _), count) in ReuseDistances::default().buckets().zip(&mut self.counted) {
            let part = ((end as f64).min(span_pages) - before) / span_pages;
            *count += misses * part.max(0.0);
            before = end as f64;
        }
        self.resident = (self.resident + misses * PAGE / MIB).min(room).min(self.working_set);
        self.done += touches;
        self.swap_ins += misses;
        self.lived += seconds;
        self.worked += touches * TOUCH + swapped_out * SWAP_OUT;
        self.waited += misses * SWAP_IN + swapped_out * SWAP_OUT;
    }

    fn subject(&mut self, name: String) -> Subject {
        let of_time = |seconds: f64| (self.lived > 0.0).then(|| (seconds / self.lived).min(1.0));
        let (cpus, pressure) = (of_time(self.worked), of_time(self.waited));
        (self.lived, self.worked, self.waited) = (0.0, 0.0, 0.0);
        let bytes = |mib: f64| (mib * MIB) as u64;
        let ends = ReuseDistances::default();
        let buckets = ends.buckets().zip(&self.counted).map(|((end, _), count)| (end, *count as u64));
        Subject {
            name,
            limits: Limits {
                floor_bytes: bytes(self.limits.0),
                ceiling_bytes: bytes(self.limits.1),
                weight: 100,
            },
            size_bytes: bytes(self.size),
            demand: Some(Demand::new(buckets.filter(|(_, count)| *count > 0), 0)),
            swapped_bytes: bytes((self.working_set - self.resident).max(0.0)),
            report: Some(Report {
                committed_bytes: Some(bytes(self.working_set + 8.0)),
                available_bytes: Some(bytes((self.size - self.kernel - self.resident).max(0.0))),
                pressure,
            }),
            cpus,
            answers: true,
        }
    }
}

/// What happened.
#[derive(Default, Debug)]
struct Story {
    /// Touches of all, interval by interval.
    done: Vec<f64>,
    verdicts: Vec<Vec<Verdict>>,
}

impl Story {
    fn total(&self) -> f64 {
        self.done.iter().sum()
    }
}

/// Runs for some intervals; `change` may make guests do something else before each.
fn run(
    policy: Box<dyn Policy>,
    guests: &mut [Guest],
    budget: f64,
    intervals: usize,
    mut change: impl FnMut(usize, &mut [Guest]),
) -> Story {
    let mut balancer = Balancer::new(policy);
    let mut story = Story::default();
    for interval in 0..intervals {
        change(interval, guests);
        let subjects =
            guests.iter_mut().enumerate().map(|(at, guest)| guest.subject(format!("vm{at}"))).collect();
        let at = Duration::from_secs_f64(INTERVAL * (interval + 1) as f64);
        let scene = Scene { at, budget_bytes: (budget * MIB) as u64, subjects };
        let verdicts = balancer.decide(&scene);
        let before: f64 = guests.iter().map(|guest| guest.done).sum();
        for _ in 0..10 {
            for (guest, verdict) in guests.iter_mut().zip(&verdicts) {
                guest.live(INTERVAL / 10.0, verdict.target_bytes as f64 / MIB);
            }
        }
        story.done.push(guests.iter().map(|guest| guest.done).sum::<f64>() - before);
        story.verdicts.push(verdicts);
    }
    story
}

/// The most turns of one guest within a minute: that it is given less less than a minute after it was given more, or the other way round.
fn turns_in_a_minute(story: &Story) -> usize {
    let guests = story.verdicts.first().map_or(0, Vec::len);
    let per_minute = (60.0 / INTERVAL) as usize;
    let turns = |guest: usize| {
        let mut last: Option<(usize, bool)> = None;
        let mut last_target_bytes = 0;
        let mut turns = VecDeque::new();
        let mut most = 0;
        for (at, verdicts) in story.verdicts.iter().enumerate() {
            let Verdict { size_bytes, target_bytes, .. } = verdicts[guest];
            let is_news = std::mem::replace(&mut last_target_bytes, target_bytes) != target_bytes;
            if !is_news || size_bytes.abs_diff(target_bytes) < 1 << 20 {
                continue;
            }
            let up = target_bytes > size_bytes;
            if last.is_some_and(|(then, was_up)| was_up != up && at - then < per_minute) {
                turns.push_back(at);
            }
            last = Some((at, up));
            turns.retain(|turn| at - turn < per_minute);
            most = most.max(turns.len());
        }
        most
    };
    (0..guests).map(turns).max().unwrap_or(0)
}

const IDLE: f64 = 20.0;

/// One large and idle, one small and thrashing; after half of the time they swap roles.
fn wrong_sizes(policy: Box<dyn Policy>, sizes: [f64; 2], swaps: bool) -> (Story, Vec<Guest>) {
    let changes_at = if swaps { 60 } else { usize::MAX };
    wrong_sizes_with_change(policy, sizes, changes_at)
}

fn wrong_sizes_with_change(
    policy: Box<dyn Policy>,
    sizes: [f64; 2],
    changes_at: usize,
) -> (Story, Vec<Guest>) {
    let mut guests =
        vec![Guest::new(64.0, sizes[0], 640.0, 40.0, IDLE), Guest::new(64.0, sizes[1], 640.0, 400.0, 1e9)];
    let story = run(policy, &mut guests, 660.0, 120, |interval, guests| {
        if interval == changes_at {
            let (first, second) = guests.split_at_mut(1);
            std::mem::swap(&mut first[0].working_set, &mut second[0].working_set);
            std::mem::swap(&mut first[0].pace, &mut second[0].pace);
        }
    });
    (story, guests)
}

#[test]
fn wrongly_sized_guests_become_right_and_do_nearly_all_that_they_could() {
    let (ideal, _) = wrong_sizes(Box::new(Static), [128.0, 512.0], false);
    let (fixed, _) = wrong_sizes(Box::new(Static), [512.0, 128.0], true);
    let (reuse, guests) = wrong_sizes(Box::<Reuse>::default(), [512.0, 128.0], true);
    let (committed, _) = wrong_sizes(Box::new(CommittedAs), [512.0, 128.0], true);
    let part = |story: &Story| story.total() / ideal.total();
    println!(
        "of the ideal split's work: static {:.3}, committed-as {:.3}, reuse {:.3}",
        part(&fixed),
        part(&committed),
        part(&reuse)
    );
    for (at, (verdicts, done)) in reuse.verdicts.iter().zip(&reuse.done).enumerate() {
        println!(
            "{:4} {:9.0} {}",
            at * 5,
            done / 5.0,
            verdicts
                .iter()
                .map(|v| format!("{:5}M {}", v.target_bytes >> 20, v.reason))
                .collect::<Vec<_>>()
                .join(" | ")
        );
    }
    assert!(part(&reuse) >= 0.9 && reuse.total() > committed.total() && reuse.total() > fixed.total());
    assert!(guests[0].size > 400.0 && guests[1].size < 200.0, "{guests:?}");
    assert!(turns_in_a_minute(&reuse) <= 1);
    // Back at nine tenths of full speed within a minute of the change.
    let full = ideal.done[50];
    let back = reuse.done[60..].iter().position(|done| *done >= 0.9 * full).expect("never");
    assert!(back as f64 * INTERVAL <= 60.0, "{back}");
}

/// It is not taken for one that just has enough at last.
#[test]
fn a_guest_that_falls_asleep_gives_what_it_got_a_short_while_ago() {
    let (ideal, _) = wrong_sizes(Box::new(Static), [128.0, 512.0], false);
    let changes_at = 8;
    let (story, _) = wrong_sizes_with_change(Box::<Reuse>::default(), [512.0, 128.0], changes_at);
    assert!(matches!(story.verdicts[5][1].reason, Reason::Grows { .. }), "{:?}", story.verdicts[5]);
    let full = ideal.done[50];
    let back = story.done[changes_at..].iter().position(|done| *done >= 0.9 * full).expect("never");
    assert!(back as f64 * INTERVAL <= 40.0, "{back}");
    assert!(turns_in_a_minute(&story) <= 1);
}

#[test]
fn an_idle_guest_gives_up_most_and_is_at_full_speed_soon_after_it_wakes() {
    let mut guests = vec![Guest::new(64.0, 512.0, 512.0, 300.0, 0.0)];
    let mut given = 0.0;
    let story = run(Box::<Reuse>::default(), &mut guests, 512.0, 120, |interval, guests| {
        if interval == 60 {
            given = (512.0 - guests[0].size) / (512.0 - 64.0);
            guests[0].pace = 1e9;
        }
    });
    assert!(given >= 0.6, "{given}");
    let full = INTERVAL / TOUCH;
    let back = story.done[60..].iter().position(|done| *done >= 0.95 * full).expect("never");
    println!("gave {given:.2}, full speed after {} s", back as f64 * INTERVAL);
    assert!(back as f64 * INTERVAL <= 30.0, "{back}");
}

/// Nothing comes of what it says, so it says the same again, and takes nobody for stuck.
#[test]
fn a_dry_run_says_the_same_as_long_as_nothing_changes() {
    let mut balancer =
        Balancer::new(Box::new(Reuse::new(ReuseOptions { is_dry_run: true, ..ReuseOptions::default() })));
    let mut guest = Guest::new(64.0, 512.0, 512.0, 300.0, 0.0);
    for interval in 1..30 {
        guest.live(INTERVAL, 512.0);
        let subjects = vec![guest.subject("vm".to_owned())];
        let at = Duration::from_secs_f64(INTERVAL * f64::from(interval));
        let verdicts = balancer.decide(&Scene { at, budget_bytes: (512.0 * MIB) as u64, subjects });
        let [verdict] = &verdicts[..] else { panic!("{verdicts:?}") };
        if interval > 1 {
            assert!(matches!(verdict.reason, Reason::Probed { .. }), "{interval}: {verdict:?}");
            assert!(verdict.target_bytes < verdict.size_bytes, "{verdict:?}");
        }
    }
}

/// One subject, seen as it is, without any simulation.
fn seen(name: &str, size: f64, swap_ins: u64) -> Subject {
    let bytes = |mib: f64| (mib * MIB) as u64;
    Subject {
        name: name.to_owned(),
        limits: Limits { floor_bytes: bytes(32.0), ceiling_bytes: bytes(1024.0), weight: 100 },
        size_bytes: bytes(size),
        demand: Some(Demand::new([(64, swap_ins)], 0)),
        swapped_bytes: 0,
        cpus: Some(0.5),
        report: None,
        answers: true,
    }
}

fn decide(balancer: &mut Balancer, seconds: u64, budget: f64, subjects: Vec<Subject>) -> Vec<Verdict> {
    let at = Duration::from_secs(seconds);
    balancer.decide(&Scene { at, budget_bytes: (budget * MIB) as u64, subjects })
}

#[test]
fn who_grows_by_itself_is_not_pushed_back() {
    let mut balancer = Balancer::new(Box::<Reuse>::default());
    decide(&mut balancer, 5, 1000.0, vec![seen("container", 50.0, 0)]);
    for (seconds, size) in [(10, 200.0), (15, 260.0), (20, 300.0)] {
        let verdicts = decide(&mut balancer, seconds, 1000.0, vec![seen("container", size, 0)]);
        let least = ((size - 0.05 * size) * MIB) as u64;
        assert!(verdicts[0].target_bytes >= least, "{verdicts:?}");
        assert!(!matches!(verdicts[0].reason, Reason::Follows | Reason::Stuck), "{verdicts:?}");
    }
}

#[test]
fn swap_ins_of_a_silence_are_of_all_its_time() {
    let mut balancer = Balancer::new(Box::<Reuse>::default());
    for seconds in [5, 10] {
        decide(&mut balancer, seconds, 1000.0, vec![seen("vm", 400.0, 0)]);
    }
    for seconds in (15..105).step_by(5) {
        let silent = Subject { answers: false, ..seen("vm", 400.0, 0) };
        decide(&mut balancer, seconds, 1000.0, vec![silent]);
    }
    // 2 a second: some, but it does not thrash.
    let verdicts = decide(&mut balancer, 105, 1000.0, vec![seen("vm", 400.0, 190)]);
    assert!(!matches!(verdicts[0].reason, Reason::Grows { .. } | Reason::Waits { .. }), "{verdicts:?}");
}

#[test]
fn a_floor_that_was_raised_is_given_to_by_the_others() {
    let mut balancer = Balancer::new(Box::<Reuse>::default());
    let (mut low, mut high) = (200.0, 800.0);
    for seconds in (5..60).step_by(5) {
        let mut subjects = vec![seen("low", low, 0), seen("high", high, 0)];
        subjects[0].limits.floor_bytes = (400.0 * MIB) as u64;
        let verdicts = decide(&mut balancer, seconds, 1000.0, subjects);
        // Both are where they were told at once.
        (low, high) = (verdicts[0].target_bytes as f64 / MIB, verdicts[1].target_bytes as f64 / MIB);
    }
    assert!(low >= 399.0 && low + high <= 1000.0, "{low} {high}");
}

#[test]
fn memory_that_a_guest_does_not_take_goes_to_others() {
    let mut balancer = Balancer::new(Box::<Reuse>::default());
    for seconds in (5..60).step_by(5) {
        // It has its driver's largest, 300, whatever it is told, and thrashes.
        decide(&mut balancer, seconds, 1000.0, vec![seen("vm", 300.0, seconds * 1000)]);
    }
    // It does no more; what it was given is not its own.
    let calm = |seconds| seen("vm", 300.0, 60_000 + seconds);
    let last = (60..120)
        .step_by(5)
        .map(|seconds| decide(&mut balancer, seconds, 1000.0, vec![calm(seconds)]))
        .last();
    let verdicts = last.expect("decisions");
    assert!(verdicts[0].target_bytes <= (301.0 * MIB) as u64, "{verdicts:?}");
}

#[test]
fn weights_are_honoured() {
    let mut guests =
        vec![Guest::new(64.0, 300.0, 900.0, 500.0, 1e9), Guest::new(64.0, 300.0, 900.0, 500.0, 1e9)];
    let mut balancer = Balancer::new(Box::<Reuse>::default());
    for interval in 0..100 {
        let mut subjects: Vec<_> =
            (0..).zip(&mut guests).map(|(at, guest)| guest.subject(format!("vm{at}"))).collect();
        subjects[0].limits.weight = 1000;
        let at = Duration::from_secs_f64(INTERVAL * (interval + 1) as f64);
        let verdicts = balancer.decide(&Scene { at, budget_bytes: (610.0 * MIB) as u64, subjects });
        for _ in 0..10 {
            for (guest, verdict) in guests.iter_mut().zip(&verdicts) {
                guest.live(INTERVAL / 10.0, verdict.target_bytes as f64 / MIB);
            }
        }
    }
    assert!(guests[0].size > 480.0 && guests[1].size < 130.0, "{} {}", guests[0].size, guests[1].size);
}

fn any_guest() -> impl Strategy<Value = Guest> {
    let pace = prop_oneof![Just(0.0), Just(IDLE), Just(500.0), Just(20_000.0), Just(1e9)];
    (32.0..128.0f64, 0.0..1.0f64, 200.0..1000.0f64, 20.0..800.0f64, pace).prop_map(
        |(floor, part, ceiling, working_set, pace)| {
            Guest::new(floor, floor + part * (ceiling - floor), ceiling, working_set, pace)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn nobody_goes_to_and_fro_and_nobody_gets_what_is_not_there(
        mut guests in prop::collection::vec(any_guest(), 1..7),
        others in prop::collection::vec(any_guest(), 7),
        spare in 0.0..300.0f64,
    ) {
        let budget = guests.iter().map(|guest| guest.size).sum::<f64>() + spare;
        let story = run(Box::<Reuse>::default(), &mut guests, budget, 100, |interval, guests| {
            if interval == 50 {
                for (guest, other) in guests.iter_mut().zip(&others) {
                    (guest.working_set, guest.pace) = (other.working_set, other.pace);
                }
            }
        });
        for verdicts in &story.verdicts {
            let sum: u64 = verdicts.iter().map(|verdict| verdict.target_bytes).sum();
            prop_assert!(sum <= (budget * MIB) as u64);
        }
        let turns = turns_in_a_minute(&story);
        prop_assert!(turns <= 1, "{turns}");
    }
}
