//! A copy at a peer and one on a disk: whichever fails, the other one is read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use support::{
    EXTENT, assert_read_together, backed_with, copy,
    disk::Disk,
    extent,
    fake_lender::{FakeLender, Mischief},
    needed, open_backed, options, reads, wait_for_repair, wait_until, write,
};
use tmem_peers::PeerTier;
use tmem_store::{TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierRun, TierState, whole_blocks_bytes};

const EXTENTS: u32 = 6;

/// A tier on a disk and at peers, which have room for so many extents each.
fn backed(count: usize, room: u64) -> (Vec<Arc<FakeLender>>, Arc<Disk>, PeerTier) {
    let disk = Disk::new(64);
    let (lenders, tier) = backed_with(count, room, options(1), &disk);
    (lenders, disk, tier)
}

fn open(lenders: &[Arc<FakeLender>], disk: &Arc<Disk>, places: std::ops::Range<u32>) -> PeerTier {
    open_backed(lenders, options(1), disk, places.map(|place| copy(place, 1)))
}

fn write_all(tier: &PeerTier) {
    (0..EXTENTS).for_each(|place| write(tier, copy(place, 1), place.into()).unwrap());
}

fn all_are_read(tier: &PeerTier) {
    for place in 0..EXTENTS {
        assert_eq!(reads(tier, copy(place, 1), place.into()), Ok(true), "place {place}");
        assert_read_together(tier, copy(place, 1), place.into());
    }
}

fn copies_at(lenders: &[Arc<FakeLender>]) -> usize {
    lenders.iter().map(|lender| lender.copies().len()).sum()
}

#[test]
fn each_extent_is_at_one_peer_and_on_the_disk_and_read_at_the_peer() {
    let (lenders, disk, tier) = backed(3, 64);
    write_all(&tier);
    assert_eq!(wait_for_repair(&tier).extents, u64::from(EXTENTS));
    assert_eq!(copies_at(&lenders), EXTENTS as usize);
    assert_eq!(disk.counters().written_copies, u64::from(EXTENTS));
    all_are_read(&tier);
    assert_eq!(disk.counters().disk_reads, 0);
    let status = tier.status();
    assert_eq!((status.extents, status.wanting_extents, status.lost_extents), (u64::from(EXTENTS), 0, 0));
    assert_eq!((tier.state(), tier.trouble(), tier.places()), (TierState::Ready, None, disk.places()));
    (0..EXTENTS).for_each(|place| tier.discard(place));
    wait_until("r7 peers have forgotten them", || lenders.iter().all(|lender| lender.is_empty()));
}

#[test]
fn with_no_peer_left_all_is_read_from_the_disk() {
    let (lenders, disk, tier) = backed(2, 64);
    write_all(&tier);
    wait_for_repair(&tier);
    lenders.iter().for_each(|lender| lender.misbehave(Mischief::Away));
    wait_until("both are away", || {
        tier.status().peers.iter().all(|peer| peer.state == tmem_peers::PeerState::Away)
    });
    all_are_read(&tier);
    assert!(disk.counters().disk_reads > 0);
    assert_eq!((tier.status().lost_extents, tier.state()), (0, TierState::Ready));
    assert!(tier.trouble().is_some_and(|trouble| trouble.contains("lender-0")), "{:?}", tier.trouble());
    // What is written now is on the disk alone, until somebody is back.
    write(&tier, copy(EXTENTS, 1), 77).unwrap();
    assert_eq!(reads(&tier, copy(EXTENTS, 1), 77), Ok(true));
    lenders.iter().for_each(|lender| lender.misbehave(Mischief::None));
    assert_eq!(wait_for_repair(&tier).lost_extents, 0);
    disk.refuse_reads(true);
    assert_eq!(reads(&tier, copy(EXTENTS, 1), 77), Ok(true));
    all_are_read(&tier);
}

