//! The tier over peers that behave, and over some that don't.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use support::{
    EXTENT, copy, extent, fake_lender::Mischief, lenders, members, needed, open, open_again, options, reads,
    ready, tier_over, wait_for_repair, wait_until, write,
};
use tmem_peers::PeerState;
use tmem_store::{Tier, TierError, TierKey, TierRun, TierState, TierWrite};

#[test]
fn what_is_written_is_on_two_nodes_and_read_until_it_is_discarded() {
    let (lenders, tier) = ready(3, 100, 2);
    for batch in 0..4 {
        let extents: Vec<_> = (0..16).map(extent).collect();
        let needed: Vec<_> = extents.iter().map(|(_, blocks)| needed(blocks)).collect();
        let writes: Vec<_> = (extents.iter().zip(&needed).zip(batch * 16..))
            .map(|(((extent, _), needed), place)| TierWrite {
                copy: copy(place, u64::from(place) + 1),
                extent,
                needed,
            })
            .collect();
        tier.write(&writes).unwrap();
    }
    let held: usize = lenders.iter().map(|lender| lender.copies().len()).sum();
    assert_eq!(held, 2 * 64);
    assert!(lenders.iter().all(|lender| lender.copies().len() > 20), "two draws are nearly even");
    for place in 0..64 {
        assert_eq!(reads(&tier, copy(place, u64::from(place) + 1), u64::from(place % 16)), Ok(true));
    }
    assert_eq!(reads(&tier, copy(3, 77), 3), Err(TierError::Damaged), "another writing was never there");
    let status = tier.status();
    assert_eq!((status.extents, status.wanting_extents, status.lost_extents), (64, 0, 0));
    assert_eq!(status.peers.iter().map(|peer| peer.copies).sum::<u64>(), 128);
    assert!(status.peers.iter().all(|peer| peer.state == PeerState::Connected && peer.errors == 0));
    assert!(status.peers.iter().any(|peer| peer.round_trip_p99_us >= peer.round_trip_p50_us.max(1)));
    (0..64).for_each(|place| tier.discard(place));
    assert_eq!(reads(&tier, copy(3, 4), 3), Err(TierError::Damaged));
    wait_until("lenders forget", || lenders.iter().all(|lender| lender.copies().is_empty()));
    wait_until("they offer it again", || tier.limit_bytes() == 150 * EXTENT);
}

#[test]
fn only_what_is_needed_travels_and_what_dies_is_forgotten() {
    let (lenders, tier) = ready(2, 100, 2);
    let (bytes, blocks) = extent(1);
    let kept: Vec<_> = blocks.iter().copied().step_by(2).collect();
    let kept_bytes: usize = kept.iter().map(|(_, len)| len).sum();
    tier.write(&[TierWrite { copy: copy(0, 1), extent: &bytes, needed: &needed(&kept) }]).unwrap();
    assert!(lenders.iter().all(|lender| lender.held_bytes() == kept_bytes as u64));
    let read = |(start, len): (usize, usize)| {
        let mut into = vec![0; len];
        tier.read(copy(0, 1), start, &mut into).map(|()| into == bytes[start..start + len])
    };
    let dead: Vec<(_, TierRun)> = needed(&kept[1..]).into_iter().map(|run| (copy(0, 1), run)).collect();
    let (first, last) = dead.split_at(dead.len() / 2);
    tier.release(last);
    tier.release(first);
    tier.release(&[(copy(0, 2), needed(&kept)[0]), (copy(1, 1), needed(&kept)[0])]);
    wait_until("they have forgotten", || {
        lenders.iter().all(|lender| lender.held_bytes() == kept[0].1 as u64)
    });
    assert_eq!(read(kept[0]), Ok(true));
    assert_eq!(read(kept[1]), Err(TierError::Damaged));
    assert_eq!(read(kept[0]), Ok(true), "a block that is not there does not make its copy one that is lost");
    assert_eq!(tier.status().wanting_extents, 0);
    lenders.iter().for_each(|lender| lender.lose(0));
    assert_eq!(read(kept[0]), Err(TierError::Damaged));
    assert_eq!(tier.status().lost_extents, 1);
}

