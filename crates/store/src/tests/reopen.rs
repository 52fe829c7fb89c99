//! Opening the files of a store that is gone.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use super::pages::{TestKeeper, client_options, get, page, put};
use crate::{
    GetError, Keys, ObjectId, PageIndex, Persistence, PutError, Recovery, Store, StoreError, StoreOptions,
    ages::Cold, entry::Entry, ids::IndexSlot, memory_file::MemoryFile,
};

const LIMIT: u64 = 16 << 20;

fn text(i: u64) -> u32 {
    i as u32 * 5 + 2
}

fn noise(i: u64) -> u32 {
    i as u32 * 5 + 4
}

/// Indexes all over the place, each another one.
fn wide(i: u64) -> u64 {
    1 << (20 + i % 40) | i
}

/// A store with a disk, a persistent pool with many objects, and a cache.
fn filled() -> (Arc<TestKeeper>, Arc<Store>) {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    let disk = store.create_client(client_options("disk", Some(8 << 20))).unwrap();
    let disk = disk.create_pool(Persistence::Persistent, Keys::Flat { pages: 1 << 28 }).unwrap();
    let other = store.create_client(client_options("other", None)).unwrap();
    let sparse =
        other.create_pool(Persistence::Persistent, Keys::Sparse { max_pages: 1 << 32 >> 1 }).unwrap();
    let cache = other.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 20 }).unwrap();
    for i in 0..1000 {
        put(&disk, 0, i << 17, i as u32).unwrap();
        put(&sparse, u64::MAX - i % 5, wide(i), i as u32).unwrap();
        put(&cache, i % 5, i, i as u32).unwrap();
    }
    (keeper, store)
}

fn check(store: &Store) {
    let disk = store.client("disk").unwrap().pools().remove(0);
    let pools = store.client("other").unwrap().pools();
    for i in 0..1000 {
        let expected = page(i as u32);
        assert!(*get(&disk, 0, i << 17).unwrap().unwrap() == expected, "page {i}");
        assert!(*get(&pools[0], u64::MAX - i % 5, wide(i)).unwrap().unwrap() == expected, "page {i}");
        assert!(*get(&pools[1], i % 5, i).unwrap().unwrap() == expected, "page {i}");
    }
}

/// Opens files that must be refused.
fn refused(files: Vec<(String, OwnedFd)>, keeper: &Arc<TestKeeper>) -> StoreError {
    Store::open(files, StoreOptions { limit_bytes: LIMIT }, Some(keeper.clone())).err().unwrap()
}

#[test]
fn r1_all_pages_are_found_again_and_the_books_agree() {
    let (keeper, store) = filled();
    let (before, clients) = store.snapshot();
    store.detach();
    drop(store);
    let (store, recovery) = keeper.open(LIMIT);
    check(&store);
    let (after, found) = store.snapshot();
    assert_eq!(after, before);
    for (found, client) in found.iter().zip(&clients) {
        assert_eq!(
            (&found.name, found.kind, found.cap_bytes, found.used_bytes, found.stored_pages),
            (&client.name, client.kind, client.cap_bytes, client.used_bytes, client.stored_pages)
        );
        assert_eq!(
            (found.same_filled_pages, found.raw_pages, found.compressed_bytes, found.metadata_bytes),
            (client.same_filled_pages, client.raw_pages, client.compressed_bytes, client.metadata_bytes)
        );
    }
    let expected =
        Recovery { clients: 2, pools: 3, found_pages: 3000, repaired_extents: 2, ..recovery.clone() };
    assert_eq!(recovery, expected);
    // The tables that equal pages are found by are filled afterwards.
    assert!(recovery.held_bytes <= before.held_bytes, "{recovery:?}");
    assert_eq!(store.usage().held_bytes, before.held_bytes);
    assert_eq!((recovery.damaged_pages, recovery.damaged_records, recovery.leftover_files), (0, 0, 0));
    let disk = store.client("disk").unwrap();
    assert_eq!(disk.settings().cap_bytes, Some(8 << 20));
    assert_eq!(disk.pools()[0].keys(), Keys::Flat { pages: 1 << 28 });
    assert_eq!(disk.pools()[0].persistence(), Persistence::Persistent);
}

