//! Files for the tests of parts, and what is left of a lender that dies in the middle of something.

use std::{
    fs::File,
    mem,
    ops::RangeInclusive,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
};

use super::{file::LentFile, *};
use crate::wire::{PutResult, Run};

#[path = "../../tests/support/borrower.rs"]
#[allow(dead_code, reason = "all of it is used by other tests")]
mod borrower;
#[path = "../../tests/support/keeper.rs"]
mod keeper;

use borrower::{Expected, Model, UNITS, bytes, flush, put};
use keeper::Files;

pub(super) mod dying {
    //! A process dies at one of its steps: here a thread panics there, and nothing of it is used afterwards but its file.

    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
        static IS_DEAD: Cell<bool> = const { Cell::new(false) };
        static WRITES_FAIL: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether nothing that is done now would be done: it is only that a thread cannot end without it.
    pub(in crate::lender) fn is_dead() -> bool {
        IS_DEAD.get()
    }

    /// There is no memory for what is written.
    pub(in crate::lender) fn may_write() -> std::io::Result<()> {
        if WRITES_FAIL.get() { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(in crate::lender) fn without_memory<R>(act: impl FnOnce() -> R) -> R {
        WRITES_FAIL.set(true);
        let done = act();
        WRITES_FAIL.set(false);
        done
    }

    pub(in crate::lender) fn step() {
        LEFT.with(|left| match left.get() {
            Some(0) => {
                left.set(None);
                IS_DEAD.set(true);
                std::panic::resume_unwind(Box::new("dies here"));
            }
            Some(steps) => left.set(Some(steps - 1)),
            None => {}
        });
    }

    /// Whether it died before it was done with that, after so many steps.
    pub(in crate::lender) fn after(steps: usize, act: impl FnOnce()) -> bool {
        LEFT.set(Some(steps));
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_err();
        LEFT.set(None);
        IS_DEAD.set(false);
        died
    }
}

pub(super) const BY: LentBy = LentBy { cluster: 1 << 100 | 7, node: NodeId(5), epoch: Epoch(3) };

pub(super) fn hello() -> Hello {
    Hello { cluster: BY.cluster, name: "a".parse().unwrap(), epoch: Epoch(1), store: 9 }
}

pub(super) fn file() -> Arc<LentFile> {
    Arc::new(LentFile::create(&Arc::default(), BY, &hello()).unwrap())
}

/// A lender with one borrower, as far as it lives.
struct Life {
    files: Arc<Files>,
    lender: Lender,
    holding: SharedHolding,
}

impl Life {
    fn new() -> Self {
        let files = Arc::<Files>::default();
        let lender = Lender::new(BY, files.clone());
        lender.set_limit(u64::MAX, 0);
        let holding = lender.admit(&hello()).unwrap();
        Self { files, lender, holding }
    }

    /// It is dead: what it had in memory of its own is nobody's, as it was at that moment.
    fn end(self) -> Arc<Files> {
        let files = Arc::clone(&self.files);
        mem::forget(self);
        files
    }

    fn follow(files: Arc<Files>) -> Self {
        let lender = Lender::take_over(BY, files.clone(), files.left()).unwrap();
        lender.set_limit(u64::MAX, 0);
        let holding = lender.admit(&hello()).unwrap();
        Self { files, lender, holding }
    }

    /// What there is of each copy: all of it right.
    fn found(&self) -> Model {
        let holding = lock(&self.holding);
        let mut found = Model::new();
        for copy in holding.list(0) {
            let runs: Vec<Run> = holding
                .fetch(copy)
                .unwrap()
                .map(|(run, there)| {
                    assert!(there == bytes(copy, run.start_bytes(), run.bytes()), "{copy:?} {run:?}");
                    run
                })
                .collect();
            found.insert(copy.place, Expected::of(copy.writing, &runs));
        }
        assert_eq!(holding.usage().held_bytes, self.lender.held_bytes());
        found
    }
}

/// What a borrower may do, and a lender by itself.
#[derive(Clone, Debug)]
enum Act {
    Put(u32, u64, RangeInclusive<usize>),
    Dead(u32, Run),
    Gone(u32),
    Clean,
}

/// A block every 200 units, of 190, so that what dies leaves gaps.
fn runs(which: RangeInclusive<usize>) -> Vec<Run> {
    which.map(|block| Run { start: (block * 200) as u16, units: 190 }).collect()
}

fn carry_out(act: &Act, holding: &SharedHolding) {
    let holding = &mut *lock(holding);
    match act {
        Act::Put(place, writing, which) => {
            let copy = TierCopy { place: *place, writing: *writing };
            assert_eq!(put(holding, copy, &runs(which.clone())), PutResult::Stored);
        }
        Act::Dead(place, run) => {
            let copy = holding.list(*place).next().unwrap();
            flush(holding, copy, &[*run]);
        }
        Act::Gone(place) => {
            let copy = holding.list(*place).next().unwrap();
            flush(holding, copy, &[]);
        }
        Act::Clean => while holding.clean_step() {},
    }
}

fn imagine(act: &Act, model: &mut Model) {
    match act {
        Act::Put(place, writing, which) => {
            model.insert(*place, Expected::of(*writing, &runs(which.clone())));
        }
        Act::Dead(place, run) => model.get_mut(place).unwrap().set(&[*run], false),
        Act::Gone(place) => drop(model.remove(place)),
        Act::Clean => {}
    }
}

/// Copies come, die by the block and as a whole, are replaced by later ones and by themselves, and are moved together.
fn acts() -> Vec<Act> {
    let all = || 0..=UNITS / 200 - 1;
    let mut acts: Vec<Act> = (0..20).map(|place| Act::Put(place, u64::from(place) + 1, all())).collect();
    for block in (0..UNITS / 200).step_by(3) {
        let dead = |place| Act::Dead(place, Run { start: (block * 200) as u16, units: 190 });
        acts.extend((0..8).map(dead));
        acts.push(Act::Clean);
    }
    acts.extend([Act::Gone(9), Act::Put(3, 30, 0..=5), Act::Put(4, 5, all()), Act::Gone(3), Act::Clean]);
    acts.extend((10..20).map(Act::Gone));
    acts.extend([Act::Put(11, 40, 2..=2), Act::Clean]);
    acts
}

fn is_same(a: &Model, b: &Model) -> bool {
    let shape = |model: &Model| -> Vec<_> {
        model.iter().map(|(place, expected)| (*place, expected.writing, expected.runs())).collect()
    };
    shape(a) == shape(b)
}

#[test]
fn r1_whatever_a_lender_dies_in_what_was_acknowledged_is_there() {
    let acts = acts();
    let (mut deaths, mut lives) = (0, 0);
    // Each life goes on where the one before it ended, and dies a step later than it: every step of every act is died at.
    let (mut life, mut model) = (Life::new(), Model::new());
    for act in &acts {
        let mut after = model.clone();
        imagine(act, &mut after);
        for steps in 0.. {
            let holding = Arc::clone(&life.holding);
            let died = dying::after(steps, || carry_out(act, &holding));
            mem::forget(holding);
            if !died {
                break;
            }
            deaths += 1;
            life = Life::follow(life.end());
            let found = life.found();
            let is_done = is_same(&found, &after);
            // What is at the place of a later writing is of no use, and may be gone before that one is there.
            let mut without = model.clone();
            if let Act::Put(place, writing, _) = act {
                without.retain(|other, expected| other != place || expected.writing == *writing);
            }
            let is_old = is_same(&found, &model) || is_same(&found, &without);
            assert!(is_done || is_old, "{act:?} after {steps} steps");
            if is_done && !matches!(act, Act::Clean) {
                break;
            }
        }
        model = after;
        assert!(is_same(&life.found(), &model), "{act:?}");
        lives += 1;
    }
    assert!(deaths > 2 * acts.len() && lives == acts.len(), "{deaths} deaths");
    // What is left of memory that was taken on the way is found by the next one, and given back.
    let life = Life::follow(life.end());
    let usage = lock(&life.holding).usage();
    let file: OwnedFd = life.files.left().pop().unwrap().1;
    let blocks = File::from(file).metadata().map(|found| found.blocks());
    let taken = blocks.unwrap() * 512;
    assert!(taken <= usage.held_bytes + 4096, "{taken} taken, {} counted", usage.held_bytes);
    flush_all(&life.holding);
    assert_eq!(life.lender.held_bytes(), 0);
}

#[test]
fn what_cannot_be_entered_is_made_up_for_and_meanwhile_nobody_goes_on_with_it() {
    let life = Life::new();
    (0..20).for_each(|place| carry_out(&Act::Put(place, 1, 0..=80), &life.holding));
    let follow = || Lender::take_over(BY, life.files.clone(), life.files.left());
    dying::without_memory(|| {
        let copy = TierCopy { place: 30, writing: 1 };
        assert_eq!(put(&mut lock(&life.holding), copy, &runs(0..=3)), PutResult::NoRoom);
        assert!(follow().is_ok_and(|lender| lender.usage()[0].usage.copies == 20));
        (0..3).for_each(|place| carry_out(&Act::Gone(place), &life.holding));
        carry_out(&Act::Dead(7, Run { start: 0, units: 190 }), &life.holding);
    });
    assert!(follow().unwrap_err().to_string().contains("could not be entered"));
    let before = life.found();
    // As many as it takes until it is tried again.
    (0..300).for_each(|n| carry_out(&Act::Put(40 + n, 1, 0..=0), &life.holding));
    dying::without_memory(|| (0..100).for_each(|n| carry_out(&Act::Gone(40 + n), &life.holding)));
    (100..300).for_each(|n| carry_out(&Act::Gone(40 + n), &life.holding));
    assert!(is_same(&life.found(), &before));
    let life = Life::follow(life.end());
    assert!(is_same(&life.found(), &before));
}

#[test]
fn what_was_dropped_is_known_to_the_next_one_until_the_borrower_knows() {
    let life = Life::new();
    (0..3).for_each(|place| carry_out(&Act::Put(place, 1, 0..=80), &life.holding));
    lock(&life.holding).recall(1, 10);
    life.lender.expire(10);
    let dropped = TierCopy { place: 0, writing: 1 };
    let mut life = life;
    for _ in 0..2 {
        life = Life::follow(life.end());
        assert_eq!(lock(&life.holding).recalled().collect::<Vec<_>>(), [(0, dropped)]);
        assert_eq!(life.found().len(), 2);
    }
    flush(&mut lock(&life.holding), dropped, &[]);
    let life = Life::follow(life.end());
    assert_eq!(lock(&life.holding).recalled().count(), 0);
}

#[test]
fn of_what_is_given_up_nothing_is_gone_on_with() {
    let life = Life::new();
    carry_out(&Act::Put(1, 1, 0..=80), &life.holding);
    let other = Hello { name: "b".parse().unwrap(), ..hello() };
    carry_out(&Act::Put(1, 1, 0..=80), &life.lender.admit(&other).unwrap());
    let files = life.end();
    assert_eq!(files.left().len(), 2);
    // It dies half way: one of them is still kept.
    let left = files.left();
    give_up(files.left(), &*files);
    assert!(files.left().is_empty());
    for (name, file) in left {
        let follow = Lender::take_over(BY, files.clone(), vec![(name, file.try_clone().unwrap())]);
        assert!(follow.is_err() && Lender::check_left(BY, &[(String::new(), file)]).is_err());
    }
}

fn flush_all(holding: &SharedHolding) {
    let mut holding = lock(holding);
    let copies: Vec<TierCopy> = holding.list(0).collect();
    copies.into_iter().for_each(|copy| flush(&mut holding, copy, &[]));
}

#[test]
fn a_lender_that_dies_while_it_takes_over_is_followed_and_not_for_ever() {
    let life = Life::new();
    (0..20).for_each(|place| carry_out(&Act::Put(place, 1, 0..=80), &life.holding));
    (0..20).step_by(2).for_each(|place| carry_out(&Act::Gone(place), &life.holding));
    let files = life.end();
    let follow = || Lender::take_over(BY, files.clone(), files.left());
    let mut steps = 0;
    while dying::after(steps, || mem::forget(follow())) {
        steps += 1;
        let life = Life::follow(files.clone());
        assert_eq!(life.found().len(), 10);
        mem::forget(life);
    }
    assert!(steps > 3, "{steps}");
    for _ in 0..3 {
        assert!(dying::after(0, || mem::forget(follow())));
    }
    assert!(follow().unwrap_err().to_string().contains("3 processes have died"));
}

#[test]
fn what_is_another_lenders_or_damaged_is_not_taken_over() {
    let left = |change: &dyn Fn(&File)| {
        let life = Life::new();
        carry_out(&Act::Put(1, 1, 0..=80), &life.holding);
        carry_out(&Act::Put(2, 2, 0..=80), &life.holding);
        let files = life.end();
        change(&files.left().pop().unwrap().1.into());
        files
    };
    let flip = |at: u64| {
        move |file: &File| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }
    };
    let said =
        |files: &Arc<Files>, by| Lender::take_over(by, files.clone(), files.left()).unwrap_err().to_string();
    let files = left(&|_| ());
    assert!(said(&files, LentBy { epoch: Epoch(4), ..BY }).contains("in another epoch"));
    assert!(said(&files, LentBy { node: NodeId(4), ..BY }).contains("another node"));
    assert!(said(&files, LentBy { cluster: 7, ..BY }).contains("another node"));
    assert!(said(&left(&flip(0)), BY).contains("another version"));
    // Cluster, store, name, which journal and how long, its first and its second entry.
    for at in [8, 40, 50, 17 * 8, 17 * 8 + 3, 17 * 8 + 7, 4096, 4096 + 700] {
        let said = said(&left(&flip(at)), BY);
        assert!(said.contains("damaged"), "{at}: {said}");
    }
    // Of the borrower's epoch no more is known then, and it comes with one.
    let files = left(&flip(15 * 8));
    assert_eq!(Life::follow(files.clone()).found().len(), 2);
    let not_ours = File::open("/dev/null").unwrap();
    let error = Lender::take_over(BY, files.clone(), vec![("lent-1".to_owned(), not_ours.into())]);
    assert!(error.unwrap_err().to_string().contains("cannot be opened"));
}

/// How long the next process takes: `cargo test --release -p tmem-cluster --lib -- --ignored --nocapture how_long`.
#[test]
#[ignore = "prints times, and asserts none"]
fn how_long_the_next_one_takes() {
    for copies in [10_000, 100_000, 500_000] {
        let life = Life::new();
        let runs: Vec<Run> = (0..40).map(|block| Run { start: block * 400, units: 3 }).collect();
        let start = std::time::Instant::now();
        let mut longest = std::time::Duration::ZERO;
        for place in 0..copies {
            let before = std::time::Instant::now();
            put(&mut lock(&life.holding), TierCopy { place, writing: 1 }, &runs);
            longest = longest.max(before.elapsed());
        }
        let filled = start.elapsed();
        let files = life.end();
        let start = std::time::Instant::now();
        let life = Life::follow(files);
        println!(
            "{copies} copies of 40 pieces: put in {filled:.1?}, one {longest:.1?} at most; taken over in {:.1?}",
            start.elapsed()
        );
        assert_eq!(lock(&life.holding).usage().copies, copies as usize);
    }
}
