//! A lender's memory against a plain model: whatever is put, flushed, recalled and moved, what is there is what was put, and no more
//! memory is taken than was promised.
#![allow(clippy::unwrap_used)] // a test

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::Index};
use support::{
    borrower::{Expected, Model, UNITS, bytes, flush, put},
    keeper::Files,
};
use tmem_cluster::{
    Epoch, NodeId,
    lender::{Holding, Lender, LentBy, SharedHolding, lock},
    wire::{Hello, PutResult, RUN_UNIT_BYTES, Reason, Run},
};
use tmem_store::TierCopy;

mod support;

/// What an index entry is counted with, a run, a dropped copy, and what a log may have besides: two pages, and what a segment takes.
/// A journal has half as much again as its entries of copies and runs take, and two pages more than 16 KiB at most.
const COPY_BYTES: usize = 160;
const RUN_BYTES: usize = 6;
const DROPPED_BYTES: usize = 32;
const SPARE_BYTES: usize = 2 * 4096 + 2688;
const ENTRY_BYTES: usize = 40;
const DROPPED_ENTRY_BYTES: usize = 24;
const JOURNAL_SPARE_BYTES: usize = (16 << 10) + 2 * 4096;

const BY: LentBy = LentBy { cluster: 1, node: NodeId(1), epoch: Epoch(1) };

#[derive(Clone, Debug)]
enum Op {
    Put {
        place: u32,
        runs: Vec<Run>,
    },
    PutAgain {
        which: Index,
    },
    Flush {
        which: Index,
        runs: Vec<Run>,
    },
    FlushWhole {
        which: Index,
    },
    FlushOld {
        which: Index,
    },
    Recall {
        bytes: u64,
        in_ms: u64,
    },
    Later {
        ms: u64,
    },
    Limit {
        bytes: u64,
    },
    Clean {
        steps: usize,
    },
    /// The lender's process dies, and another one goes on.
    Death,
}

/// Runs of an extent: few long ones, or many short ones.
fn runs() -> impl Strategy<Value = Vec<Run>> {
    let whole = Just(vec![Run { start: 0, units: UNITS as u16 }]);
    let some = (0u16..400, 1u16..3000, 1u16..3000).prop_flat_map(|(first, gap, units)| {
        vec((1..=gap, 1..=units), 0..40).prop_map(move |pairs| {
            let mut next = usize::from(first);
            let mut runs = Vec::new();
            for (gap, units) in pairs {
                if next + usize::from(units) > UNITS {
                    break;
                }
                runs.push(Run { start: next as u16, units });
                next += usize::from(units) + usize::from(gap);
            }
            runs
        })
    });
    prop_oneof![1 => whole, 4 => some]
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<Index>;
    prop_oneof![
        6 => (0u32..40, runs()).prop_map(|(place, runs)| Op::Put { place, runs }),
        1 => which().prop_map(|which| Op::PutAgain { which }),
        6 => (which(), runs()).prop_map(|(which, runs)| Op::Flush { which, runs }),
        2 => which().prop_map(|which| Op::FlushWhole { which }),
        1 => which().prop_map(|which| Op::FlushOld { which }),
        1 => (0u64..300_000, 0u64..100).prop_map(|(bytes, in_ms)| Op::Recall { bytes, in_ms }),
        1 => (0u64..60).prop_map(|ms| Op::Later { ms }),
        1 => prop_oneof![Just(u64::MAX), 0u64..2_000_000].prop_map(|bytes| Op::Limit { bytes }),
        3 => (0usize..20).prop_map(|steps| Op::Clean { steps }),
        1 => Just(Op::Death),
    ]
}

/// A lender with one borrower, and what they should have.
struct Rig {
    files: Arc<Files>,
    lender: Lender,
    holding: SharedHolding,
    model: Model,
    dropped: BTreeMap<u32, u64>,
    limit: u64,
    writing: u64,
    now_ms: u64,
}

