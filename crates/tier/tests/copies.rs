//! Copies come back as they were written, from wherever, or are errors.

mod support;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
};

use proptest::prelude::*;
use support::{extent, open, options, read, write_one};
use tmem_store::{
    MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierState, TierWrite,
};
use tmem_tier::{FileTier, MIN_TIER_BYTES};

const SECTOR_BYTES: u64 = 4096;
const COPY_BYTES: u64 = 33 * SECTOR_BYTES;

fn copy_offset(place: u32) -> u64 {
    SECTOR_BYTES + u64::from(place) * COPY_BYTES
}

#[test]
fn what_was_written_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(&options(&directory.path().join("tier"), 16 << 20));
    assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
    assert_eq!(tier.places(), 124);
    let places = [0, 1, 2, 3, 7, 8, 100, 123];
    let copies: Vec<_> =
        places.iter().map(|&place| TierCopy { place, writing: u64::from(place) + 9 }).collect();
    let extents: Vec<_> = copies.iter().map(|copy| extent(copy.writing)).collect();
    let batch: Vec<_> =
        copies.iter().zip(&extents).map(|(copy, extent)| TierWrite::whole(*copy, extent)).rev().collect();
    tier.write(&batch).unwrap();
    for (copy, extent) in copies.iter().zip(&extents) {
        assert_eq!(&read(&tier, *copy, 0, TIER_EXTENT_BYTES).unwrap(), extent, "{copy:?}");
        for start in (0..TIER_EXTENT_BYTES).step_by(999) {
            let len = (start % 4113).min(TIER_EXTENT_BYTES - start);
            let block = read(&tier, *copy, start, len).unwrap();
            assert_eq!(block, extent[start..start + len], "{copy:?} from {start}");
        }
    }
    let never = TierCopy { place: 50, writing: 1 };
    assert_eq!(read(&tier, never, 0, 100), Err(TierError::Damaged), "nothing was ever written there");
    assert_eq!(read(&tier, copies[0], 0, 100).unwrap(), extents[0][..100], "that changes nothing");
}

#[test]
fn what_can_not_be_written_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(&options(&directory.path().join("tier"), MIN_TIER_BYTES));
    assert_eq!(tier.places(), MAX_TIER_BATCH as u32);
    let extent = extent(1);
    let copy = |place| TierCopy { place, writing: u64::from(place) };
    let write = |place| TierWrite::whole(copy(place), &extent);
    let refused = |copies: &[TierWrite<'_>]| matches!(tier.write(copies), Err(TierError::Unavailable(_)));
    assert!(refused(&[TierWrite::whole(copy(0), &extent[..100])]), "too short");
    assert!(refused(&[write(0), write(16)]), "no such place");
    assert!(refused(&[write(3), write(4), write(3)]), "the same place twice");
    let many: Vec<_> = (0..17).map(write).collect();
    assert!(refused(&many), "more than a batch");
    assert_eq!(tier.state(), TierState::Ready);
    assert_eq!(tier.counters().written_copies, 0);
    assert_eq!(read(&tier, copy(0), 0, 10), Err(TierError::Damaged));
    assert!(read(&tier, copy(16), 0, 10).is_err());
    assert!(read(&tier, copy(0), TIER_EXTENT_BYTES - 5, 10).is_err());
    tier.write(&[]).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, u64)>),
    Read(u8, usize, usize),
    Discard(u8),
    Probe,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = 0..40u8;
    let step = prop_oneof![
        4 => prop::collection::vec((place.clone(), any::<u64>()), 1..=MAX_TIER_BATCH).prop_map(Step::Write),
        20 => (place.clone(), 0..TIER_EXTENT_BYTES, 1..20_000usize).prop_map(|(p, s, l)| Step::Read(p, s, l)),
        3 => place.prop_map(Step::Discard),
        2 => Just(Step::Probe),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_traffic_reads_what_a_map_holds(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let options = options(&directory.path().join("tier"), 6 << 20);
        let mut tier = open(&options);
        let mut model: HashMap<u32, (TierCopy, Vec<u8>)> = HashMap::new();
        let mut writing = 0;
        for step in steps {
            match step {
                Step::Write(batch) => {
                    let mut copies = HashMap::new();
                    for (place, seed) in batch {
                        writing += 1;
                        let place = u32::from(place);
                        copies.insert(place, (TierCopy { place, writing }, extent(seed)));
                    }
                    let batch: Vec<_> = copies.values().map(|(copy, bytes)| TierWrite::whole(*copy, bytes)).collect();
                    tier.write(&batch).unwrap();
                    model.extend(copies);
                }
                Step::Read(place, start, len) => {
                    let len = len.min(TIER_EXTENT_BYTES - start);
                    if let Some((copy, bytes)) = model.get(&u32::from(place)) {
                        prop_assert_eq!(&read(&tier, *copy, start, len).unwrap(), &bytes[start..start + len]);
                        let older = TierCopy { writing: copy.writing + 1_000_000, ..*copy };
                        prop_assert_eq!(read(&tier, older, start, len), Err(TierError::Damaged));
                    }
                }
                Step::Discard(place) => {
                    model.remove(&u32::from(place));
                    tier.discard(u32::from(place));
                }
                Step::Probe => tier.probe(),
                Step::Reopen => {
                    drop(tier);
                    tier = open(&options);
                }
            }
        }
        for (copy, bytes) in model.values() {
            prop_assert_eq!(&read(&tier, *copy, 0, TIER_EXTENT_BYTES).unwrap(), bytes);
        }
    }
}

