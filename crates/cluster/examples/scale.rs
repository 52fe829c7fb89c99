//! What a borrower's knowledge costs in a large cluster: memory for each extent, the walks over all of them, and the choice among many lenders.
//! docs/scale.md has the numbers.
//!
//! ```sh
//! cargo run --release -p tmem-cluster --example scale
//! ```
#![allow(clippy::unwrap_used, reason = "a measurement: it may end where it can't go on")]

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use tmem_cluster::{
    Epoch, NodeId,
    ledger::Ledger,
    placement::{Offer, Placement},
};
use tmem_store::TierCopy;

const EPOCH: Epoch = Epoch(1);
/// What a host borrows, in extents of 128 KiB: 4, 16 and 64 GiB.
const EXTENTS: [u32; 3] = [32_768, 131_072, 524_288];
const LENDERS: [u64; 3] = [3, 16, 999];

/// The process's memory, in bytes.
fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn timed<R>(what: impl FnOnce() -> R) -> Duration {
    let began = Instant::now();
    black_box(what());
    began.elapsed()
}

/// Two copies of each extent, at lenders drawn at random.
fn ledger(extents: u32, lenders: u64) -> Ledger {
    let mut random = fastrand::Rng::with_seed(1);
    let mut ledger = Ledger::new(2);
    for node in 1..=lenders {
        ledger.join(NodeId(node), EPOCH);
    }
    for place in 0..extents {
        let copy = TierCopy { place, writing: 1 };
        ledger.put(copy).unwrap();
        let first = random.u64(0..lenders);
        let second = (first + random.u64(1..lenders)) % lenders;
        let sent = ledger.send(copy, &[NodeId(first + 1), NodeId(second + 1)]);
        for (_, ticket) in sent {
            ledger.acknowledge(ticket, EPOCH);
        }
        if place % 64 == 0 {
            ledger.take_settled();
        }
    }
    ledger.take_settled();
    ledger
}

/// Extents on a disk, every second of which is at a lender, too.
fn backed(extents: u32) -> Ledger {
    let mut ledger = Ledger::backed(1);
    ledger.join(NodeId(1), EPOCH);
    for place in 0..extents {
        let copy = TierCopy { place, writing: 1 };
        ledger.put(copy).unwrap();
        ledger.stored(copy);
        if place % 2 == 0 {
            ledger.adopt(copy, NodeId(1), EPOCH);
        }
    }
    ledger
}

fn main() {
    println!("extents  lenders  bytes/extent  a lender goes  it is back  status");
    for extents in EXTENTS {
        for lenders in LENDERS {
            let before = resident_bytes();
            let mut ledger = ledger(extents, lenders);
            let bytes = resident_bytes().saturating_sub(before) / u64::from(extents);
            let away = timed(|| ledger.away(NodeId(1)));
            let back = timed(|| ledger.join(NodeId(1), EPOCH));
            let status = timed(|| {
                let copies: usize = (1..=lenders).map(|node| ledger.copies_at(NodeId(node))).sum();
                (copies, ledger.lost_extents())
            });
            // Kept: what the next one takes is not to be memory that this one had.
            std::mem::forget(ledger);
            println!("{extents:7}  {lenders:7}  {bytes:12}  {away:11.1?}  {back:10.1?}  {status:.1?}");
        }
    }
    println!("\nextents on a disk  bytes/extent  known again");
    for extents in EXTENTS {
        let before = resident_bytes();
        let began = Instant::now();
        let ledger = backed(extents);
        let took = began.elapsed();
        let bytes = resident_bytes().saturating_sub(before) / u64::from(extents);
        std::mem::forget(ledger);
        println!("{extents:17}  {bytes:12}  {took:.1?}");
    }
    println!("\nlenders  a choice of two");
    for lenders in LENDERS {
        let mut placement = Placement::new(1);
        for node in 1..=lenders {
            let offer = Offer { free_bytes: 1 << 40, domain: None, is_leaving: false };
            placement.set_offer(NodeId(node), &offer);
        }
        let choices = 1000;
        let took = timed(|| (0..choices).filter_map(|_| placement.choose(2, 128 << 10, &[], &[])).count());
        println!("{lenders:7}  {:.1?}", took / choices);
    }
}