impl Rig {
    fn new() -> Self {
        let files = Arc::<Files>::default();
        let lender = Lender::new(BY, files.clone());
        lender.set_limit(u64::MAX, 0);
        let holding = lender.admit(&hello("a", 1, 1)).unwrap();
        Self {
            files,
            lender,
            holding,
            model: Model::new(),
            dropped: BTreeMap::new(),
            limit: u64::MAX,
            writing: 0,
            now_ms: 0,
        }
    }

    /// Which copy an index means.
    fn which(&self, which: Index) -> Option<TierCopy> {
        let (place, expected) = self.model.iter().nth(which.index(self.model.len().max(1)))?;
        Some(TierCopy { place: *place, writing: expected.writing })
    }

    fn put(&mut self, copy: TierCopy, runs: &[Run]) {
        if self.model.get(&copy.place).is_some_and(|expected| expected.writing < copy.writing) {
            self.model.remove(&copy.place);
        }
        let before = self.lender.held_bytes();
        let wanted: usize = COPY_BYTES + runs.iter().map(|run| run.bytes() + RUN_BYTES).sum::<usize>();
        match put(&mut lock(&self.holding), copy, runs) {
            PutResult::Stored => {
                self.dropped.remove(&copy.place);
                self.model.insert(copy.place, Expected::of(copy.writing, runs));
            }
            PutResult::NoRoom => assert!(before + wanted as u64 > self.limit, "there was room"),
        }
    }

    fn carry_out(&mut self, op: Op) {
        match op {
            Op::Put { place, runs } => {
                self.writing += 1;
                self.put(TierCopy { place, writing: self.writing }, &runs);
            }
            Op::PutAgain { which } => {
                let Some(copy) = self.which(which) else { return };
                let runs = self.model[&copy.place].runs();
                self.put(copy, &runs);
            }
            Op::Flush { which, runs } => {
                let Some(copy) = self.which(which).filter(|_| !runs.is_empty()) else { return };
                flush(&mut lock(&self.holding), copy, &runs);
                self.model.get_mut(&copy.place).unwrap().set(&runs, false);
            }
            Op::FlushWhole { which } => {
                let Some(copy) = self.which(which) else { return };
                flush(&mut lock(&self.holding), copy, &[]);
                self.model.remove(&copy.place);
            }
            Op::FlushOld { which } => {
                let old = self.which(which).map(|copy| TierCopy { writing: copy.writing - 1, ..copy });
                let dropped = self.dropped.pop_first();
                let dropped = dropped.map(|(place, writing)| TierCopy { place, writing });
                for copy in old.into_iter().chain(dropped) {
                    flush(&mut lock(&self.holding), copy, &[]);
                }
            }
            Op::Recall { bytes, in_ms } => self.recall(bytes, self.now_ms + in_ms),
            Op::Later { ms } => {
                self.now_ms += ms;
                self.lender.expire(self.now_ms);
                let is_due =
                    |expected: &Expected| expected.until_ms.is_some_and(|until| until <= self.now_ms);
                for (place, expected) in self.model.extract_if(.., |_, expected| is_due(expected)) {
                    self.dropped.insert(place, expected.writing);
                }
            }
            Op::Limit { bytes } => {
                self.limit = bytes;
                let until_ms = self.now_ms + 50;
                let recalled = self.lender.set_limit(bytes, until_ms);
                for copy in recalled.into_iter().flat_map(|(_, copies)| copies) {
                    self.model.get_mut(&copy.place).unwrap().until_ms = Some(until_ms);
                }
            }
            Op::Death => self.die(),
            Op::Clean { steps } => {
                let mut holding = lock(&self.holding);
                let _is_done = (0..steps).all(|_| holding.clean_step());
            }
        }
    }

