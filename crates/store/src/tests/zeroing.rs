//! Blocks of forgotten pages are overwritten, if somebody wants that (rule 6: nobody learns what was another's).

use std::{sync::Arc, thread, time::Duration};

use super::pages::{client_options, flat_pool, get, page, put, store};
use crate::{
    Client, Dedup, Keys, ObjectId, PageIndex, Persistence, Pool, Store,
    entry::{BlockRef, Entry},
    ids::IndexSlot,
};

/// Seeds whose pages do not compress.
fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

fn block(pool: &Pool, slot: u32) -> BlockRef {
    let Ok(Entry::Block(block)) = pool.index().load(IndexSlot(slot)) else { panic!("no block at {slot}") };
    block
}

fn is_zeroed(store: &Store, block: BlockRef) -> bool {
    store.engine().arena.is_zeroed(block)
}

fn zeroing(limit_bytes: u64) -> Arc<Store> {
    let store = store(limit_bytes);
    store.set_zero_on_flush(true);
    store
}

#[test]
fn r6_what_is_forgotten_is_overwritten_at_once_if_told_so() {
    let store = store(8 << 20);
    let pool = flat_pool(&store, "a", 1000);
    (0..200).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    let forgotten = block(&pool, 3);
    pool.flush_page(ObjectId(0), PageIndex(3));
    assert!(!is_zeroed(&store, forgotten), "nobody asked for it");

    store.set_zero_on_flush(true);
    let blocks = [1, 5, 6, 7].map(|slot| block(&pool, slot));
    pool.flush_page(ObjectId(0), PageIndex(1));
    put(&pool, 0, 5, noise(300)).unwrap();
    put(&pool, 0, 6, 0).unwrap(); // zeroes have no block
    pool.flush_range(ObjectId(0), 7..9);
    assert_eq!(blocks.map(|block| is_zeroed(&store, block)), [true; 4]);
    for (i, seed) in [(0, noise(0)), (2, noise(2)), (4, noise(4)), (5, noise(300)), (6, 0), (9, noise(9))] {
        assert!(*get(&pool, 0, i).unwrap().unwrap() == page(seed), "page {i}");
    }
}

/// A shared block goes with the last page that has it; compaction leaves nothing where it took a block from; and what was overwritten
/// is walked over like anything else.
#[test]
fn r6_shared_and_moved_blocks_are_overwritten_too() {
    let store = zeroing(16 << 20);
    let options = crate::ClientOptions { dedup: Dedup::Alone, ..client_options("a", None) };
    let client: Arc<Client> = store.create_client(options).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 4000 }).unwrap();
    put(&pool, 0, 0, noise(7)).unwrap();
    while store.tend_dedup(Duration::from_millis(5)) {}
    put(&pool, 0, 1, noise(7)).unwrap();
    if let Ok(Entry::Shared(shared)) = pool.index().load(IndexSlot(1)) {
        let shared_block = store.engine().shared_blocks.block(shared.cell).unwrap();
        pool.flush_page(ObjectId(0), PageIndex(0));
        assert!(!is_zeroed(&store, shared_block));
        assert!(*get(&pool, 0, 1).unwrap().unwrap() == page(noise(7)));
        pool.flush_page(ObjectId(0), PageIndex(1));
        assert!(is_zeroed(&store, shared_block));
    } else {
        panic!("equal pages share a block");
    }

    (0..1000).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    let before: Vec<_> = (0..1000).step_by(10).map(|slot| block(&pool, slot)).collect();
    (0..1000).filter(|i| i % 10 != 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    let mut moved = 0;
    while moved < 50 {
        let compaction = store.compact(Duration::from_millis(50));
        assert!(compaction.emptied_extents > 0, "{moved} pages were moved");
        moved += compaction.moved_pages;
    }
    for (block_before, slot) in before.into_iter().zip((0..1000).step_by(10)) {
        assert!(*get(&pool, 0, slot.into()).unwrap().unwrap() == page(noise(slot.into())));
        // Its extent may hold other blocks by now.
        let was_moved = block(&pool, slot) != block_before;
        let is_free = store.engine().arena.is_extent_free(block_before);
        assert!(!was_moved || !is_free || is_zeroed(&store, block_before), "page {slot}");
    }
    store.remove_client(&client).unwrap();
    assert_eq!(store.usage().used_bytes, 0);
}

/// Gets that are under way while their page is forgotten find it whole, or nothing: never a wrong page, never damage.
#[test]
fn r1_r4_gets_never_meet_a_block_that_is_being_overwritten() {
    let store = zeroing(32 << 20);
    let pool = flat_pool(&store, "a", 64);
    thread::scope(|scope| {
        let done = Arc::new(());
        for reader in 0..2 {
            let (pool, done) = (&pool, Arc::downgrade(&done));
            scope.spawn(move || {
                let mut i = reader;
                while done.strong_count() > 0 {
                    i = (i + 1) % 64;
                    match get(pool, 0, i) {
                        Ok(Some(found)) => assert!(
                            (0..4).any(|version| *found == page(noise(i + 64 * version))),
                            "a page of nobody"
                        ),
                        Ok(None) => {}
                        Err(error) => panic!("page {i}: {error}"),
                    }
                }
            });
        }
        scope.spawn({
            let (store, done) = (&store, Arc::downgrade(&done));
            move || {
                while done.strong_count() > 0 {
                    store.compact(Duration::from_millis(2));
                }
            }
        });
        for round in 0..20_000u64 {
            let i = round * 7 % 64;
            match round % 5 {
                0 => pool.flush_page(ObjectId(0), PageIndex(i)),
                _ => put(&pool, 0, i, noise(i + 64 * (round % 4))).unwrap(),
            }
        }
        drop(done);
    });
    assert_eq!(store.client("a").unwrap().usage().checksum_errors, 0);
    pool.flush_object(ObjectId(0));
    assert_eq!(store.usage().used_bytes, 0, "nothing waits to be overwritten for ever");
    assert_eq!(store.engine().arena.waits_to_be_zeroed(), 0);
}

/// Each of them may find the pins of the others on the extent.
#[test]
fn blocks_that_are_freed_at_the_same_time_are_all_overwritten() {
    const THREADS: u64 = 3;
    let store = zeroing(32 << 20);
    let pool = flat_pool(&store, "a", 64);
    let together = std::sync::Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (store, pool, together) = (&store, &pool, &together);
            scope.spawn(move || {
                for round in 0..20_000u64 {
                    put(pool, 0, i, noise(i + round % 7)).unwrap();
                    together.wait();
                    pool.flush_page(ObjectId(0), PageIndex(i));
                    together.wait();
                    assert_eq!(store.engine().arena.waits_to_be_zeroed(), 0, "round {round}");
                    together.wait();
                }
            });
        }
    });
    assert_eq!(store.usage().held_bytes, 0);
}