/// What dies while a lender is away, or just as its connection breaks, is told when it is back.
#[test]
fn r7_what_dies_while_a_lender_is_away_is_forgotten_when_it_is_back() {
    let (lenders, tier) = ready(1, 100, 1);
    write(&tier, copy(3, 1), 3).unwrap();
    let (_, blocks) = extent(3);
    let blocks = needed(&blocks);
    let all: u64 = blocks.iter().map(|run| u64::from(run.bytes)).sum();
    assert_eq!(lenders[0].held_bytes(), all);
    lenders[0].misbehave(Mischief::Away);
    wait_until("it is away", || tier.status().peers[0].state == PeerState::Away);
    tier.release(&[(copy(3, 1), blocks[1])]);
    lenders[0].misbehave(Mischief::None);
    wait_until("it was told", || lenders[0].held_bytes() == all - u64::from(blocks[1].bytes));
    // It takes what it is told and says nothing, until its connection is given up.
    lenders[0].misbehave(Mischief::OnlyPings);
    tier.release(&[(copy(3, 1), blocks[2])]);
    std::thread::sleep(Duration::from_millis(500));
    lenders[0].misbehave(Mischief::Away);
    wait_until("it is away again", || tier.status().peers[0].state == PeerState::Away);
    lenders[0].misbehave(Mischief::None);
    let left = all - u64::from(blocks[1].bytes) - u64::from(blocks[2].bytes);
    wait_until("it was told again", || lenders[0].held_bytes() == left);
}

#[test]
fn a_killed_peers_copies_are_read_elsewhere_at_once_and_made_anew_and_a_stale_peer_is_never_read() {
    let (lenders, tier) = ready(3, 100, 2);
    (0..30).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[0].misbehave(Mischief::Away);
    for place in 0..30 {
        assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true));
    }
    wait_until("repair", || lenders[1].copies().len() == 30 && lenders[2].copies().len() == 30);
    let status = wait_for_repair(&tier);
    assert!(status.repaired_copies > 0 && status.repaired_bytes > 0, "{status:?}");
    assert_eq!(tier.state(), TierState::Ready);
    // It has everything that it had, under a later epoch: nobody asks it for that.
    lenders[0].come_back_stale();
    wait_until("it is back", || tier.status().peers.iter().all(|peer| peer.state == PeerState::Connected));
    let gets = lenders[0].gets.load(SeqCst);
    for place in 0..30 {
        assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true));
    }
    assert_eq!(lenders[0].gets.load(SeqCst), gets);
}

#[test]
fn a_link_that_is_cut_for_a_moment_costs_nothing() {
    let (lenders, tier) = ready(2, 100, 2);
    (0..10).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[0].misbehave(Mischief::Away);
    wait_until("it is away", || tier.state() == TierState::ReadOnly);
    assert!(tier.trouble().unwrap().contains("lender-0"), "{:?}", tier.trouble());
    assert!(write(&tier, copy(99, 1), 1).is_err(), "two copies are promised, and one node is there");
    lenders[0].misbehave(Mischief::None);
    wait_until("it is back", || tier.state() == TierState::Ready);
    assert_eq!(tier.status().wanting_extents, 0);
    write(&tier, copy(99, 2), 1).unwrap();
    assert_eq!(reads(&tier, copy(99, 2), 1), Ok(true));
    wait_until("what was given up is forgotten", || lenders.iter().all(|lender| lender.copies().len() == 11));
}

#[test]
fn full_peers_are_passed_over_and_what_cannot_be_placed_is_kept_nowhere() {
    let (lenders, tier) = ready(3, 4, 2);
    lenders[0].set_room(0);
    for place in 0..4 {
        let written = write(&tier, copy(place, 1), place.into());
        assert_eq!(written, Ok(()), "{place}: {:#?}", tier.status());
    }
    assert_eq!((lenders[0].copies().len(), lenders[1].copies().len(), lenders[2].copies().len()), (0, 4, 4));
    assert!(matches!(write(&tier, copy(5, 1), 5), Err(TierError::Unavailable(_))));
    wait_until("it is full", || tier.state() == TierState::Full);
    assert_eq!(reads(&tier, copy(5, 1), 5), Err(TierError::Damaged));
    lenders[0].set_room(100 * EXTENT);
    wait_until("there is an offer", || tier.status().peers.iter().any(|peer| peer.free_bytes > 50 * EXTENT));
    lenders[1].set_room(100 * EXTENT);
    wait_until("there is room", || tier.state() == TierState::Ready);
    write(&tier, copy(5, 2), 5).unwrap();
    assert_eq!(reads(&tier, copy(5, 2), 5), Ok(true));
}

#[test]
fn r4_wrong_bytes_of_one_peer_are_never_given_out_and_its_copy_is_replaced() {
    for mischief in [
        Mischief::WrongBits,
        Mischief::TooShort,
        Mischief::TooFew,
        Mischief::CutsOff,
        Mischief::DamagedFrames,
        Mischief::Confused,
    ] {
        let (lenders, tier) = ready(2, 100, 2);
        (0..8).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
        lenders[1].misbehave(mischief);
        for place in (0..8).chain(0..8) {
            assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true), "{mischief:?}");
        }
        lenders[1].misbehave(Mischief::None);
        let status = wait_for_repair(&tier);
        assert_eq!((status.extents, status.lost_extents), (8, 0), "{mischief:?}");
        lenders[0].misbehave(Mischief::Away);
        wait_until("the other one is away", || tier.state() == TierState::ReadOnly);
        for place in 0..8 {
            assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true), "{mischief:?}");
        }
    }
}