#[test]
fn r7_a_store_that_was_opened_again_gives_everything_back() {
    let (keeper, store) = filled();
    store.detach();
    drop(store);
    let (store, _) = keeper.open(LIMIT);
    for client in ["disk", "other"] {
        for pool in store.client(client).unwrap().pools() {
            (0..5).chain(u64::MAX - 4..=u64::MAX).for_each(|object| pool.flush_object(ObjectId(object)));
        }
    }
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
    assert_eq!(store.engine().arena.allocated_bytes().unwrap(), 0);
    drop(store);
    assert_eq!(keeper.names(), [""; 0]);
}

#[test]
fn an_orderly_end_releases_every_file_and_a_handover_none() {
    let (keeper, store) = filled();
    let names = keeper.names();
    assert_eq!(
        names,
        [
            "tmem-arena",
            "tmem-catalog",
            "tmem-directory-1",
            "tmem-directory-2",
            "tmem-extents",
            "tmem-index-0",
            "tmem-index-1",
            "tmem-index-2",
            "tmem-shared",
            "tmem-tier"
        ]
    );
    let pool = store.client("disk").unwrap().pools().remove(0);
    store.detach();
    assert_eq!(put(&pool, 0, 1, 2), Err(PutError::Destroyed));
    drop((store, pool));
    assert_eq!(keeper.names(), names);
    let (store, _) = keeper.open(LIMIT);
    store.remove_client(&store.client("other").unwrap()).unwrap();
    assert_eq!(
        keeper.names(),
        ["tmem-arena", "tmem-catalog", "tmem-extents", "tmem-index-0", "tmem-shared", "tmem-tier"]
    );
    drop(store);
    assert_eq!(keeper.names(), [""; 0]);
}

#[test]
fn a_store_that_was_opened_again_compacts_and_evicts() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    let disk = store.create_client(client_options("disk", None)).unwrap();
    let pool = disk.create_pool(Persistence::Persistent, Keys::Flat { pages: 1 << 20 }).unwrap();
    let cache = store.create_client(client_options("cache", None)).unwrap();
    let cache = cache.create_pool(Persistence::Ephemeral, Keys::Sparse { max_pages: 1 << 20 }).unwrap();
    (0..1500).for_each(|i| put(&pool, 0, i, noise(i)).unwrap());
    (0..1500).for_each(|i| put(&cache, 1, i, noise(i)).unwrap());
    (0..1500).filter(|i| i % 4 != 0).for_each(|i| pool.flush_page(ObjectId(0), PageIndex(i)));
    store.detach();
    drop((store, disk, pool, cache));
    // The limit may be another one, and lower than what is held.
    let (store, recovery) = keeper.open(4 << 20);
    assert!(recovery.held_bytes > 8 << 20 && recovery.damaged_pages == 0);
    store.compact(Duration::from_secs(30));
    assert!(store.usage().held_bytes <= 4 << 20);
    let pool = store.client("disk").unwrap().pools().remove(0);
    (0..1500).step_by(4).for_each(|i| assert!(*get(&pool, 0, i).unwrap().unwrap() == page(noise(i))));
    assert_eq!(put(&pool, 0, 5000, noise(5)), Ok(()));
}

#[test]
fn names_and_numbers_that_were_free_are_free_again() {
    let (keeper, store) = filled();
    store.remove_client(&store.client("disk").unwrap()).unwrap();
    store.detach();
    drop(store);
    let (store, _) = keeper.open(LIMIT);
    assert!(store.client("disk").is_none());
    assert!(matches!(store.create_client(client_options("other", None)), Err(StoreError::NameTaken { .. })));
    let disk = store.create_client(client_options("disk", None)).unwrap();
    let pool = disk.create_pool(Persistence::Persistent, Keys::Flat { pages: 100 }).unwrap();
    assert_eq!(get(&pool, 0, 0), Ok(None));
    assert!(keeper.names().contains(&"tmem-index-0".to_owned()));
    let long = store.create_client(client_options(&"x".repeat(257), None));
    assert!(matches!(long, Err(StoreError::NameTooLong { .. })));
}