#[test]
fn what_a_dead_peer_had_comes_from_the_disk_to_another_one() {
    let (lenders, disk, tier) = backed(2, 64);
    write_all(&tier);
    wait_for_repair(&tier);
    // Of the first extent every second block was flushed since, and the store knows.
    let (_, blocks) = extent(0);
    let alive = |number: usize| number.is_multiple_of(2);
    tier.set_filter(move |copy, bytes| {
        let (expected, blocks) = extent(copy.place.into());
        let len = whole_blocks_bytes(bytes).unwrap();
        assert!(bytes[..len] == expected[..len], "{copy:?}");
        let needed = needed(&blocks).into_iter().enumerate();
        needed.filter(|(number, _)| copy.place > 0 || alive(*number)).map(|(_, run)| run).collect()
    });
    let holder = lenders.iter().find(|lender| lender.copies().contains(&copy(0, 1))).unwrap();
    holder.kill();
    wait_until("all are at the other one", || copies_at(&lenders) == EXTENTS as usize);
    assert_eq!(wait_for_repair(&tier).lost_extents, 0);
    disk.refuse_reads(true);
    for (number, (start, len)) in blocks.iter().enumerate() {
        assert_eq!(
            tier.read(copy(0, 1), *start, &mut vec![0; *len]).is_ok(),
            alive(number),
            "block {number}"
        );
    }
    for place in 1..EXTENTS {
        assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true), "place {place}");
    }
    // Of what dies in a copy that was made anew peers hear, too.
    let held = |lenders: &[Arc<FakeLender>]| lenders.iter().map(|lender| lender.held_bytes()).sum::<u64>();
    let before = held(&lenders);
    let (_, blocks) = extent(1);
    let dead: Vec<(TierCopy, TierRun)> =
        needed(&blocks[..4]).into_iter().map(|run| (copy(1, 1), run)).collect();
    let dead_bytes: u64 = dead.iter().map(|(_, run)| u64::from(run.bytes)).sum();
    tier.release(&dead);
    wait_until("they are released", || held(&lenders) == before - dead_bytes);
}

#[test]
fn full_peers_are_no_reason_not_to_write() {
    let (lenders, disk, tier) = backed(2, 0);
    write_all(&tier);
    assert_eq!((copies_at(&lenders), tier.state()), (0, TierState::Ready));
    assert_eq!(tier.status().wanting_extents, u64::from(EXTENTS));
    all_are_read(&tier);
    lenders[1].set_room(64 * EXTENT);
    wait_for_repair(&tier);
    assert_eq!(lenders[1].copies().len(), EXTENTS as usize);
    disk.refuse_reads(true);
    all_are_read(&tier);
}

#[test]
fn what_the_disk_does_not_take_is_kept_nowhere() {
    let (lenders, disk, tier) = backed(2, 64);
    disk.refuse_writes(true);
    let refused = write(&tier, copy(1, 1), 1);
    assert!(
        matches!(&refused, Err(TierError::Unavailable(why)) if why.contains("told to fail")),
        "{refused:?}"
    );
    assert_eq!((tier.state(), tier.status().extents), (TierState::Failing, 0));
    wait_until("peers have forgotten it", || lenders.iter().all(|lender| lender.is_empty()));
    disk.refuse_writes(false);
    write(&tier, copy(1, 2), 1).unwrap();
    assert_eq!(reads(&tier, copy(1, 2), 1), Ok(true));
}

#[test]
fn r4_what_is_damaged_at_the_peer_is_right_on_the_disk_and_made_anew() {
    let (lenders, disk, tier) = backed(1, 64);
    write_all(&tier);
    wait_for_repair(&tier);
    lenders[0].damage();
    all_are_read(&tier);
    assert!(disk.counters().disk_reads > 0);
    wait_for_repair(&tier);
    disk.refuse_reads(true);
    wait_until("it is whole at the peer again", || {
        (0..EXTENTS).all(|place| reads(&tier, copy(place, 1), place.into()) == Ok(true))
    });
}

#[test]
fn r4_what_is_damaged_in_both_is_an_error_and_what_may_come_back_is_not_for_good() {
    let (lenders, disk, tier) = backed(1, 64);
    write_all(&tier);
    wait_for_repair(&tier);
    lenders[0].damage();
    disk.be_damaged(true);
    let (_, blocks) = extent(0);
    let read_all = || {
        blocks
            .iter()
            .map(|(start, len)| tier.read(copy(0, 1), *start, &mut vec![0; *len]))
            .collect::<Vec<_>>()
    };
    assert!(read_all().contains(&Err(TierError::Damaged)));
    disk.refuse_reads(true);
    let read = read_all();
    assert!(read.iter().all(|read| *read != Err(TierError::Damaged)), "{read:?}");
    assert!(read.iter().any(|read| read.is_err()));
}