#[test]
fn r4_damage_at_both_peers_is_an_error_for_that_block_alone() {
    let (lenders, tier) = ready(2, 100, 2);
    (0..3).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders.iter().for_each(|lender| lender.damage());
    assert_eq!(reads(&tier, copy(0, 1), 0), Err(TierError::Damaged));
    lenders.iter().for_each(|lender| lender.damage());
    assert_eq!(
        reads(&tier, copy(0, 1), 0),
        Ok(true),
        "the copies were kept, because other blocks may be whole"
    );
}

#[test]
fn a_copy_that_a_peer_lost_is_read_from_the_other_and_made_anew() {
    let (lenders, tier) = ready(2, 100, 2);
    (0..4).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[1].lose(2);
    for _ in 0..20 {
        assert_eq!(reads(&tier, copy(2, 1), 2), Ok(true));
        if lenders[1].copies().len() == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // It may never have been asked, being the slower one.
    lenders[0].misbehave(Mischief::Slow(300));
    assert_eq!(reads(&tier, copy(2, 1), 2), Ok(true));
    wait_until("it is made anew", || lenders[1].copies().len() == 4);
    assert_eq!(tier.status().lost_extents, 0);
}

#[test]
fn silent_and_slow_peers_hold_up_neither_reads_nor_writes() {
    for mischief in [Mischief::Mute, Mischief::Stuck, Mischief::OnlyPings, Mischief::Slow(5000)] {
        let (lenders, tier) = ready(3, 100, 2);
        (0..8).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
        lenders[2].misbehave(mischief);
        for place in 0..8 {
            assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true), "{mischief:?}");
        }
        for place in 8..16 {
            write(&tier, copy(place, 1), place.into()).unwrap();
            assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true), "{mischief:?}");
        }
        assert_eq!(tier.status().lost_extents, 0);
        lenders[2].misbehave(Mischief::None);
        wait_until("it is back", || {
            tier.status().peers.iter().all(|peer| peer.state == PeerState::Connected)
        });
        wait_for_repair(&tier);
    }
}

#[test]
fn recalled_copies_are_elsewhere_before_they_are_dropped() {
    let (lenders, tier) = ready(3, 100, 2);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let recalled = lenders[0].copies();
    assert!(!recalled.is_empty());
    lenders[0].set_room(0);
    lenders[0].recall(&recalled, 3000);
    wait_until("it has nothing any more", || lenders[0].copies().is_empty());
    let status = wait_for_repair(&tier);
    assert_eq!((status.lost_extents, status.repaired_copies), (0, recalled.len() as u64));
    for place in 0..20 {
        assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true));
    }
}

#[test]
fn the_next_worker_asks_peers_what_they_have_before_it_says_that_something_is_lost() {
    let (lenders, tier) = ready(3, 10_000, 2);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    drop(tier);
    assert_eq!(lenders.iter().map(|lender| lender.copies().len()).sum::<usize>(), 40, "they keep it");
    // A copy that nobody knows any more, from a place that is in use.
    lenders[0].misbehave(Mischief::Away);
    let lost = copy(500, 9);
    let needed = (0..20).filter(|place| *place != 8).map(|place| copy(place, 1)).chain([lost]);
    let tier = open_again(&lenders, options(2), needed);
    assert!(matches!(reads(&tier, lost, 0), Err(TierError::Unavailable(_))), "one of three has not said yet");
    for place in (0..20).filter(|place| *place != 8) {
        assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true));
    }
    tier.discard(7);
    lenders[0].misbehave(Mischief::None);
    wait_until("all have said", || tier.status().is_complete);
    assert_eq!(reads(&tier, lost, 0), Err(TierError::Damaged));
    let status = wait_for_repair(&tier);
    assert_eq!((status.extents, status.lost_extents), (18, 1), "{lost:?} alone");
    wait_until("what is not needed is forgotten", || {
        lenders.iter().all(|lender| !lender.copies().iter().any(|copy| [7, 8].contains(&copy.place)))
    });
}

#[test]
fn what_was_asked_back_before_it_was_listed_is_taken_elsewhere_all_the_same() {
    let (lenders, tier) = ready(3, 100, 2);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    drop(tier);
    let recalled = lenders[0].copies();
    assert!(!recalled.is_empty());
    // One of them is dropped already, and it does not know whether that was heard.
    let dropped = copy(900, 1);
    lenders[0].recall_at_hello(&[&recalled[..], &[dropped]].concat(), 20_000);
    let tier = open_again(&lenders, options(2), (0..20).map(|place| copy(place, 1)));
    lenders[0].set_room(0);
    wait_until("it has nothing any more", || lenders[0].copies().is_empty());
    let status = wait_for_repair(&tier);
    assert_eq!((status.lost_extents, status.repaired_copies), (0, recalled.len() as u64));
    lenders[0].misbehave(Mischief::Away);
    for place in 0..20 {
        assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true));
    }
}