#[test]
fn wrong_bits_of_the_file_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let options = options(&path, MIN_TIER_BYTES);
    let copy = TierCopy { place: 1, writing: 5 };
    let extent = extent(5);
    let tier = open(&options);
    tier.write(&[TierWrite::whole(copy, &extent)]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for step in 0..97 {
        // All sectors, and all kinds of places in them, the tag included.
        let sector = step % 33;
        let byte = (step * 1013) % SECTOR_BYTES;
        let at = copy_offset(1) + sector * SECTOR_BYTES + byte;
        let mut right = [0];
        file.read_exact_at(&mut right, at).unwrap();
        file.write_all_at(&[right[0] ^ 1 << (step % 8)], at).unwrap();
        // Of the same tier, which may have read it before.
        let start = sector as usize * 4080;
        let len = 4080.min(TIER_EXTENT_BYTES - start);
        let fresh = TierCopy { place: 1, writing: 5 };
        tier.discard(1);
        assert_eq!(read(&tier, fresh, start, len), Err(TierError::Damaged), "byte {byte} of sector {sector}");
        file.write_all_at(&right, at).unwrap();
        assert_eq!(read(&tier, fresh, start, len).unwrap(), extent[start..start + len], "it is right again");
    }
}

#[test]
fn what_was_moved_or_put_back_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let tier = open(&options(&path, MIN_TIER_BYTES));
    let old = TierCopy { place: 2, writing: 1 };
    write_one(&tier, old, 1);
    let image = fs::read(&path).unwrap();
    let new = TierCopy { place: 2, writing: 2 };
    let other = TierCopy { place: 3, writing: 3 };
    write_one(&tier, new, 2);
    write_one(&tier, other, 3);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut copies = vec![0; 2 * COPY_BYTES as usize];
    file.read_exact_at(&mut copies, copy_offset(2)).unwrap();
    let fails = |copy, what: &str| {
        tier.discard(copy_place(copy));
        assert_eq!(read(&tier, copy, 0, 5000), Err(TierError::Damaged), "{what}");
    };

    file.write_all_at(&copies[4096..8192], copy_offset(2)).unwrap();
    file.write_all_at(&copies[..4096], copy_offset(2) + 4096).unwrap();
    fails(new, "two sectors changed places");
    file.write_all_at(&copies[COPY_BYTES as usize..], copy_offset(2)).unwrap();
    file.write_all_at(&copies[..COPY_BYTES as usize], copy_offset(3)).unwrap();
    fails(new, "two copies changed places");
    fails(other, "two copies changed places");
    file.write_all_at(&image, 0).unwrap();
    fails(new, "the disk was put back");
    assert_eq!(read(&tier, old, 0, 5000).unwrap(), extent(1)[..5000], "which is what it was");
    file.write_all_at(&copies, copy_offset(2)).unwrap();
    assert_eq!(read(&tier, new, 0, 5000).unwrap(), extent(2)[..5000]);
}