#[test]
fn r6_a_cap_holds_for_what_was_there_before() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    let client = store.create_client(client_options("a", Some(1 << 20))).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 10_000 }).unwrap();
    let full_at = (0..).find(|&i| put(&pool, 0, i, noise(i)).is_err()).unwrap();
    store.detach();
    drop((store, client, pool));
    let (store, _) = keeper.open(LIMIT);
    let pool = store.client("a").unwrap().pools().remove(0);
    assert_eq!(put(&pool, 0, full_at, noise(full_at)), Err(PutError::OverCap));
    pool.flush_page(ObjectId(0), PageIndex(3));
    assert_eq!(put(&pool, 0, full_at, noise(full_at)), Ok(()));
    assert_eq!(put(&pool, 0, full_at + 1, noise(full_at + 1)), Err(PutError::OverCap));
}

#[test]
fn ages_go_on_where_they_were() {
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(64 << 20);
    let client = store.create_client(client_options("a", None)).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 10_000 }).unwrap();
    (0..5000).for_each(|i| put(&pool, 0, i, text(i)).unwrap());
    store.detach();
    drop((store, client, pool));
    let (store, _) = keeper.open(64 << 20);
    let pool = store.client("a").unwrap().pools().remove(0);
    let Ok(Entry::Block(block)) = pool.index().load(IndexSlot(0)) else { panic!("no block") };
    let is_cold_after = |age_ms| pool.is_cold(IndexSlot(0), block, Cold::after(age_ms));
    assert!(!is_cold_after(3_600_000) && is_cold_after(0));
    for (page, distances) in [(0, 4900..=6144), (2500, 2400..=3072), (4999, 0..=160)] {
        let before = store.clients()[0].reuse_distances.clone();
        get(&pool, 0, page).unwrap();
        let since = store.clients()[0].reuse_distances.since(&before);
        assert_eq!(since.older_gets(), 0);
        let told = since.buckets().find(|(_, gets)| *gets > 0).unwrap().0;
        assert!(distances.contains(&told), "page {page}, {told} pages back");
    }
    // Another client in the same place begins anew.
    store.remove_client(&store.client("a").unwrap()).unwrap();
    drop(pool);
    let client = store.create_client(client_options("b", None)).unwrap();
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: 10_000 }).unwrap();
    put(&pool, 0, 1, 2).unwrap();
    store.detach();
    drop((store, client, pool));
    let (store, _) = keeper.open(64 << 20);
    let pool = store.client("b").unwrap().pools().remove(0);
    get(&pool, 0, 1).unwrap();
    let told = store.clients()[0].reuse_distances.buckets().find(|(_, gets)| *gets > 0).unwrap().0;
    assert_eq!(told, 64);
}

#[test]
fn files_that_cannot_be_right_are_named_and_nothing_is_touched() {
    let (keeper, store) = filled();
    store.detach();
    drop(store);
    for missing in keeper.names() {
        let files = keeper.files().into_iter().filter(|(name, _)| *name != missing).collect();
        assert!(matches!(refused(files, &keeper), StoreError::FileMissing { name } if name == missing));
    }
    for wrong in keeper.names() {
        // Of a wrong size; the same file as another one; no memory file.
        let small: OwnedFd = MemoryFile::create("x", 12288).unwrap().as_fd().try_clone_to_owned().unwrap();
        let other = keeper.files().into_iter().find(|(name, _)| *name != wrong).unwrap().1;
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for file in [small, other, null] {
            let mut files: Vec<_> = keeper.files().into_iter().filter(|(name, _)| *name != wrong).collect();
            files.push((wrong.clone(), file));
            assert!(matches!(refused(files, &keeper), StoreError::File { name, .. } if name == wrong));
        }
    }
    for extra in ["", "tmem-index-x", "tmem-arena-2"] {
        let mut files = keeper.files();
        files.push((extra.to_owned(), std::fs::File::open("/dev/null").unwrap().into()));
        assert!(matches!(refused(files, &keeper), StoreError::File { name, .. } if name == extra));
    }
    let mut files = keeper.files();
    files.push(("tmem-arena".to_owned(), std::fs::File::open("/dev/null").unwrap().into()));
    assert!(matches!(refused(files, &keeper), StoreError::File { .. }));
    let (store, recovery) = keeper.open(LIMIT);
    assert_eq!(recovery.found_pages, 3000);
    check(&store);
}

