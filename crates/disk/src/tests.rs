//! The disk as vhost-user uses it, held against a plain array of bytes.

mod bytes;

use std::sync::Arc;

use proptest::prelude::*;
use tmem_store::{Dedup, Store, StoreOptions, Weight};

use crate::{BLOCK_BYTES, DiskError, DiskOptions, Format, IoError, Segment, SwapDisk};

const SIZE: u64 = 2 << 20;

fn store(limit_bytes: u64) -> Arc<Store> {
    Store::new(StoreOptions { limit_bytes }).unwrap()
}

fn options(name: &str, size_bytes: u64, format: Format) -> DiskOptions {
    let (cap_bytes, weight, dedup) = (None, Weight::default(), Dedup::Alone);
    DiskOptions { name: name.to_owned(), size_bytes, cap_bytes, weight, dedup, format }
}

fn disk(limit_bytes: u64) -> SwapDisk {
    SwapDisk::create(&store(limit_bytes), options("d", SIZE, Format::None)).unwrap()
}

/// Reads through segments of the given lengths.
fn read(disk: &SwapDisk, offset: u64, lens: &[usize]) -> Result<Vec<u8>, IoError> {
    let mut memory: Vec<Vec<u8>> = lens.iter().map(|len| vec![0xcc; *len]).collect();
    let segments: Vec<_> = memory.iter_mut().map(|piece| Segment::from_slice(piece)).collect();
    disk.read(offset, &segments)?;
    Ok(memory.concat())
}

fn write(disk: &SwapDisk, offset: u64, bytes: &[u8], cut_at: usize) -> Result<(), IoError> {
    let mut bytes = bytes.to_vec();
    let (first, second) = bytes.split_at_mut(cut_at);
    disk.write(offset, &[Segment::from_slice(first), Segment::from_slice(second)])
}

#[derive(Clone, Debug)]
enum Request {
    Write { block: u64, blocks: u64, seed: u8, cut: usize },
    Read { block: u64, blocks: u64, cut: usize },
    Discard { block: u64, blocks: u64 },
    WriteZeroes { block: u64, blocks: u64 },
}

fn request() -> impl Strategy<Value = Request> {
    let place = || (0..SIZE / BLOCK_BYTES, 1..9u64, any::<usize>());
    prop_oneof![
        3 => (place(), any::<u8>()).prop_map(|((block, blocks, cut), seed)| Request::Write { block, blocks, seed, cut }),
        3 => place().prop_map(|(block, blocks, cut)| Request::Read { block, blocks, cut }),
        1 => place().prop_map(|(block, blocks, _)| Request::Discard { block, blocks }),
        1 => place().prop_map(|(block, blocks, _)| Request::WriteZeroes { block, blocks }),
    ]
}

proptest! {
    #[test]
    fn r1_the_disk_does_what_an_array_does(requests in proptest::collection::vec(request(), 1..80)) {
        let disk = disk(8 << 20);
        let mut model = vec![0u8; SIZE as usize];
        for request in requests {
            let (block, blocks) = match request {
                Request::Write { block, blocks, .. } | Request::Read { block, blocks, .. }
                | Request::Discard { block, blocks } | Request::WriteZeroes { block, blocks } => (block, blocks),
            };
            let (offset, len) = (block * BLOCK_BYTES, blocks * BLOCK_BYTES);
            let range = offset as usize..(offset + len) as usize;
            let fits = offset + len <= SIZE;
            let expected = if fits { Ok(()) } else { Err(IoError::OutOfRange) };
            match request {
                Request::Write { seed, cut, .. } => {
                    let bytes: Vec<u8> = (0..len).map(|i| (i / 64) as u8 ^ seed).collect();
                    prop_assert_eq!(write(&disk, offset, &bytes, cut % bytes.len()), expected);
                    if fits {
                        model[range].copy_from_slice(&bytes);
                    }
                }
                Request::Read { cut, .. } => {
                    let cut = cut % len as usize;
                    let lens = [cut, 0, len as usize - cut];
                    prop_assert_eq!(read(&disk, offset, &lens), expected.map(|()| model[range].to_vec()));
                }
                Request::Discard { .. } | Request::WriteZeroes { .. } => {
                    let done = match request {
                        Request::Discard { .. } => disk.discard(offset, len),
                        _ => disk.write_zeroes(offset, len),
                    };
                    prop_assert_eq!(done, expected);
                    if fits {
                        model[range].fill(0);
                    }
                }
            }
        }
    }
}