fn copy_place(copy: TierCopy) -> u32 {
    copy.place
}

#[test]
fn only_the_key_opens_a_copy_and_it_does_so_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(&directory.path().join("tier"), MIN_TIER_BYTES);
    let copy = TierCopy { place: 4, writing: 8 };
    let tier = FileTier::new(options.clone()).unwrap();
    let mut block = [0; 10];
    assert!(matches!(tier.read(copy, 0, &mut block), Err(TierError::Unavailable(_))), "no key yet");
    assert!(
        matches!(tier.write(&[TierWrite::whole(copy, &extent(8))]), Err(TierError::Unavailable(_))),
        "no key yet"
    );
    tier.use_key(&TierKey([1; 32]));
    write_one(&tier, copy, 8);
    drop(tier);
    let tier = FileTier::new(options.clone()).unwrap();
    tier.use_key(&TierKey([2; 32]));
    assert_eq!(read(&tier, copy, 0, 10), Err(TierError::Damaged));
    drop(tier);
    let tier = FileTier::new(options).unwrap();
    tier.use_key(&TierKey([1; 32]));
    assert_eq!(read(&tier, copy, 100, 10).unwrap(), extent(8)[100..110]);
}

#[test]
fn nothing_in_the_file_is_readable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let tier = open(&options(&path, MIN_TIER_BYTES));
    let secret = b"the secret of a guest's page...!";
    let extent = secret.repeat(TIER_EXTENT_BYTES / secret.len());
    let copies: Vec<_> =
        (0..4).map(|at| TierWrite::whole(TierCopy { place: at, writing: at.into() }, &extent)).collect();
    tier.write(&copies).unwrap();
    let file = fs::read(&path).unwrap();
    assert!(!file.windows(8).any(|bytes| secret.windows(8).any(|part| part == bytes)));
    // The same contents look different at every place.
    let sectors: Vec<_> = file[SECTOR_BYTES as usize..][..4 * COPY_BYTES as usize].chunks(4096).collect();
    for (at, sector) in sectors.iter().enumerate() {
        assert!(!sectors[..at].contains(sector), "sector {at}");
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_was_cut_loses_what_was_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let tier = open(&options(&path, MIN_TIER_BYTES));
    let copies = [0, 9].map(|place| TierCopy { place, writing: place.into() });
    copies.iter().for_each(|&copy| write_one(&tier, copy, copy.writing));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(copy_offset(9) + 20_000).unwrap();
    assert_eq!(read(&tier, copies[0], 0, 5000).unwrap(), extent(0)[..5000]);
    assert_eq!(read(&tier, copies[1], 0, 4000).unwrap(), extent(9)[..4000]);
    assert_eq!(read(&tier, copies[1], 30_000, 4000), Err(TierError::Damaged));
    let new = TierCopy { place: 9, writing: 99 };
    write_one(&tier, new, 99);
    assert_eq!(read(&tier, new, 30_000, 4000).unwrap(), extent(99)[30_000..34_000]);
}

#[test]
fn neighbours_of_what_is_read_come_without_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(&options(&directory.path().join("tier"), MIN_TIER_BYTES));
    let copy = TierCopy { place: 0, writing: 1 };
    write_one(&tier, copy, 1);
    let contents = extent(1);
    let block = 1600;
    for start in (0..TIER_EXTENT_BYTES - block).step_by(block) {
        assert_eq!(read(&tier, copy, start, block).unwrap(), contents[start..start + block]);
    }
    let counters = tier.counters();
    assert!(counters.disk_reads <= 5, "a first block, then windows: {counters:?}");
    // Blocks of many copies, none of them twice: nothing is read in vain.
    let tier_bytes = counters.disk_read_bytes;
    let others: Vec<_> = (1..16).map(|place| TierCopy { place, writing: 100 + u64::from(place) }).collect();
    others.iter().for_each(|&copy| write_one(&tier, copy, copy.writing));
    for copy in &others {
        read(&tier, *copy, 8000, block).unwrap();
    }
    assert!(tier.counters().disk_read_bytes - tier_bytes <= others.len() as u64 * 2 * SECTOR_BYTES);
}

