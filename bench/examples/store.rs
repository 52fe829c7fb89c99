//! What the store holds for a file of real pages, and how long its operations take: one thread, straight calls.
//!
//! `cargo run --release -p tmem-bench --example store -- target/bench/corpus.pages`, after `bench/corpus`.

use std::{env, fs, time::Duration, time::Instant};

use anyhow::{Context, Result};
use tmem_store::{
    ClientKind, ClientOptions, Keys, ObjectId, PAGE_BYTES, PageIndex, Persistence, Pool, Store, StoreOptions,
};

const OBJECT: ObjectId = ObjectId(0);

fn main() -> Result<()> {
    let path = env::args().nth(1).context("give a file of pages; bench/corpus makes one")?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let (pages, _) = bytes.as_chunks::<PAGE_BYTES>();
    let count = pages.len() as u64;
    let store = Store::new(StoreOptions { limit_bytes: 64 << 30 })?;
    let options = ClientOptions {
        name: "bench".to_owned(),
        kind: ClientKind::Native,
        cap_bytes: None,
        dedup: if env::var("DEDUP_OFF").is_ok() { tmem_store::Dedup::Off } else { tmem_store::Dedup::Alone },
    };
    let pool =
        store.create_client(options)?.create_pool(Persistence::Persistent, Keys::Flat { pages: count })?;

    println!("{path}: {count} pages\n\n| step | us/page | held MiB | held : payload |\n|---|---|---|---|");
    let row = |step: &str, time: Duration, pages: u64| {
        let usage = store.usage();
        let us = time.as_secs_f64() * 1e6 / pages as f64;
        let payload = usage.compressed_bytes.max(1) as f64;
        let held = usage.held_bytes as f64;
        println!("| {step} | {us:.2} | {:.1} | {:.3} |", held / 1024.0 / 1024.0, held / payload);
    };
    row("put all", timed(|| put_all(&pool, pages, 0))?, count);
    row("get all, in random order", timed(|| get_all(&pool, count))?, count);
    row("put all again, each page to another place", timed(|| put_all(&pool, pages, count / 3))?, count);
    row("use huge pages", timed(|| huge(&store))?, count);
    row("get all, in random order", timed(|| get_all(&pool, count))?, count);
    let mostly = || (0..count).filter(|index| !scatter(*index).is_multiple_of(10));
    let flush = || {
        mostly().for_each(|index| pool.flush_page(OBJECT, PageIndex(index)));
        Ok(())
    };
    row("flush a random 90%", timed(flush)?, mostly().count() as u64);
    row("compact (time per page left)", timed(|| compact(&store))?, store.usage().stored_pages);
    Ok(())
}

fn timed(step: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    step()?;
    Ok(start.elapsed())
}

fn put_all(pool: &Pool, pages: &[[u8; PAGE_BYTES]], shift: u64) -> Result<()> {
    for (index, page) in (0..).zip(pages) {
        pool.put(OBJECT, PageIndex((index + shift) % pages.len() as u64), page.into())?;
    }
    Ok(())
}

fn get_all(pool: &Pool, count: u64) -> Result<()> {
    let mut order: Vec<u64> = (0..count).collect();
    order.sort_unstable_by_key(|index| scatter(*index));
    // As many targets as fit no cache: a guest's page is in none, either.
    let mut targets = vec![[0; PAGE_BYTES]; 4096];
    for (turn, index) in order.into_iter().enumerate() {
        let target = &mut targets[turn % 4096];
        pool.get(OBJECT, PageIndex(index), target.into())?;
    }
    Ok(())
}

fn huge(store: &Store) -> Result<()> {
    while store.make_huge_page() {}
    Ok(())
}

fn compact(store: &Store) -> Result<()> {
    while store.compact(Duration::from_secs(1)).emptied_extents > 0 {}
    Ok(())
}

/// Looks random, and is the same every time.
fn scatter(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}
