//! Pages that lenders hold and cannot read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::collections::BTreeSet;

use support::{
    assert_read_together, copy, extent,
    fake_lender::{FakeLender, Mischief},
    needed, open_again, options, reads, ready_with, wait_for_repair, wait_until, write,
};
use tmem_peers::{PeerTier, PeerTierOptions};
use tmem_store::{Tier, TierCopy, TierError};

const EXTENTS: u32 = 8;

fn encrypting(copies: usize, encrypt: bool) -> PeerTierOptions {
    PeerTierOptions { encrypt, ..options(copies) }
}

/// Eight bytes of all that a lender has, wherever they begin.
fn windows(lender: &FakeLender) -> BTreeSet<[u8; 8]> {
    let contents = lender.contents();
    contents
        .iter()
        .flat_map(|bytes| bytes.windows(8))
        .filter_map(|part| part.first_chunk().copied())
        .collect()
}

/// How much of the extents is there as it is, of every 64 bytes of their blocks eight.
fn seen(lender: &FakeLender) -> usize {
    let windows = windows(lender);
    let blocks = |place: u32| {
        let (bytes, blocks) = extent(place.into());
        blocks.into_iter().flat_map(move |(start, len)| {
            let parts: Vec<[u8; 8]> =
                bytes[start..start + len].chunks(64).filter_map(|part| part.first_chunk().copied()).collect();
            parts
        })
    };
    (0..EXTENTS).flat_map(blocks).filter(|part| windows.contains(part)).count()
}

fn all_read(tier: &PeerTier) {
    for place in 0..EXTENTS {
        assert_read_together(tier, copy(place, 1), place.into());
        let (bytes, blocks) = extent(place.into());
        for (start, len) in &blocks {
            let mut into = vec![0; *len];
            assert_eq!(tier.read(copy(place, 1), *start, &mut into), Ok(()));
            assert!(into == bytes[*start..start + len], "place {place}, byte {start}");
        }
    }
}

fn copies() -> impl Iterator<Item = TierCopy> {
    (0..EXTENTS).map(|place| copy(place, 1))
}

#[test]
fn a_lender_has_nothing_that_it_could_read() {
    for encrypt in [true, false] {
        let (lenders, tier) = ready_with(2, 100, encrypting(2, encrypt));
        copies().for_each(|copy| write(&tier, copy, copy.place.into()).unwrap());
        all_read(&tier);
        let blocks: usize = (0..EXTENTS).map(|place| needed(&extent(place.into()).1).len()).sum();
        for lender in &lenders {
            let seen = seen(lender);
            assert!(if encrypt { seen == 0 } else { seen > blocks }, "{seen} of some {blocks} blocks");
        }
    }
}

#[test]
fn repair_copies_what_is_encrypted_as_it_is_and_sees_what_is_damaged() {
    let (lenders, tier) = ready_with(3, 100, encrypting(2, true));
    copies().for_each(|copy| write(&tier, copy, copy.place.into()).unwrap());
    let before = lenders.iter().map(|lender| lender.copies().len()).sum::<usize>();
    assert_eq!(before, 2 * EXTENTS as usize);
    // Of the one that is left of each of these, a bit is wrong.
    lenders[1].damage();
    let third = lenders[2].copies();
    lenders[0].kill();
    wait_until("the first is given up", || {
        lenders[2].copies().len() + lenders[1].copies().len() == 2 * EXTENTS as usize
    });
    wait_for_repair(&tier);
    for place in 0..EXTENTS {
        let both = [&lenders[1], &lenders[2]].map(|lender| lender.copies().contains(&copy(place, 1)));
        assert_eq!(both, [true; 2]);
        let read = reads(&tier, copy(place, 1), place.into());
        let is_whole = third.contains(&copy(place, 1));
        // The first may be back with it.
        let expected = if is_whole { Ok(true) } else { Err(()) };
        assert_eq!(read.map_err(|_| ()), expected, "{place}");
    }
    assert_eq!(lenders.iter().skip(1).map(|lender| seen(lender)).sum::<usize>(), 0);
}

#[test]
fn what_went_out_before_it_was_told_otherwise_is_read() {
    for first in [true, false] {
        let (lenders, tier) = ready_with(2, 100, encrypting(2, first));
        copies().for_each(|copy| write(&tier, copy, copy.place.into()).unwrap());
        drop(tier);
        let tier = open_again(&lenders, encrypting(2, !first), copies());
        wait_until("all are heard", || tier.status().is_complete);
        all_read(&tier);
        // And a wrong bit is found as ever.
        lenders.iter().for_each(|lender| lender.misbehave(Mischief::WrongBits));
        assert_eq!(reads(&tier, copy(0, 1), 0), Err(TierError::Damaged));
    }
}
