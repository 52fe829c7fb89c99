//! Many blocks under way at once: by one call, and by many threads on the same connections.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{thread, time::Duration};

use support::{copy, extent, fake_lender::Mischief, reads, ready, wait_until, write};
use tmem_peers::PeerTier;
use tmem_store::{Tier, TierCopy, TierError, TierRead};

const EXTENTS: u32 = 12;

/// Reads some blocks of each extent with one call: for each whether it is right.
fn read_all(tier: &PeerTier) -> Vec<(TierCopy, Result<bool, TierError>)> {
    let wanted: Vec<(TierCopy, usize, Vec<u8>)> = (0..EXTENTS)
        .flat_map(|place| {
            let (bytes, blocks) = extent(place.into());
            let blocks = blocks.into_iter().step_by(3);
            blocks.map(move |(start, len)| (copy(place, 1), start, bytes[start..start + len].to_vec()))
        })
        .collect();
    let mut buffers: Vec<Vec<u8>> = wanted.iter().map(|(_, _, bytes)| vec![0; bytes.len()]).collect();
    let mut reads: Vec<TierRead<'_>> = wanted
        .iter()
        .zip(&mut buffers)
        .map(|((copy, start, _), into)| TierRead::new(*copy, *start, into))
        .collect();
    tier.read_many(&mut reads);
    let found = reads.into_iter().zip(&wanted);
    found.map(|(read, (copy, _, bytes))| (*copy, read.result.map(|()| read.into == &bytes[..]))).collect()
}

#[test]
fn all_of_them_come_back_and_what_is_not_there_is_an_error_for_itself_alone() {
    let (_lenders, tier) = ready(3, 100, 2);
    (0..EXTENTS).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    let read = read_all(&tier);
    assert!(read.len() > 64 && read.iter().all(|(_, is_right)| *is_right == Ok(true)));
    tier.discard(5);
    for (copy, is_right) in read_all(&tier) {
        assert_eq!(is_right, if copy.place == 5 { Err(TierError::Damaged) } else { Ok(true) });
    }
}

#[test]
fn r4_what_one_peer_has_lost_spoilt_or_keeps_to_itself_comes_from_the_other() {
    use Mischief::*;
    for mischief in [WrongBits, TooShort, TooFew, CutsOff, Confused, Away] {
        let (lenders, tier) = ready(2, 100, 2);
        (0..EXTENTS).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
        lenders[0].lose(3);
        lenders[1].misbehave(mischief);
        let read = read_all(&tier);
        let others = read.iter().filter(|(copy, _)| copy.place != 3);
        assert!(others.clone().all(|(_, is_right)| *is_right == Ok(true)), "{mischief:?}");
        assert!(read.iter().all(|(_, is_right)| *is_right != Ok(false)), "{mischief:?}");
    }
}

#[test]
fn peers_that_are_away_are_waited_for_together() {
    let (lenders, tier) = ready(1, 100, 1);
    (0..EXTENTS).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    lenders[0].misbehave(Mischief::Away);
    wait_until("it is away", || tier.status().peers.iter().all(|peer| peer.trouble.is_some()));
    let read = read_all(&tier);
    assert!(read.iter().all(|(_, is_right)| matches!(is_right, Err(TierError::Unavailable(_)))));
}

#[test]
fn many_threads_share_a_connection_and_each_gets_what_it_asked_for() {
    let (_lenders, tier) = ready(1, 100, 1);
    (0..EXTENTS).for_each(|place| write(&tier, copy(place, 1), place.into()).unwrap());
    thread::scope(|scope| {
        for number in 0..24 {
            let tier = &tier;
            scope.spawn(move || {
                for round in 0..100 {
                    let place = (number + round) % EXTENTS;
                    assert_eq!(reads(tier, copy(place, 1), place.into()), Ok(true));
                    // Some are not back at once, and some ask for many.
                    if number % 8 == 0 && round % 10 == 0 {
                        thread::sleep(Duration::from_millis(1));
                        assert!(read_all(tier).iter().all(|(_, is_right)| *is_right == Ok(true)));
                    }
                }
            });
        }
    });
}
