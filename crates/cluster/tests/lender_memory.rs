//! What a lender takes of memory for what is needed of it, while blocks die one by one. One test: what the process takes is the test's.
#![allow(clippy::unwrap_used)] // a test

use std::{
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use fastrand::Rng;
use support::borrower::{UNITS, flush, put};
use tmem_cluster::{
    Epoch,
    lender::{Lender, lock},
    wire::{Hello, PutResult, Run},
};
use tmem_store::TierCopy;

mod support;

/// How much is lent, in bytes.
const NEEDED_BYTES: usize = 96 << 20;

/// An extent of the store: blocks, of which some died.
struct Extent {
    copy: TierCopy,
    live: Vec<Run>,
}

/// As many blocks as fit: of pages that compress well or badly.
fn blocks(rng: &mut Rng) -> Vec<Run> {
    let mut next = 0;
    std::iter::from_fn(|| {
        let units = rng.u16(20..450);
        (next + units <= UNITS as u16).then(|| {
            let run = Run { start: next, units };
            next += units;
            run
        })
    })
    .collect()
}

/// Blocks as the wire says them: those that follow each other are one run.
fn merged(blocks: &[Run]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if run.start + run.units == block.start => run.units += block.units,
            _ => runs.push(*block),
        }
    }
    runs
}

/// What the process takes, in bytes: of its own, and in its memory files.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let files = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_memory = std::fs::read_link(&path).ok()?.to_string_lossy().starts_with("/memfd:");
        is_memory.then(|| std::fs::metadata(&path).ok()).flatten()
    });
    own.unwrap().parse::<usize>().unwrap() * 1024
        + files.map(|file| file.blocks() as usize * 512).sum::<usize>()
}

#[test]
fn what_is_held_is_at_most_a_twentieth_more_than_what_is_needed() {
    let lender = Lender::default();
    lender.set_limit(u64::MAX, 0);
    let hello = Hello { cluster: 1, name: "a".parse().unwrap(), epoch: Epoch(1), store: 1 };
    let holding = lender.admit(&hello).unwrap();
    let mut holding = lock(&holding);
    let mut rng = Rng::with_seed(7);
    let mut extents: Vec<Extent> = Vec::new();
    let before = resident_bytes();
    let (mut writing, mut died, mut cleaning) = (0, 0usize, Duration::ZERO);
    let mut worst = 0f64;
    for step in 0..300_000 {
        // A block dies, and what is less than three quarters full is written anew, as the store does.
        if !extents.is_empty() {
            let which = rng.usize(..extents.len());
            let extent = &mut extents[which];
            let block = extent.live.swap_remove(rng.usize(..extent.live.len()));
            died += block.bytes();
            flush(&mut holding, extent.copy, &[block]);
            if extent.live.iter().map(|block| block.bytes()).sum::<usize>() < UNITS * 6 {
                flush(&mut holding, extent.copy, &[]);
                extents.swap_remove(which);
            }
        }
        while (holding.usage().needed_bytes as usize) < NEEDED_BYTES {
            writing += 1;
            let copy = TierCopy { place: writing as u32, writing };
            let live = blocks(&mut rng);
            assert_eq!(put(&mut holding, copy, &merged(&live)), PutResult::Stored);
            extents.push(Extent { copy, live });
        }
        let start = Instant::now();
        while holding.clean_step() {}
        cleaning += start.elapsed();
        if step % 1000 == 999 {
            let usage = holding.usage();
            worst = worst.max(usage.held_bytes as f64 / usage.needed_bytes as f64);
        }
    }
    let usage = holding.usage();
    // The test's own list, and its buffers.
    let own = extents.iter().map(|extent| 64 + extent.live.capacity() * 4).sum::<usize>() + (8 << 20);
    let taken = resident_bytes() - before;
    println!(
        "{} copies, {} needed, {} held, at most {worst:.4} times, {taken} resident; {died} bytes died, {cleaning:?} of cleaning",
        usage.copies, usage.needed_bytes, usage.held_bytes
    );
    assert!(worst <= 1.05, "{worst}");
    assert!(taken <= usage.held_bytes as usize + own, "{taken} taken, {} counted", usage.held_bytes);
    assert!(taken >= usage.needed_bytes as usize, "{taken} taken for {} needed", usage.needed_bytes);
}