    /// What was asked back is so no more.
    fn die(&mut self) {
        let lender = Lender::take_over(BY, self.files.clone(), self.files.left()).unwrap();
        // Of the other process nothing more is done.
        std::mem::forget(std::mem::replace(&mut self.lender, lender));
        let holding = self.lender.admit(&hello("a", 1, 1)).unwrap();
        std::mem::forget(std::mem::replace(&mut self.holding, holding));
        self.model.values_mut().for_each(|expected| expected.until_ms = None);
        self.carry_out(Op::Limit { bytes: self.limit });
    }

    /// The oldest come first, and no more of them than needed.
    fn recall(&mut self, bytes: u64, until_ms: u64) {
        let recalled = lock(&self.holding).recall(bytes, until_ms);
        let mut free: Vec<(u64, u32, u64)> = (self.model.iter())
            .filter(|(_, expected)| expected.until_ms.is_none())
            .map(|(place, expected)| (expected.writing, *place, (expected.live_bytes() + COPY_BYTES) as u64))
            .collect();
        free.sort_unstable();
        let mut sum = 0;
        let oldest = free.iter().take_while(|(_, _, more)| {
            let is_missing = sum < bytes;
            sum += more;
            is_missing
        });
        let oldest: Vec<TierCopy> =
            oldest.map(|(writing, place, _)| TierCopy { place: *place, writing: *writing }).collect();
        assert_eq!(recalled, oldest);
        for copy in recalled {
            self.model.get_mut(&copy.place).unwrap().until_ms = Some(until_ms);
        }
    }

    fn check_books(&self) {
        let holding = lock(&self.holding);
        let usage = holding.usage();
        let recalled = || self.model.values().filter(|expected| expected.until_ms.is_some());
        assert_eq!(usage.copies, self.model.len());
        assert_eq!(usage.needed_bytes as usize, self.model.values().map(Expected::live_bytes).sum::<usize>());
        assert_eq!(usage.recalled_copies, recalled().count());
        assert_eq!(usage.recalled_bytes as usize, recalled().map(Expected::live_bytes).sum::<usize>());
        assert_eq!(usage.dropped_copies, self.dropped.len());
        assert_eq!(usage.held_bytes, self.lender.held_bytes());
        assert!(usage.held_bytes >= usage.needed_bytes);
    }

    fn check_bytes(&self) {
        let holding = lock(&self.holding);
        let listed: Vec<(u32, u64)> = holding.list(0).map(|copy| (copy.place, copy.writing)).collect();
        let expected = self.model.iter().map(|(place, expected)| (*place, expected.writing));
        assert_eq!(listed, expected.collect::<Vec<_>>());
        assert_eq!(holding.list(20).count(), self.model.range(20..).count());
        for (place, expected) in &self.model {
            let copy = TierCopy { place: *place, writing: expected.writing };
            let runs = expected.runs();
            let fetched: Vec<(Run, Vec<u8>)> =
                holding.fetch(copy).unwrap().map(|(run, bytes)| (run, bytes.to_vec())).collect();
            let wanted = runs.iter().map(|run| (*run, bytes(copy, run.start_bytes(), run.bytes())));
            assert!(fetched == wanted.collect::<Vec<_>>(), "{copy:?}");
            for run in runs {
                check_gets(&holding, copy, run);
            }
        }
        let recalled: Vec<(u64, u32)> = holding.recalled().map(|(until, copy)| (until, copy.place)).collect();
        let mut expected: Vec<(u64, u32)> =
            (self.model.iter()).filter_map(|(place, expected)| Some((expected.until_ms?, *place))).collect();
        expected.sort_unstable();
        expected.splice(0..0, self.dropped.keys().map(|place| (0, *place)));
        assert_eq!(recalled, expected);
        for (place, writing) in &self.dropped {
            let copy = TierCopy { place: *place, writing: *writing };
            assert_eq!(holding.get(copy, 0, 8), Err(Reason::Dropped));
            assert_eq!(holding.fetch(copy).map(|_| ()), Err(Reason::Dropped));
        }
    }