#[test]
fn a_new_disk_is_a_swap_area_labelled_tmem() {
    let store = store(8 << 20);
    let disk = SwapDisk::create(&store, options("d", SIZE, Format::Swap)).unwrap();
    let header = read(&disk, 0, &[4096]).unwrap();
    assert_eq!(&header[4086..], b"SWAPSPACE2");
    assert_eq!(header[1024..1028], 1u32.to_le_bytes());
    assert_eq!(header[1028..1032], 511u32.to_le_bytes(), "last page of 512");
    assert_eq!(header[1032..1036], [0; 4], "no bad pages");
    assert_eq!(&header[1052..1057], b"tmem\0");
    assert_ne!(header[1036..1052], [0; 16]);
    assert_eq!(read(&disk, 4096, &[4096]).unwrap(), [0; 4096]);
    assert_eq!(store.usage().stored_pages, 1);
    drop(disk);
    assert_eq!(store.usage().held_bytes, 0);
    assert!(store.clients().is_empty());
}

#[test]
fn r2_a_refused_write_fails_alone_and_leaves_nothing_old() {
    let store = store(1 << 20);
    let disk = SwapDisk::create(&store, options("d", SIZE, Format::None)).unwrap();
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let noise: Vec<u8> = (0..SIZE).map(|_| random()).collect();
    write(&disk, 0, &[7; 8192], 100).unwrap();
    let blocks = SIZE / BLOCK_BYTES;
    let fits = (2..blocks).take_while(|block| {
        let at = (block * BLOCK_BYTES) as usize;
        write(&disk, block * BLOCK_BYTES, &noise[at..at + 4096], 4096).is_ok()
    });
    let first_refused = 2 + fits.count() as u64;
    assert!(first_refused < blocks);
    // Over a stored page: what was there is gone, what should be there never came.
    let refused = &noise[(first_refused * BLOCK_BYTES) as usize..][..4096];
    assert_eq!(write(&disk, 0, &[refused, refused].concat(), 0), Err(IoError::Refused));
    assert_eq!(read(&disk, 0, &[4096]), Err(IoError::Lost));
    assert_eq!(read(&disk, 4096, &[4096]), Err(IoError::Lost));
    for block in 2..first_refused {
        let at = (block * BLOCK_BYTES) as usize;
        assert!(read(&disk, block * BLOCK_BYTES, &[4096]).unwrap() == noise[at..at + 4096]);
    }
    disk.discard(0, SIZE).unwrap();
    assert_eq!(read(&disk, 0, &[4096]).unwrap(), [0; 4096]);
    assert_eq!(store.usage().held_bytes, 0);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let disk = disk(8 << 20);
    assert_eq!(read(&disk, 512, &[4096]), Err(IoError::Unaligned));
    assert_eq!(read(&disk, 0, &[512]), Err(IoError::Unaligned));
    assert_eq!(read(&disk, SIZE, &[4096]), Err(IoError::OutOfRange));
    assert_eq!(disk.discard(u64::MAX, 4096), Err(IoError::OutOfRange));
    assert_eq!(disk.write_zeroes(0, 512), Err(IoError::Unaligned));
    assert_eq!(read(&disk, SIZE, &[]).unwrap(), Vec::<u8>::new());
}

#[test]
fn a_discard_keeps_blocks_it_covers_in_part() {
    let disk = disk(8 << 20);
    write(&disk, 0, &[9; 4096 * 4], 4096).unwrap();
    disk.discard(512, 4096 * 3).unwrap();
    let bytes = read(&disk, 0, &[4096 * 4]).unwrap();
    assert!(bytes[..4096].iter().all(|byte| *byte == 9));
    assert!(bytes[4096..4096 * 3].iter().all(|byte| *byte == 0));
    assert!(bytes[4096 * 3..].iter().all(|byte| *byte == 9));
}

#[test]
fn disks_that_make_no_sense_are_refused() {
    let store = store(8 << 20);
    for size_bytes in [0, 4096, (1 << 20) + 1, 1 << 60] {
        let made = SwapDisk::create(&store, options("d", size_bytes, Format::Swap));
        assert!(matches!(made, Err(DiskError::Size { .. })), "{size_bytes}");
    }
    let _disk = SwapDisk::create(&store, options("d", SIZE, Format::Swap)).unwrap();
    let again = SwapDisk::create(&store, options("d", SIZE, Format::Swap)).err().unwrap();
    assert!(again.to_string().contains("'d'"), "{again}");
    let mut capped = options("e", SIZE, Format::Swap);
    capped.cap_bytes = Some(1);
    assert!(matches!(SwapDisk::create(&store, capped), Err(DiskError::Format { .. })));
    assert_eq!(store.clients().len(), 1, "a disk that was not made leaves nothing behind");
}
