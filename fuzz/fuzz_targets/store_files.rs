//! Memory files of a store with any words in them: opening them, and going on with what is found.
//!
//! The input is a list of words and of where they are written. A page that is found is one of its own dedup domain; clients that come
//! afterwards find what they put, and nothing else. Among the words are entries whose check fits.
#![no_main]

mod store_rig;

use std::{cell::RefCell, sync::Arc, time::Duration};

use libfuzzer_sys::fuzz_target;
use store_rig::{
    FILLED, Filled, Original, PAGES, create_client, create_pool, get, page, put, seed, words::Write,
};
use tmem_store::{ObjectId, PageIndex, Pool, RecompressionOptions, Store, StoreError};

thread_local!(static ORIGINAL: RefCell<Original> = RefCell::new(Original::new()));

/// Everything is quick: this only ends what would go on for ever.
const LONG: Duration = Duration::from_secs(5);

/// Nothing of another domain is found, in every n-th page.
fn check_found(store: &Store, step: usize) {
    for filled in &FILLED {
        for pool in pools(store, filled) {
            for index in (0..PAGES).step_by(step) {
                let Some(found) = get(&pool, index) else { continue };
                let is = |index| *found == *page(seed(filled.domain, index));
                assert!(is(index) || (0..PAGES).any(is), "{} has a foreign page {index}", filled.name);
            }
        }
    }
}

fn pools(store: &Store, filled: &Filled) -> Vec<Arc<Pool>> {
    store.client(filled.name).map(|client| client.pools()).unwrap_or_default()
}

fn check_own(pool: &Pool, seed: impl Fn(u64) -> u32) {
    for index in 0..PAGES {
        if let Some(found) = get(pool, index) {
            assert!(*found == *page(seed(index)), "{index} is another page");
        }
    }
}

fn go_on(store: &Store, choices: u8) {
    check_found(store, 1);
    // One in a domain of its own, one in a domain that was there: it puts some pages that are there, too.
    let new_seed = |index| 10_000 + (index * 5 + 3) as u32;
    let (Ok(alone), Ok(web)) = (create_client(store, "new", 0), create_client(store, "web-3", 3)) else {
        return;
    };
    let (Ok(alone), Ok(web)) = (create_pool(&alone, true), create_pool(&web, true)) else { return };
    // All pages do not fit.
    for index in (0..PAGES).step_by(if choices & 1 == 0 { 5 } else { 1 }) {
        if put(&alone, index, new_seed(index)) {
            assert!(*get(&alone, index).expect("it was just put") == *page(new_seed(index)));
        }
        put(&web, index, seed(3, index));
    }
    if choices & 2 != 0 {
        store.compact(LONG);
    }
    if choices & 4 != 0 {
        store.recompress(LONG);
    }
    if choices & 8 != 0 {
        store.write_back(LONG);
        store.clean_tier(LONG);
    }
    if choices & 16 != 0 {
        store.tend_ages(LONG);
        store.tend_dedup(LONG);
    }
    for filled in &FILLED {
        for pool in pools(store, filled) {
            let _ = pool.look(ObjectId(0), 0..PAGES);
            pool.flush_page(ObjectId(0), PageIndex(3));
            pool.flush_range(ObjectId(0), 5..20);
            if choices & 32 != 0 {
                pool.flush_object(ObjectId(0));
            }
            // What they had is what they have, and nobody else does.
            for index in 0..8 {
                put(&pool, index, seed(filled.domain, index));
            }
        }
    }
    check_own(&alone, new_seed);
    check_own(&web, |index| seed(3, index));
    check_found(store, 3);
    let _ = store.snapshot();
    if choices & 64 != 0 {
        for filled in &FILLED {
            store.client(filled.name).map(|client| store.remove_client(&client));
        }
        check_own(&alone, new_seed);
        check_own(&web, |index| seed(3, index));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choices, rest)) = input.split_first() else { return };
    ORIGINAL.with_borrow(|original| {
        let files = original.files();
        let (writes, _) = rest.as_chunks::<{ Write::BYTES }>();
        for write in writes.iter().take(64).filter_map(|bytes| Write::read(bytes)) {
            files.write(&write);
        }
        let names = files.names();
        match original.open(&files) {
            Ok(store) => {
                let always = RecompressionOptions { enabled: true, age: Duration::ZERO, level: 1 };
                store.set_recompression(always).expect("a level");
                go_on(&store, *choices);
            }
            Err(StoreError::Layout { .. }) => assert_eq!(files.names(), names, "a file was released"),
            Err(error) => panic!("{error}"),
        }
    });
});
