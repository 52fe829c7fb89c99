//! Peers that come and go: what is done at once, what waits for whom, and who is believed to be there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use support::{
    EXTENT, copy,
    fake_lender::{FakeLender, Mischief},
    lenders, members, needed, open, open_again, options, reads, ready, wait_for_repair, wait_until, write,
};
use tmem_cluster::Epoch;
use tmem_peers::{PeerState, PeerStatus, PeerTier, PeerTierOptions};
use tmem_store::{Tier, TierError, TierState, TierWrite};

fn all_read(tier: &PeerTier, extents: u32) {
    for place in 0..extents {
        assert_eq!(reads(tier, copy(place, 1), place.into()), Ok(true), "place {place}");
    }
}

fn peer(tier: &PeerTier, number: usize) -> Option<PeerStatus> {
    let name = format!("lender-{number}");
    tier.status().peers.into_iter().find(|peer| peer.name == name)
}

fn is_connected(tier: &PeerTier, number: usize) -> bool {
    peer(tier, number).is_some_and(|peer| peer.state == PeerState::Connected)
}

#[test]
fn what_is_asked_back_waits_for_nobody_who_has_yet_to_be_heard() {
    let (lenders, tier) = ready(4, 100, 2);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let recalled = lenders[0].copies();
    assert!(!recalled.is_empty());
    drop(tier);
    // It has half of what there is and does not say so: everything else would wait for it.
    lenders[3].misbehave(Mischief::Away);
    let tier = open_again(&lenders, options(2), (0..20).map(|place| copy(place, 1)));
    wait_until("it is listed", || peer(&tier, 0).is_some_and(|peer| peer.copies == recalled.len() as u64));
    lenders[0].recall(&recalled, 3_600_000);
    wait_until("it has nothing any more, long before it would drop it", || lenders[0].copies().is_empty());
    assert!(!tier.status().is_complete, "the fourth has said nothing");
    lenders[3].misbehave(Mischief::None);
    wait_until("all have said", || tier.status().is_complete);
    wait_for_repair(&tier);
    all_read(&tier, 20);
}