#[test]
fn peers_list_more_copies_than_one_answer_holds() {
    let lenders = lenders(1, 10_000);
    let tier = tier_over(&lenders, 1);
    wait_until("it is heard", || tier.state() == TierState::Ready);
    let (bytes, blocks) = extent(1);
    let run = tmem_cluster::wire::Run { start: 0, units: (blocks[0].1 / 8) as u16 };
    for place in 0..10_000 {
        lenders[0].plant(copy(place * 3, 5), vec![(run, bytes[..blocks[0].1].to_vec())]);
    }
    drop(tier);
    let tier = open_again(&lenders, options(1), (0..10_000).map(|place| copy(place * 3, 5)));
    wait_until("all are known", || tier.status().extents == 10_000);
    let mut into = vec![0; blocks[0].1];
    tier.read(copy(29_997, 5), 0, &mut into).unwrap();
    assert_eq!(into, bytes[..blocks[0].1]);
}

#[test]
fn with_one_copy_a_peer_that_is_away_is_an_error_for_now_and_one_that_was_killed_for_good() {
    let (lenders, tier) = ready(2, 100, 1);
    (0..8).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let on_first = lenders[0].copies();
    assert!(!on_first.is_empty() && on_first.len() < 8);
    lenders[0].misbehave(Mischief::Away);
    let is_there = |place: u32| !on_first.contains(&copy(place, 1));
    assert!(matches!(reads(&tier, on_first[0], on_first[0].place.into()), Err(TierError::Unavailable(_))));
    lenders[0].misbehave(Mischief::None);
    wait_until("it is back", || reads(&tier, on_first[0], on_first[0].place.into()) == Ok(true));
    lenders[0].kill();
    lenders[0].misbehave(Mischief::None);
    wait_until("it is known to be lost", || tier.status().lost_extents == on_first.len() as u64);
    for place in 0..8 {
        let expected = if is_there(place) { Ok(true) } else { Err(TierError::Damaged) };
        assert_eq!(reads(&tier, copy(place, 1), place.into()), expected);
    }
    assert!(tier.trouble().unwrap().contains("lost"));
}

#[test]
fn an_orderly_end_leaves_nothing_at_peers_that_can_be_reached() {
    let (lenders, tier) = ready(3, 100, 2);
    (0..20).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[2].misbehave(Mischief::Away);
    wait_until("it is away", || tier.status().peers.iter().any(|peer| peer.state == PeerState::Away));
    assert!(tier.clear(Duration::from_secs(20)));
    assert!(lenders[..2].iter().all(|lender| lender.copies().is_empty()));
}

#[test]
fn a_node_that_is_known_to_be_in_a_later_epoch_is_not_read_though_nobody_reached_it() {
    let (lenders, tier) = ready(2, 100, 1);
    (0..8).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let gone = lenders[0].copies();
    tier.fence(&[(lenders[0].member().name.node_id(), tmem_cluster::Epoch(2))]);
    for place in 0..8 {
        let expected = if gone.contains(&copy(place, 1)) { Err(TierError::Damaged) } else { Ok(true) };
        assert_eq!(reads(&tier, copy(place, 1), place.into()), expected);
    }
}

#[test]
fn a_store_with_another_key_gets_nothing_of_the_one_before() {
    let (lenders, tier) = ready(2, 100, 2);
    write(&tier, copy(0, 1), 1).unwrap();
    drop(tier);
    let tier = tmem_peers::PeerTier::new(options(2)).unwrap();
    tier.set_members(&members(&lenders));
    tier.use_key(&TierKey([8; 32]));
    wait_until("all have said", || tier.status().is_complete);
    assert_eq!(reads(&tier, copy(0, 1), 1), Err(TierError::Damaged));
    assert!(lenders.iter().all(|lender| lender.copies().is_empty()));
}

#[test]
fn repair_keeps_to_its_limit_and_goes_on() {
    let lenders = lenders(3, 100);
    let tier = open(&lenders, tmem_peers::PeerTierOptions { repair_bytes_per_second: 1, ..options(2) });
    wait_until("all are heard", || tier.status().peers.iter().all(|peer| peer.free_bytes > 0));
    (0..9).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[0].misbehave(Mischief::Away);
    wait_until("the first is made", || tier.status().repaired_copies == 1);
    assert_eq!(tier.status().repaired_copies, 1, "the next one would be due in a day");
    tier.limit_repair(0);
    let status = wait_for_repair(&tier);
    assert!(status.repaired_copies > 1 && status.lost_extents == 0, "{status:?}");
}
