//! A tier that borrows, from lenders that lend.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use support::{copy, lend, options, reads, wait_for_repair, wait_until, write};
use tmem_peers::{LendingOptions, LendingServer, Member, PeerState, PeerTier};
use tmem_store::{Tier, TierKey, TierState};

mod support;

struct Lender {
    server: LendingServer,
    available: Arc<AtomicU64>,
    member: Member,
}

fn lender(number: u32, lending: LendingOptions) -> Lender {
    let name = format!("lender-{number}").parse().unwrap();
    let available = Arc::new(AtomicU64::new(1 << 30));
    let asked = Arc::clone(&available);
    let server = lend(name, lending, move || asked.load(SeqCst));
    let address = server.address().unwrap().to_string();
    Lender { server, available, member: Member { name, address, domain: None, epoch: None } }
}

fn borrow(lenders: &[Lender]) -> PeerTier {
    let tier = PeerTier::new(options(2)).unwrap();
    tier.set_members(&lenders.iter().map(|lender| lender.member.clone()).collect::<Vec<_>>());
    tier.use_key(&TierKey([7; 32]));
    wait_until("all are heard", || {
        let status = tier.status();
        status.is_complete && status.peers.iter().all(|peer| peer.free_bytes > 0)
    });
    assert_eq!(tier.state(), TierState::Ready);
    tier
}

fn all_read(tier: &PeerTier, extents: u32) {
    for place in 0..extents {
        for _ in 0..5 {
            assert_eq!(reads(tier, copy(place, 1), u64::from(place)), Ok(true), "{place}");
        }
    }
}

#[test]
fn r1_every_page_comes_back_and_a_lender_that_dies_costs_none() {
    let mut lenders: Vec<Lender> = (0..3).map(|number| lender(number, LendingOptions::default())).collect();
    let tier = borrow(&lenders);
    for place in 0..40 {
        write(&tier, copy(place, 1), u64::from(place)).unwrap();
    }
    all_read(&tier, 40);
    let copies = |lenders: &[Lender]| {
        lenders
            .iter()
            .flat_map(|lender| lender.server.status().borrowers)
            .map(|held| held.copies)
            .sum::<usize>()
    };
    assert_eq!(copies(&lenders), 80);
    drop(lenders.remove(0));
    all_read(&tier, 40);
    wait_until("it is known to be away", || {
        tier.status().peers.iter().any(|peer| peer.state == PeerState::Away)
    });
    wait_for_repair(&tier);
    assert_eq!(copies(&lenders), 80);
    all_read(&tier, 40);
    // r7: what is discarded is nobody's.
    (0..40).for_each(|place| tier.discard(place));
    wait_until("everything is flushed", || copies(&lenders) == 0);
    assert!(lenders.iter().all(|lender| lender.server.status().held_bytes == 0));
}

#[test]
fn what_a_host_wants_back_is_taken_elsewhere_in_time() {
    let lending = LendingOptions {
        reserve_bytes: 1 << 20,
        deadline: Duration::from_secs(20),
        ..LendingOptions::default()
    };
    let lenders: Vec<Lender> = (0..3).map(|number| lender(number, lending)).collect();
    let tier = borrow(&lenders);
    for place in 0..30 {
        write(&tier, copy(place, 1), u64::from(place)).unwrap();
    }
    let first = &lenders[0];
    let before = first.server.status();
    assert!(before.held_bytes > 1 << 20, "{before:?}");
    // All but its reserve is wanted: it is a megabyte short.
    first.available.store(0, SeqCst);
    wait_until("it has given back a megabyte", || {
        let status = first.server.status();
        status.held_bytes + (1 << 20) <= before.held_bytes
            && status.borrowers.iter().all(|one| one.recalled_copies == 0)
    });
    // Before the deadline, so nothing was dropped under anybody.
    assert!(first.server.status().borrowers.iter().all(|one| one.dropped_copies == 0));
    first.available.store(1 << 30, SeqCst);
    wait_for_repair(&tier);
    all_read(&tier, 30);
}
