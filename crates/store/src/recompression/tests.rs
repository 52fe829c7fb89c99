//! What happens to a page between the moment its block was compressed harder and the moment that is to be published.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::*;
use crate::{
    ObjectId, PageIndex, Store,
    tests::pages::{flat_pool, get, page, put, store},
};

/// Compresses the first extent's blocks, lets `meanwhile` happen, and moves them.
fn recompress_around(store: &Store, meanwhile: impl FnOnce()) -> Recompression {
    let engine = store.engine();
    let mut recompressor = Recompressor::default();
    let mut walk = engine.arena.pin_longest_still(0).unwrap();
    let moves = engine.compress_cold(&mut walk, &mut recompressor, Cold::after(0), 5);
    assert!(moves.len() > 40, "{} blocks", moves.len());
    meanwhile();
    let mut done = Recompression::default();
    engine.move_all(moves, &recompressor.payloads, Claim::Growth, &mut done);
    done
}

#[test]
fn a_block_is_replaced_by_one_that_is_a_twentieth_smaller_at_least() {
    for block_bytes in (MIN_BLOCK_BYTES..=block::MAX_BLOCK_BYTES).step_by(ALIGN_BYTES.into()) {
        match worthwhile_payload_bytes(block_bytes) {
            Some(payload_bytes) => {
                let new_bytes = block::block_bytes(payload_bytes as u16);
                assert!(
                    u32::from(new_bytes) * 20 <= u32::from(block_bytes) * 19,
                    "{new_bytes} for {block_bytes}"
                );
                let longer = block::block_bytes(payload_bytes as u16 + 1);
                assert!(
                    u32::from(longer) * 20 > u32::from(block_bytes) * 19,
                    "{longer} for {block_bytes} would do"
                );
            }
            None => assert!(block_bytes <= MIN_BLOCK_BYTES, "{block_bytes}"),
        }
    }
}

#[test]
fn r1_r7_a_page_that_changes_while_it_is_recompressed_stays_what_it_became() {
    let store = store(16 << 20);
    let pool = flat_pool(&store, "a", 1000);
    let text = |i: u64| i as u32 * 5 + 2;
    (0..200).for_each(|i| put(&pool, 0, i, text(i)).unwrap());
    let done = recompress_around(&store, || {
        put(&pool, 0, 3, text(900)).unwrap();
        put(&pool, 0, 4, 1).unwrap();
        pool.flush_page(ObjectId(0), PageIndex(5));
        assert!(*get(&pool, 0, 6).unwrap().unwrap() == page(text(6)), "a get meanwhile");
    });
    assert!(done.recompressed_pages > 40);
    assert!(*get(&pool, 0, 3).unwrap().unwrap() == page(text(900)));
    assert!(*get(&pool, 0, 4).unwrap().unwrap() == page(1));
    assert_eq!(get(&pool, 0, 5), Ok(None));
    (6..200).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(text(i))));
    pool.flush_object(ObjectId(0));
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
}

#[test]
fn r7_a_client_that_goes_while_its_pages_are_recompressed_leaves_nothing() {
    let store = store(16 << 20);
    let client = store.create_client(crate::tests::pages::client_options("a", None)).unwrap();
    let keys = crate::Keys::Flat { pages: 1000 };
    let pool = client.create_pool(crate::Persistence::Persistent, keys).unwrap();
    (0..200).for_each(|i| put(&pool, 0, i, i as u32 * 5 + 2).unwrap());
    let done = recompress_around(&store, || store.remove_client(&client).unwrap());
    assert_eq!(done, Recompression::default());
    assert_eq!(store.usage().held_bytes, 0);
}
