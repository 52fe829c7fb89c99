//! The disk by the byte, held against a plain array, and by several threads at once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::prelude::*;

use super::{SIZE, disk};
use crate::{BLOCK_BYTES, Extent, IoError, Stored, SwapDisk, Zeroes};

#[derive(Clone, Debug)]
enum Request {
    Write { at: u64, len: u64, seed: u8 },
    Read { at: u64, len: u64 },
    Zero { at: u64, len: u64, how: Zeroes },
    Discard { at: u64, len: u64 },
}

fn request() -> impl Strategy<Value = Request> {
    // Few pages, so that requests meet; now and then beyond the end.
    let place = || prop_oneof![9 => 0..5 * BLOCK_BYTES, 1 => SIZE - 5000..SIZE + 10];
    let len = || prop_oneof![0..200u64, 0..3 * BLOCK_BYTES, Just(BLOCK_BYTES)];
    let aligned = |at: u64, yes: bool| if yes { at / BLOCK_BYTES * BLOCK_BYTES } else { at };
    let place = move || (place(), any::<bool>()).prop_map(move |(at, yes)| aligned(at, yes));
    prop_oneof![
        4 => (place(), len(), any::<u8>()).prop_map(|(at, len, seed)| Request::Write { at, len, seed }),
        4 => (place(), len()).prop_map(|(at, len)| Request::Read { at, len }),
        1 => (place(), len(), any::<bool>()).prop_map(|(at, len, forget)| {
            Request::Zero { at, len, how: if forget { Zeroes::Forget } else { Zeroes::Store } }
        }),
        1 => (place(), len()).prop_map(|(at, len)| Request::Discard { at, len }),
    ]
}

/// What the extents of the whole disk say, page by page.
fn pages_of(disk: &SwapDisk) -> Vec<Stored> {
    let mut pages = Vec::new();
    let mut at = 0;
    while at < SIZE {
        let Extent { stored, len_bytes } = disk.extent(at, SIZE - at).unwrap();
        assert!(len_bytes > 0 && len_bytes.is_multiple_of(BLOCK_BYTES));
        pages.extend((0..len_bytes / BLOCK_BYTES).map(|_| stored));
        at += len_bytes;
    }
    pages
}

proptest! {
    #[test]
    fn r1_bytes_are_what_an_array_has(requests in proptest::collection::vec(request(), 1..100)) {
        let disk = disk(8 << 20);
        let mut model = vec![0u8; SIZE as usize];
        // Whether a page is stored, as far as it follows from the requests.
        let mut stored = vec![false; (SIZE / BLOCK_BYTES) as usize];
        for request in requests {
            let (Request::Write { at, len, .. } | Request::Read { at, len } | Request::Zero { at, len, .. }
                | Request::Discard { at, len }) = request;
            let fits = at + len <= SIZE;
            let expected = if fits { Ok(()) } else { Err(IoError::OutOfRange) };
            let range = at as usize..if fits { (at + len) as usize } else { at as usize };
            let touched = (at / BLOCK_BYTES) as usize..((at + len).div_ceil(BLOCK_BYTES) as usize).min(stored.len());
            let whole = at.div_ceil(BLOCK_BYTES) as usize..((at + len) / BLOCK_BYTES) as usize;
            match request {
                Request::Write { seed, .. } => {
                    let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8 ^ seed).collect();
                    prop_assert_eq!(disk.write_bytes(at, &bytes), expected);
                    if fits && len > 0 {
                        model[range].copy_from_slice(&bytes);
                        stored[touched].fill(true);
                    }
                }
                Request::Read { .. } => {
                    let mut bytes = vec![0xcc; len as usize];
                    prop_assert_eq!(disk.read_bytes(at, &mut bytes), expected);
                    prop_assert!(!fits || bytes == model[range]);
                }
                Request::Zero { how, .. } => {
                    prop_assert_eq!(disk.zero_bytes(at, len, how), expected);
                    if fits && len > 0 {
                        model[range].fill(0);
                        stored[touched].fill(true);
                        if how == Zeroes::Forget && !whole.is_empty() {
                            stored[whole].fill(false);
                        }
                    }
                }
                Request::Discard { .. } => {
                    prop_assert_eq!(disk.discard(at, len), expected);
                    if fits && !whole.is_empty() {
                        model[whole.start * 4096..whole.end * 4096].fill(0);
                        stored[whole].fill(false);
                    }
                }
            }
        }
        let expected: Vec<_> = stored.iter().zip(model.chunks(4096)).map(|(stored, page)| match stored {
            false => Stored::Nothing,
            true if page.iter().all(|byte| *byte == 0) => Stored::Zeroes,
            true => Stored::Contents,
        }).collect();
        prop_assert_eq!(pages_of(&disk), expected);
    }
}