#[test]
fn nothing_stale_is_served_from_what_was_read_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(&options(&directory.path().join("tier"), MIN_TIER_BYTES));
    for writing in 1..50 {
        let copy = TierCopy { place: 3, writing };
        write_one(&tier, copy, writing);
        for start in [0, 100, 5000, 9000] {
            assert_eq!(read(&tier, copy, start, 1000).unwrap(), extent(writing)[start..start + 1000]);
            let old = TierCopy { writing: writing - 1, ..copy };
            assert_eq!(read(&tier, old, start + 20_000, 1000), Err(TierError::Damaged));
        }
    }
}

#[test]
fn discarded_space_goes_back_to_the_file_system_and_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let tier = open(&options(&path, 8 << 20));
    let held_bytes = || fs::metadata(&path).unwrap().blocks() * 512;
    let copies: Vec<_> = (0..60).map(|place| TierCopy { place, writing: place.into() }).collect();
    copies.iter().for_each(|&copy| write_one(&tier, copy, copy.writing));
    let full_bytes = held_bytes();
    assert!(full_bytes >= 60 * COPY_BYTES);
    // Not a short run, nor what is still needed.
    (10..14).chain(20..50).filter(|place| *place != 40).for_each(|place| tier.discard(place));
    for _ in 0..5 {
        tier.probe();
    }
    let left_bytes = held_bytes();
    assert!(left_bytes <= full_bytes - 28 * COPY_BYTES, "{full_bytes} became {left_bytes}");
    assert!(left_bytes >= full_bytes - 30 * COPY_BYTES, "{full_bytes} became {left_bytes}");
    for copy in copies.iter().filter(|copy| copy.place == 40 || !(10..50).contains(&copy.place)) {
        assert_eq!(read(&tier, *copy, 0, 9000).unwrap(), extent(copy.writing)[..9000]);
    }
    for place in 20..50 {
        tier.discard(place);
        write_one(&tier, TierCopy { place, writing: 1000 + u64::from(place) }, 7);
    }
    tier.probe();
    for place in 20..50 {
        let copy = TierCopy { place, writing: 1000 + u64::from(place) };
        assert_eq!(read(&tier, copy, 0, 9000).unwrap(), extent(7)[..9000]);
    }
}

#[test]
fn a_cleared_tier_takes_no_space_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let options = options(&path, MIN_TIER_BYTES);
    let held_bytes = || fs::metadata(&path).unwrap().blocks() * 512;
    let tier = open(&options);
    (0..16).for_each(|place| write_one(&tier, TierCopy { place, writing: place.into() }, 1));
    assert!(held_bytes() >= 16 * COPY_BYTES);
    drop(tier);
    assert!(held_bytes() >= 16 * COPY_BYTES, "not by itself");
    let tier = open(&options);
    tier.clear();
    assert!(held_bytes() <= 16 * SECTOR_BYTES);
    let copy = TierCopy { place: 7, writing: 100 };
    write_one(&tier, copy, 2);
    drop(tier);
    assert_eq!(read(&open(&options), copy, 0, 5000).unwrap(), extent(2)[..5000]);
}

#[test]
fn many_threads_read_while_one_writes() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(&options(&directory.path().join("tier"), 16 << 20));
    let kept: Vec<_> = (0..40).map(|place| TierCopy { place, writing: place.into() }).collect();
    kept.iter().for_each(|&copy| write_one(&tier, copy, copy.writing));
    let contents: Vec<_> = kept.iter().map(|copy| extent(copy.writing)).collect();
    std::thread::scope(|scope| {
        // More than there are lanes.
        for thread in 0..48usize {
            let (tier, kept, contents) = (&tier, &kept, &contents);
            scope.spawn(move || {
                let mut at = thread * 7919;
                for _ in 0..200 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let which = (at >> 20) % kept.len();
                    let start = (at >> 30) % (TIER_EXTENT_BYTES - 4000);
                    let block = read(tier, kept[which], start, 4000).unwrap();
                    assert!(block == contents[which][start..start + 4000], "{which} from {start}");
                }
            });
        }
        for writing in 1000..1100 {
            let place = 40 + (writing % 80) as u32;
            write_one(&tier, TierCopy { place, writing }, writing);
            tier.discard(place);
            tier.probe();
        }
    });
    assert_eq!(tier.state(), TierState::Ready);
}