#[test]
fn the_files_of_a_pool_that_never_was_are_released() {
    let (keeper, store) = filled();
    store.detach();
    drop(store);
    let file = MemoryFile::create("tmem-index-77", 4096).unwrap();
    crate::FileKeeper::keep(&*keeper, "tmem-index-77", file.as_fd()).unwrap();
    let (store, recovery) = keeper.open(LIMIT);
    assert_eq!(recovery.leftover_files, 1);
    assert!(!keeper.names().contains(&"tmem-index-77".to_owned()));
    check(&store);
}

/// Opens the store again after something was done to one of its files.
fn reopen_after(
    keeper: &Arc<TestKeeper>,
    file: &str,
    change: impl FnOnce(&MemoryFile),
) -> (Arc<Store>, Recovery) {
    let (_, descriptor) = keeper.files().into_iter().find(|(name, _)| name == file).unwrap();
    let len = rustix::fs::fstat(&descriptor).unwrap().st_size as usize;
    change(&MemoryFile::open(descriptor, len).unwrap());
    keeper.open(LIMIT)
}

#[test]
fn r4_damage_to_the_table_of_extents_loses_nothing() {
    let (keeper, store) = filled();
    store.detach();
    drop(store);
    keeper.open(LIMIT).0.detach(); // what was open is repaired
    for cell in 0..3 {
        for flip in (0..16).map(|bit| 1 << bit).chain([0xffff]) {
            let (store, recovery) = reopen_after(&keeper, "tmem-extents", |file| {
                file.as_u16s()[cell].fetch_xor(flip, std::sync::atomic::Ordering::Relaxed);
            });
            assert_eq!((recovery.damaged_pages, recovery.repaired_extents), (0, 1), "cell {cell}, {flip:x}");
            check(&store);
            store.detach();
        }
    }
}

#[test]
fn r4_damage_to_an_index_is_an_error_for_that_page_only() {
    let (keeper, store) = filled();
    store.detach();
    drop(store);
    for bit in 0..64 {
        let flip = |file: &MemoryFile| {
            file.as_u64s()[2 << 17].fetch_xor(1 << bit, std::sync::atomic::Ordering::Relaxed);
        };
        let (store, recovery) = reopen_after(&keeper, "tmem-index-0", flip);
        assert_eq!((recovery.damaged_pages, recovery.found_pages), (1, 2999), "bit {bit}");
        let disk = store.client("disk").unwrap().pools().remove(0);
        assert_eq!(get(&disk, 0, 2 << 17), Err(GetError::Damaged));
        store.detach();
        drop((store, disk));
        let (store, _) = reopen_after(&keeper, "tmem-index-0", flip);
        check(&store);
        store.detach();
    }
}