    /// Cleaned to the end, it takes what lives and a 24th of it, and the index.
    fn check_bound(&self) {
        let mut holding = lock(&self.holding);
        let steps = (0..10_000).take_while(|_| holding.clean_step()).count();
        assert!(steps < 10_000 && !holding.needs_cleaning());
        let runs: usize = self.model.values().map(|expected| expected.runs().len()).sum();
        let usage = holding.usage();
        let live = usage.needed_bytes as usize;
        let index = usage.copies * COPY_BYTES + runs * RUN_BYTES + self.dropped.len() * DROPPED_BYTES;
        let entries =
            usage.copies * ENTRY_BYTES + runs * RUN_BYTES + self.dropped.len() * DROPPED_ENTRY_BYTES;
        let journal = entries * 3 / 2 + JOURNAL_SPARE_BYTES;
        let most = live + live / 24 + SPARE_BYTES + index + journal;
        assert!(usage.held_bytes as usize <= most, "{} of {most} for {live}", usage.held_bytes);
    }
}

fn check_gets(holding: &Holding, copy: TierCopy, run: Run) {
    let (start, len) = (run.start_bytes(), run.bytes());
    let end = start + len;
    for (from, len) in [(start, len), (end - 1, 1), (start + len / 2, len / 2), (start + 3, 5)] {
        if len > 0 {
            let got = holding.get(copy, from as u32, len as u32);
            assert!(got.unwrap() == bytes(copy, from, len), "{copy:?} {from} {len}");
        }
    }
    // Nothing beyond the run's ends, and nothing of another writing.
    let (start, len) = (start as u32, len as u32);
    assert_eq!(holding.get(copy, start, len + 1), Err(Reason::NotThere));
    if start > 0 {
        assert_eq!(holding.get(copy, start - 1, 2), Err(Reason::NotThere));
    }
    let other = TierCopy { writing: copy.writing + 1, ..copy };
    assert_eq!(holding.get(other, start, RUN_UNIT_BYTES as u32), Err(Reason::NotThere));
}

fn hello(name: &str, epoch: u64, store: u64) -> Hello {
    Hello { cluster: 1, name: name.parse().unwrap(), epoch: Epoch(epoch), store }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn r1_what_was_put_is_there_whatever_is_moved(ops in vec(op(), 1..120)) {
        let mut rig = Rig::new();
        for (at, op) in ops.into_iter().enumerate() {
            rig.carry_out(op);
            rig.check_books();
            if at % 10 == 0 {
                rig.check_bytes();
            }
        }
        rig.check_bytes();
        rig.check_bound();
        rig.check_books();
        rig.check_bytes();
        // r7: after everything is flushed, everything is back.
        let Rig { lender, holding, model, dropped, .. } = rig;
        for (place, writing) in model.iter().map(|(place, expected)| (*place, expected.writing)).chain(dropped) {
            flush(&mut lock(&holding), TierCopy { place, writing }, &[]);
        }
        prop_assert_eq!(lender.held_bytes(), 0);
    }
}

#[test]
fn r7_a_limit_is_kept_by_all_together() {
    let lender = Lender::default();
    let limit = 10_000_000;
    lender.set_limit(limit, 0);
    let whole = [Run { start: 0, units: UNITS as u16 }];
    let holdings = ["a", "b", "c"].map(|name| lender.admit(&hello(name, 1, 1)).unwrap());
    let mut stored = 0;
    for place in 0..100 {
        for holding in &holdings {
            let result = put(&mut lock(holding), TierCopy { place, writing: 1 }, &whole);
            stored += usize::from(result == PutResult::Stored);
        }
    }
    assert!(lender.held_bytes() <= limit + 3 * SPARE_BYTES as u64, "{}", lender.held_bytes());
    assert!((74..=76).contains(&stored), "{stored}");
    assert!(lender.free_bytes() < 150_000);
}

