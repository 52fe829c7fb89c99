//! Memory that changes by itself: rule 4.

use std::time::Duration;

use super::pages::{flat_pool, get, page, put, store};
use crate::{GetError, block::HEADER_BYTES, entry::Entry, fault_injection::Flip, ids::IndexSlot};

#[test]
fn r4_any_flipped_bit_of_a_block_is_an_error_and_counted() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    for (index, seed) in [(1, 2), (2, 3), (3, 4)] {
        put(&pool, 0, index, seed).unwrap();
        let Ok(Entry::Block(block)) = pool.index().load(IndexSlot(index as u32)) else { panic!("no block") };
        // SAFETY: this thread is the only one that uses the store.
        let bytes = unsafe { store.engine().arena.block(block) }.unwrap();
        let (header, _) = crate::block::read(bytes).unwrap(); // its padding is not read
        let block_bytes = HEADER_BYTES + usize::from(header.payload_bytes);
        let before = store.clients()[0].checksum_errors;
        for bit in 0..block_bytes * 8 {
            let flip = || {
                // SAFETY: this thread is the only one that uses the store.
                let bytes = unsafe { store.engine().arena.block_mut(block) };
                bytes.unwrap()[bit / 8] ^= 1 << (bit % 8);
            };
            flip();
            assert_eq!(get(&pool, 0, index), Err(GetError::Damaged), "page {index}, bit {bit}");
            flip();
        }
        assert_eq!(store.clients()[0].checksum_errors - before, block_bytes as u64 * 8);
        assert!(*get(&pool, 0, index).unwrap().unwrap() == page(seed));
    }
}

#[test]
fn r4_any_flipped_bit_of_the_index_is_an_error() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    // Page 0 zero, 1 a repeated word, 2 to 4 blocks, 5 absent.
    (0..5).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    for index in 0..6 {
        for bit in 0..64 {
            pool.index().flip_bit(IndexSlot(index), bit);
            assert_eq!(get(&pool, 0, u64::from(index)), Err(GetError::Damaged), "entry {index}, bit {bit}");
            pool.index().flip_bit(IndexSlot(index), bit);
        }
    }
    (0..5).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(i as u32)));
    assert_eq!(get(&pool, 0, 5), Ok(None));
}

#[test]
fn r4_a_damaged_page_can_be_overwritten_and_flushed() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    (0..3).for_each(|i| put(&pool, 0, i, 2).unwrap());
    (0..2).for_each(|i| pool.index().flip_bit(IndexSlot(i), 30));
    put(&pool, 0, 0, 3).unwrap();
    pool.flush_page(crate::ObjectId(0), crate::PageIndex(1));
    assert!(*get(&pool, 0, 0).unwrap().unwrap() == page(3));
    assert_eq!(get(&pool, 0, 1), Ok(None));
    assert!(*get(&pool, 0, 2).unwrap().unwrap() == page(2));
}

#[test]
fn r4_compaction_keeps_clear_of_damage_and_takes_lost_blocks_out_of_the_books() {
    let store = store(64 << 20);
    let pool = flat_pool(&store, "a", 100_000);
    (0..20_000).for_each(|i| put(&pool, 0, i, i as u32).unwrap());
    // A damaged index entry: its block is lost. A damaged block: the walk over its extent ends there.
    pool.index().flip_bit(IndexSlot(2), 30);
    let Ok(Entry::Block(damaged)) = pool.index().load(IndexSlot(10_002)) else { panic!("no block") };
    // SAFETY: this thread is the only one that uses the store.
    unsafe { store.engine().arena.block_mut(damaged) }.unwrap()[20] ^= 4;
    (0..20_000)
        .filter(|i| i % 10 != 2)
        .for_each(|i| pool.flush_page(crate::ObjectId(0), crate::PageIndex(i)));
    assert!(store.compact(Duration::from_secs(60)).emptied_extents > 0);
    for i in (0..20_000).filter(|i| i % 10 == 2) {
        match get(&pool, 0, i) {
            Ok(found) => assert!(*found.unwrap() == page(i as u32)),
            Err(error) => assert!(error == GetError::Damaged && (i == 2 || i == 10_002)),
        }
    }
    pool.flush_object(crate::ObjectId(0));
    let held = store.engine().arena.allocated_bytes().unwrap();
    assert_eq!(held, 0, "the lost block's extent stays");
}

#[test]
fn r4_what_is_damaged_on_purpose_is_told_and_found() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 600);
    let seed = |i: u64| if i.is_multiple_of(3) { 4 } else { i as u32 }; // some share a block
    (0..400).for_each(|i| put(&pool, 0, i, seed(i)).unwrap());
    let state = std::sync::atomic::AtomicU64::new(1);
    let random = || state.fetch_add(0x9e37_79b9_7f4a_7c15, std::sync::atomic::Ordering::Relaxed) >> 7;
    let told = std::cell::RefCell::new(Vec::new());
    for flip in [Flip::Arena, Flip::Index].repeat(20) {
        assert!(store.flip(flip, random, |_, page| told.borrow_mut().push(page.0)));
    }
    let told = told.into_inner();
    let shares_with_one = |i: u64| i.is_multiple_of(3) && told.iter().any(|told| told.is_multiple_of(3));
    let mut errors = 0;
    for i in 0..400 {
        match get(&pool, 0, i) {
            Ok(got) => assert!(*got.unwrap() == page(seed(i)), "page {i} is another"),
            Err(error) => {
                assert_eq!(error, GetError::Damaged);
                assert!(
                    told.contains(&i) || shares_with_one(i),
                    "page {i} is damaged, and that was not told"
                );
                errors += 1;
            }
        }
    }
    assert!(errors >= 10, "{errors} pages are damaged");
}