#[test]
fn a_peer_that_comes_and_goes_does_not_keep_what_another_one_lost_from_being_repaired() {
    let (lenders, tier) = ready(4, 100, 2);
    (0..40).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let flapping = lenders[1].copies();
    let lost: Vec<_> = lenders[0].copies().into_iter().filter(|copy| !flapping.contains(copy)).collect();
    assert!(!lost.is_empty());
    lenders[0].misbehave(Mischief::Away);
    let is_over = Arc::new(AtomicBool::new(false));
    let flaps = {
        let (lender, is_over) = (Arc::clone(&lenders[1]), Arc::clone(&is_over));
        std::thread::spawn(move || {
            while !is_over.load(SeqCst) {
                for mischief in [Mischief::Away, Mischief::None] {
                    lender.misbehave(mischief);
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        })
    };
    let copies = |of| lenders.iter().filter(|lender| lender.copies().contains(of)).count();
    // The copy of the one that is away is still there, beside two others.
    wait_until("all that it had has two copies elsewhere", || lost.iter().all(|copy| copies(copy) == 3));
    is_over.store(true, SeqCst);
    flaps.join().unwrap();
    lenders[0].misbehave(Mischief::None);
    wait_for_repair(&tier);
    all_read(&tier, 40);
}

#[test]
fn whoever_is_not_named_any_more_gets_nothing_new_and_is_read_as_long_as_it_answers() {
    let (lenders, tier) = ready(3, 100, 1);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let there = lenders[0].copies();
    assert!(!there.is_empty());
    tier.set_members(&members(&lenders[1..]));
    tier.set_members(&members(&lenders[1..]));
    (20..40).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    assert_eq!(lenders[0].copies(), there);
    all_read(&tier, 40);
    let trouble = peer(&tier, 0).unwrap().trouble;
    assert!(trouble.as_ref().is_some_and(|trouble| trouble.contains("no more")), "{trouble:?}");
    assert_eq!(tier.state(), TierState::Ready, "two others are there");
    // What it has is forgotten there as anywhere else.
    tier.discard(there[0].place);
    wait_until("it is told", || lenders[0].copies().len() < there.len());
    // Named again, it is one like the others.
    tier.set_members(&members(&lenders));
    assert_eq!(peer(&tier, 0).unwrap().trouble, None);
    lenders[1..].iter().for_each(|lender| lender.set_room(0));
    wait_until("the others are full", || write(&tier, copy(40, 1), 40).is_ok());
    tier.set_members(&members(&lenders[1..]));
    lenders[0].misbehave(Mischief::Away);
    wait_until("nobody looks for it", || tier.status().peers.len() == 2);
    assert!(matches!(reads(&tier, there[1], there[1].place.into()), Err(TierError::Unavailable(_))));
    lenders[0].misbehave(Mischief::None);
    tier.set_members(&members(&lenders));
    wait_until("it is there again", || is_connected(&tier, 0));
    assert_eq!(reads(&tier, there[1], there[1].place.into()), Ok(true));
}

#[test]
fn a_later_epoch_that_somebody_else_saw_ends_the_connection_to_the_earlier_one() {
    let (lenders, tier) = ready(2, 100, 1);
    (0..8).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    tier.fence(&[(lenders[0].member().name.node_id(), Epoch(2))]);
    assert!(!is_connected(&tier, 0));
    let before = lenders[0].copies();
    (8..16).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    assert_eq!(lenders[0].copies(), before, "nothing goes to a node of an epoch that is over");
    wait_until("it is known why", || {
        let troubles = tier.status().peers.into_iter().filter_map(|peer| peer.trouble);
        troubles.collect::<String>().contains("epoch")
    });
    lenders[0].kill();
    lenders[0].misbehave(Mischief::None);
    wait_until("it is back, in that epoch", || is_connected(&tier, 0));
}

#[test]
fn where_more_members_may_come_what_nobody_has_said_to_have_is_waited_for() {
    let (lenders, tier) = ready(2, 100, 1);
    (0..10).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    drop(tier);
    let later = lenders[1].copies();
    assert!(!later.is_empty());
    let options = PeerTierOptions { more_members_may_come: true, ..options(1) };
    let needed = (0..10).map(|place| copy(place, 1));
    let tier = open_again(&lenders[..1], options.clone(), needed.clone());
    wait_until("it has said", || tier.status().peers[0].copies == lenders[0].copies().len() as u64);
    assert!(matches!(reads(&tier, later[0], later[0].place.into()), Err(TierError::Unavailable(_))));
    assert_eq!((tier.status().is_complete, tier.status().lost_extents), (false, 0));
    tier.set_members(&members(&lenders));
    all_read(&tier, 10);
    assert!(tier.status().is_complete, "all is found");
    // What the store does not have is not waited for.
    assert_eq!(reads(&tier, copy(99, 1), 0), Err(TierError::Damaged));
    // Nobody is there at all yet.
    drop(tier);
    let tier = open_again(&[], options, needed);
    assert!(matches!(reads(&tier, copy(1, 1), 1), Err(TierError::Unavailable(_))));
}

#[test]
fn damage_at_one_peer_is_no_loss_while_the_other_may_be_back() {
    let (lenders, tier) = ready(2, 100, 2);
    (0..2).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[1].misbehave(Mischief::Away);
    lenders[0].damage();
    let is_back = std::thread::scope(|scope| {
        let reading = scope.spawn(|| reads(&tier, copy(0, 1), 0));
        std::thread::sleep(Duration::from_millis(300));
        lenders[1].misbehave(Mischief::None);
        reading.join().unwrap()
    });
    assert_eq!(is_back, Ok(true), "from the one that was away");
    wait_for_repair(&tier);
    // Nobody has read the other one so far. A small block of it may be whole.
    lenders[1].misbehave(Mischief::Away);
    let answer = (0..50).map(|_| reads(&tier, copy(1, 1), 1)).find(|answer| *answer != Ok(true));
    assert!(matches!(answer, Some(Err(TierError::Unavailable(_)))), "{answer:?}");
}

/// Extents of one small block each.
fn write_small(tier: &PeerTier, places: std::ops::Range<u32>) {
    let (bytes, blocks) = support::extent(1);
    let needed = needed(&blocks[..1]);
    let writes: Vec<TierWrite<'_>> =
        places.map(|place| TierWrite { copy: copy(place, 1), extent: &bytes, needed: &needed }).collect();
    writes.chunks(16).for_each(|writes| tier.write(writes).unwrap());
}

/// As `tmem cluster forget` has a lender do while a borrower is cut off: it is in the epoch that it was in, and has nothing.
#[test]
fn a_lender_that_has_forgotten_all_of_it_gets_it_again() {
    let (lenders, tier) = ready(2, 100, 2);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[0].misbehave(Mischief::Away);
    wait_until("it is away", || !is_connected(&tier, 0));
    (0..20).for_each(|place| lenders[0].lose(place));
    lenders[0].misbehave(Mischief::None);
    wait_until("it has all again", || lenders[0].copies().len() == 20);
    assert_eq!(wait_for_repair(&tier).repaired_copies, 20);
    lenders[1].misbehave(Mischief::Away);
    wait_until("the other one is away", || !is_connected(&tier, 1));
    all_read(&tier, 20);
}

#[test]
fn more_than_is_looked_at_in_one_go_is_repaired_all_the_same() {
    const EXTENTS: u32 = 2500;
    let lenders: Vec<Arc<FakeLender>> = lenders(3, u64::from(EXTENTS) * 2);
    let tier = open(&lenders[..2], options(2));
    wait_until("both are heard", || tier.state() == TierState::Ready);
    write_small(&tier, 0..EXTENTS);
    lenders[0].kill();
    lenders[0].set_room(0);
    lenders[0].misbehave(Mischief::None);
    wait_until("all of it wants a copy", || tier.status().wanting_extents == u64::from(EXTENTS));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(tier.status().repaired_copies, 0, "there is no room for any");
    tier.set_members(&members(&lenders));
    let status = wait_for_repair(&tier);
    assert_eq!((status.repaired_copies, status.lost_extents), (u64::from(EXTENTS), 0));
    assert!(lenders[2].held_bytes() < u64::from(EXTENTS) * EXTENT);
}