#[test]
fn a_peer_that_does_not_answer_is_not_waited_for() {
    for mischief in [Mischief::Mute, Mischief::OnlyPings, Mischief::Stuck] {
        let (lenders, _disk, tier) = backed(1, 64);
        write_all(&tier);
        wait_for_repair(&tier);
        lenders[0].misbehave(mischief);
        all_are_read(&tier);
        // Nor when something is written.
        (EXTENTS..4 * EXTENTS).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
        (EXTENTS..4 * EXTENTS)
            .for_each(|place| assert_eq!(reads(&tier, copy(place, 1), place.into()), Ok(true)));
        lenders[0].misbehave(Mischief::None);
        wait_for_repair(&tier);
    }
}

/// Then cleaning leaves it alone, and whoever wants a page of it is told at once.
#[test]
fn what_is_damaged_on_the_disk_and_at_no_peer_is_damaged() {
    let (_lenders, disk, tier) = backed(1, 0);
    write_all(&tier);
    disk.be_damaged(true);
    let (_, blocks) = extent(2);
    assert_eq!(tier.read(copy(2, 1), 0, &mut vec![0; TIER_EXTENT_BYTES]), Err(TierError::Damaged));
    let (start, len) = blocks[1];
    assert_eq!(tier.read(copy(2, 1), start, &mut vec![0; len]), Err(TierError::Damaged));
    disk.refuse_reads(true);
    let refused = tier.read(copy(2, 1), start, &mut vec![0; len]);
    assert!(matches!(refused, Err(TierError::Unavailable(_))), "{refused:?}");
}

/// A disk that fails is not worn out by repair, which goes on when it works again.
#[test]
fn what_repair_cannot_have_it_tries_again_later() {
    let (lenders, disk, tier) = backed(1, 0);
    write_all(&tier);
    disk.refuse_reads(true);
    lenders[0].set_room(64 * EXTENT);
    wait_until("all have been tried", || disk.reads.load(SeqCst) >= u64::from(EXTENTS));
    std::thread::sleep(Duration::from_millis(500));
    assert!(disk.reads.load(SeqCst) <= 2 * u64::from(EXTENTS), "{} reads", disk.reads.load(SeqCst));
    disk.refuse_reads(false);
    wait_for_repair(&tier);
    assert_eq!(lenders[0].copies().len(), EXTENTS as usize);
}

#[test]
fn one_peer_gets_what_two_should_have() {
    let disk = Disk::new(64);
    let (lenders, tier) = backed_with(1, 64, options(2), &disk);
    write_all(&tier);
    wait_until("it has all", || lenders[0].copies().len() == EXTENTS as usize);
    assert_eq!((tier.status().wanting_extents, tier.status().repaired_copies), (u64::from(EXTENTS), 0));
    all_are_read(&tier);
}

/// As cleaning does it: peers have not all of it.
#[test]
fn whole_copies_are_read_from_the_disk() {
    let (_lenders, _disk, tier) = backed(1, 64);
    write_all(&tier);
    let (bytes, blocks) = extent(3);
    tier.release(&[(copy(3, 1), needed(&blocks)[1])]);
    let mut into = vec![0; TIER_EXTENT_BYTES];
    tier.read(copy(3, 1), 0, &mut into).unwrap();
    let len = whole_blocks_bytes(&into).unwrap();
    assert!(len > TIER_EXTENT_BYTES / 2 && into[..len] == bytes[..len]);
    assert!(tier.is_cleaned() && tier.keeps_blocks());
}

#[test]
fn another_process_has_everything_and_peers_get_what_they_have_lost() {
    let (lenders, disk, tier) = backed(2, 64);
    write_all(&tier);
    wait_for_repair(&tier);
    drop(tier);
    lenders[1].kill();
    lenders[1].misbehave(Mischief::None); // it is there again, with nothing
    let left = lenders[0].copies().len();
    let tier = open(&lenders, &disk, 0..EXTENTS);
    all_are_read(&tier);
    assert_eq!(wait_for_repair(&tier).repaired_copies, u64::from(EXTENTS) - left as u64);
    disk.refuse_reads(true);
    all_are_read(&tier);
    // What the store has no more, peers forget.
    disk.refuse_reads(false);
    drop(tier);
    let tier = open(&lenders, &disk, 1..EXTENTS);
    wait_until("what nobody needs is gone", || copies_at(&lenders) == EXTENTS as usize - 1);
    assert_eq!(wait_for_repair(&tier).lost_extents, 0);
}