#[test]
fn an_extent_ends_where_it_was_asked_to() {
    let disk = disk(8 << 20);
    assert_eq!(disk.extent(100, 7), Ok(Extent { stored: Stored::Nothing, len_bytes: 7 }));
    disk.write_bytes(4096, &[1; 4096]).unwrap();
    assert_eq!(disk.extent(100, SIZE - 100), Ok(Extent { stored: Stored::Nothing, len_bytes: 3996 }));
    assert_eq!(disk.extent(5000, 10_000), Ok(Extent { stored: Stored::Contents, len_bytes: 3192 }));
    assert_eq!(disk.extent(0, SIZE + 1), Err(IoError::OutOfRange));
}

#[test]
fn looking_at_what_is_not_there_costs_no_memory() {
    let store = super::store(8 << 20);
    let disk = SwapDisk::create(&store, super::options("d", 1 << 40, crate::Format::None)).unwrap();
    disk.write_bytes(1 << 39, b"x").unwrap();
    let held = store.usage().held_bytes;
    assert_eq!(disk.extent(0, 1 << 40), Ok(Extent { stored: Stored::Nothing, len_bytes: 1 << 39 }));
    let behind = (1 << 39) + 4096;
    let rest = (1 << 40) - behind;
    assert_eq!(disk.extent(behind, rest), Ok(Extent { stored: Stored::Nothing, len_bytes: rest }));
    assert_eq!(store.usage().held_bytes, held);
}

#[test]
fn r2_a_page_changed_in_part_is_lost_as_a_whole_when_refused() {
    let store = super::store(1 << 20);
    let disk = SwapDisk::create(&store, super::options("d", SIZE, crate::Format::None)).unwrap();
    let mut state = 1u64;
    let noise: Vec<u8> = (0..SIZE)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    disk.write_bytes(0, &[7; 4096]).unwrap();
    assert_eq!(disk.write_bytes(4096, &noise[4096..]), Err(IoError::Refused));
    assert_eq!(disk.write_bytes(96, &noise[..4000]), Err(IoError::Refused));
    assert_eq!(disk.read_bytes(0, &mut [0; 10]), Err(IoError::Lost));
    // What was lost cannot be made whole by another part of it.
    assert_eq!(disk.write_bytes(0, &[1; 10]), Err(IoError::Lost));
}

/// Each thread owns every fourth run of bytes of a few pages, and must always find what it last wrote there, while one more writes, zeroes
/// and forgets whole pages beside them.
#[test]
fn r1_writers_of_one_page_do_not_lose_each_others_bytes() {
    const LANES: u64 = 4;
    const LANE_BYTES: u64 = BLOCK_BYTES / LANES;
    let disk = disk(8 << 20);
    thread::scope(|scope| {
        for lane in 0..LANES {
            let disk = &disk;
            scope.spawn(move || {
                for round in 1..1500u64 {
                    let page = round % 3;
                    let at = page * BLOCK_BYTES + lane * LANE_BYTES;
                    let value = (round % 251) as u8 + 1;
                    disk.write_bytes(at, &[value; LANE_BYTES as usize]).unwrap();
                    let mut found = [0; LANE_BYTES as usize];
                    disk.read_bytes(at, &mut found).unwrap();
                    assert_eq!(found, [value; LANE_BYTES as usize], "lane {lane}, round {round}");
                }
            });
        }
    });
}

/// One thread writes part of a page, over and over; the other writes all of it, and owns the rest of it.
#[test]
fn r1_a_write_in_part_does_not_undo_one_of_the_whole_page() {
    let disk = disk(8 << 20);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let parts = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                disk.write_bytes(10, b"part").unwrap();
            }
        });
        for round in 0..3000u32 {
            let value = (round % 255) as u8 + 1;
            let expected = match round % 3 {
                0 => disk.zero_bytes(0, BLOCK_BYTES, Zeroes::Forget).map(|()| 0),
                1 => disk.zero_bytes(0, BLOCK_BYTES, Zeroes::Store).map(|()| 0),
                _ => disk.write_bytes(0, &[value; BLOCK_BYTES as usize]).map(|()| value),
            };
            let mut found = [0; BLOCK_BYTES as usize];
            disk.read_bytes(0, &mut found).unwrap();
            let expected = expected.unwrap();
            assert!(found[14..].iter().all(|byte| *byte == expected), "round {round}");
        }
        done.store(true, Ordering::Relaxed);
        parts.join().unwrap();
    });
}