#[test]
fn who_has_most_is_recalled_first_and_each_only_once() {
    let lender = Lender::default();
    lender.set_limit(u64::MAX, 0);
    let whole = [Run { start: 0, units: UNITS as u16 }];
    let (many, few) =
        (lender.admit(&hello("many", 1, 1)).unwrap(), lender.admit(&hello("few", 1, 1)).unwrap());
    for place in 0..40 {
        put(&mut lock(&many), TierCopy { place, writing: u64::from(100 - place) }, &whole);
    }
    for place in 0..10 {
        put(&mut lock(&few), TierCopy { place, writing: 1 }, &whole);
    }
    let limit = lender.held_bytes() - 1_000_000;
    let recalled = lender.set_limit(limit, 500);
    assert_eq!(recalled.len(), 1);
    assert_eq!(recalled[0].0, hello("many", 1, 1).node());
    let bytes = recalled[0].1.len() as u64 * 131_072;
    assert!((1_000_000..1_131_072 + limit / 64).contains(&bytes), "{bytes}");
    assert_eq!(recalled[0].1[0], TierCopy { place: 39, writing: 61 });
    assert!(lender.set_limit(limit, 600).is_empty());
    lender.expire(499);
    assert_eq!(lock(&many).usage().dropped_copies, 0);
    lender.expire(500);
    assert!(lender.held_bytes() <= limit && lock(&many).usage().dropped_copies == recalled[0].1.len());
}

#[test]
fn a_put_that_comes_late_does_not_take_the_place_of_a_later_one() {
    let lender = Lender::default();
    let holding = lender.admit(&hello("a", 1, 1)).unwrap();
    lender.set_limit(1 << 30, 0);
    let runs = [Run { start: 0, units: 16 }];
    let (late, later) = (TierCopy { place: 3, writing: 5 }, TierCopy { place: 3, writing: 6 });
    assert_eq!(put(&mut lock(&holding), later, &runs), PutResult::Stored);
    assert_eq!(put(&mut lock(&holding), late, &runs), PutResult::NoRoom);
    assert!(lock(&holding).get(later, 0, 8).is_ok());
    // What was asked to forget the late one forgets nothing else.
    flush(&mut lock(&holding), late, &[]);
    assert!(lock(&holding).get(later, 0, 8).is_ok());
}

#[test]
fn copies_stay_for_their_store_and_no_other() {
    let lender = Lender::default();
    lender.set_limit(u64::MAX, 0);
    let copy = TierCopy { place: 1, writing: 7 };
    let run = [Run { start: 4, units: 2 }];
    put(&mut lock(&lender.admit(&hello("a", 5, 1)).unwrap()), copy, &run);
    // It comes back, in the same epoch or a later one, with its store.
    for epoch in [5, 6] {
        let again = lender.admit(&hello("a", epoch, 1)).unwrap();
        assert_eq!(lock(&again).get(copy, 32, 16).unwrap(), bytes(copy, 32, 16));
    }
    // Whoever was here before, or is another one of the same name, changes nothing.
    for (epoch, store) in [(5, 1), (5, 2), (6, 2)] {
        let error = lender.admit(&hello("a", epoch, store)).unwrap_err().to_string();
        assert!(error.starts_with("a ") && !error.contains('\n'), "{error}");
    }
    assert_eq!(lender.usage()[0].usage.copies, 1);
    // With a new store in a later epoch the old one's copies are nobody's.
    let new = lender.admit(&hello("a", 7, 2)).unwrap();
    assert_eq!(lock(&new).get(copy, 32, 16), Err(Reason::NotThere));
    assert_eq!((lender.held_bytes(), lender.usage()[0].epoch), (0, Epoch(7)));
    put(&mut lock(&new), copy, &run);
    lender.forget(hello("a", 7, 2).node());
    drop(new);
    assert!(lender.held_bytes() == 0 && lender.usage().is_empty());
}