/// Entries whose check is right and that point where they must not: into free extents, across an extent's end, at other pages'
/// blocks, into blocks, at ephemeral ones.
#[test]
fn r4_entries_that_point_nowhere_sensible_harm_nobody() {
    use crate::entry::{BlockRef, Entry};
    let (keeper, store) = filled();
    let disk = store.client("disk").unwrap().pools().remove(0);
    let cache = store.client("other").unwrap().pools().remove(1);
    let block = |pool: &crate::Pool, slot| match pool.index().load(IndexSlot(slot)) {
        Ok(Entry::Block(block)) => block,
        other => panic!("{other:?}"),
    };
    let (own, ephemeral) = (block(&disk, 2 << 17), block(&cache, 0));
    let at = |offset: u64, block_bytes| BlockRef { offset: crate::ids::ArenaOffset(offset), block_bytes };
    let wrong = [
        at(100 << 30, 64),
        at((128 << 10) - 8, 64),
        at((1 << 40) - 8, 4112),
        own,
        at(own.offset.0 + 8, 24),
        at(own.offset.0, 24),
        ephemeral,
    ];
    store.detach();
    drop((store, disk, cache));
    let (store, recovery) = reopen_after(&keeper, "tmem-index-0", |file| {
        for (slot, block) in (5..).zip(wrong) {
            file.as_u64s()[slot].store(Entry::Block(block).encode(), std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert!(recovery.damaged_pages >= 4, "{recovery:?}");
    check(&store);
    let disk = store.client("disk").unwrap().pools().remove(0);
    (5..12).for_each(|slot| assert_eq!(get(&disk, 0, slot), Err(GetError::Damaged), "slot {slot}"));
    // Forgetting them, and all that compaction and eviction do, leaves the others alone.
    (5..9).for_each(|slot| disk.flush_page(ObjectId(0), PageIndex(slot)));
    let filler = store.create_client(client_options("filler", None)).unwrap();
    let filler = filler.create_pool(Persistence::Persistent, Keys::Flat { pages: 1 << 16 }).unwrap();
    for round in 0..3 {
        (0..4000).for_each(|i| {
            let _may_be_refused = put(&filler, 0, (i * 7 + round) % 2000, noise(i));
        });
        store.compact(Duration::from_secs(10));
    }
    (9..12).for_each(|slot| disk.flush_page(ObjectId(0), PageIndex(slot)));
    for i in 0..1000 {
        assert!(*get(&disk, 0, i << 17).unwrap().unwrap() == page(i as u32), "page {i}");
    }
}

#[test]
fn r4_damage_to_the_catalog_takes_only_what_it_describes() {
    let (keeper, store) = filled();
    store.detach();
    drop(store);
    let flip = |word: usize| {
        move |file: &MemoryFile| {
            file.as_u64s()[word].fetch_xor(1 << 9, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let (_, descriptor) = keeper.files().into_iter().find(|(name, _)| name == "tmem-catalog").unwrap();
    let len = rustix::fs::fstat(&descriptor).unwrap().st_size as usize;
    let file = MemoryFile::open(descriptor, len).unwrap();
    flip(3)(&file);
    assert!(matches!(refused(keeper.files(), &keeper), StoreError::Layout { .. }));
    flip(3)(&file);
    // The first client's name.
    let (store, recovery) = reopen_after(&keeper, "tmem-catalog", flip(512 + 6));
    assert_eq!((recovery.damaged_records, recovery.clients, recovery.pools), (1, 1, 2));
    assert!(store.client("disk").is_none() && store.client("other").unwrap().pools().len() == 2);
}

#[test]
fn r4_damage_to_a_directory_never_shows_a_page_under_another_key() {
    for bit in [0, 63, 64 + 5, 128 + 3, 128 + 32] {
        let (keeper, store) = filled();
        store.detach();
        drop(store);
        let (store, recovery) = reopen_after(&keeper, "tmem-directory-1", |file| {
            file.as_u64s()[bit / 64].fetch_xor(1 << (bit % 64), std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(recovery.damaged_records, 1);
        assert!((1..=16).contains(&recovery.damaged_pages));
        let pool = store.client("other").unwrap().pools().remove(0);
        for i in 0..1000 {
            let got = get(&pool, u64::MAX - i % 5, wide(i)).unwrap();
            assert!(got.is_none_or(|found| *found == page(i as u32)));
        }
        // The leaf is given to others, and what stood in it is gone.
        (0..16).for_each(|i| assert_eq!(get(&pool, 77, i), Ok(None)));
        put(&pool, 77, 3, 3).unwrap();
        (0..16).filter(|i| *i != 3).for_each(|i| assert_eq!(get(&pool, 77, i), Ok(None)));
    }
}
