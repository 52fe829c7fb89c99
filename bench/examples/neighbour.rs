//! What a noisy neighbour does to gets, in one store and without sockets: one client gets its pages, one at a time in random order, and
//! another puts pages that do not compress as fast as one thread can.
//!
//! `cargo run --release -p tmem-bench --example neighbour -- target/bench/corpus.pages [FILE-FOR-A-TIER]` (`bench/corpus` makes the
//! pages.) Rounds alternate: nobody puts; the neighbour puts into another store, so that the two share nothing but the machine; it puts into the same one, which is
//! full nearly all of the time. With a tier, write-back runs as in the daemon; so does other background work, within a fifth of a CPU. Every
//! page is compared in the end.

use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tmem_bench::random::Random;
use tmem_store::{
    ClientKind, ClientOptions, Dedup, Got, Keys, ObjectId, PageIndex, Persistence, Pool, StockKeeper, Store,
    StoreOptions, Weight,
};
use tmem_tier::{FileTier, TierOptions};

const PAGE_BYTES: usize = 4096;
const LIMIT_BYTES: u64 = 256 << 20;
/// What the neighbour writes, over and over.
const NOISE_PAGES: u64 = (1 << 30) / PAGE_BYTES as u64;
/// What the other client has, before it is compressed.
const READ_PAGES: u64 = (192 << 20) / PAGE_BYTES as u64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
/// Gets between two looks at the clock that ends a round.
const GETS_PER_LOOK: usize = 64;

const OBJECT: ObjectId = ObjectId(0);

type Page = [u8; PAGE_BYTES];

/// Where the neighbour puts its pages.
const NOWHERE: u8 = 0;
const ELSEWHERE: u8 = 1;
const HERE: u8 = 2;

/// What goes on beside the gets.
#[derive(Default)]
struct Beside {
    noise: AtomicU8,
    ends: AtomicBool,
    put: AtomicU64,
    refused: AtomicU64,
}

fn client(store: &Arc<Store>, name: &str, pages: u64) -> Result<Arc<Pool>> {
    let options = ClientOptions {
        name: name.to_owned(),
        kind: ClientKind::Native,
        cap_bytes: None,
        weight: Weight::default(),
        dedup: Dedup::Off,
    };
    Ok(store.create_client(options)?.create_pool(Persistence::Persistent, Keys::Flat { pages })?)
}

/// Puts pages of random bytes while it is told to.
fn make_noise(here: &Pool, elsewhere: &Pool, beside: &Beside) {
    let mut random = Random::new(1);
    let mut page = [0u8; PAGE_BYTES];
    page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.number().to_ne_bytes()));
    for index in (0..NOISE_PAGES).cycle() {
        let pool = loop {
            match beside.noise.load(Ordering::Acquire) {
                HERE => break here,
                ELSEWHERE => break elsewhere,
                _ if beside.ends.load(Ordering::Acquire) => return,
                _ => thread::sleep(Duration::from_millis(1)),
            }
        };
        // As random as if all of it were new, for codecs that look at one page.
        let at = (index % 512) as usize * 8;
        page[at..at + 8].copy_from_slice(&random.number().to_ne_bytes());
        let is_here = std::ptr::eq(pool, here);
        let counter = match pool.put(OBJECT, PageIndex(index), (&page).into()) {
            Ok(_) => &beside.put,
            Err(_) => &beside.refused,
        };
        counter.fetch_add(u64::from(is_here), Ordering::Relaxed);
    }
}

/// Compaction and recompression within a fifth of a CPU.
fn maintain(store: &Store, beside: &Beside) {
    while !beside.ends.load(Ordering::Acquire) {
        let start = Instant::now();
        store.tend_ages(Duration::from_millis(5));
        store.compact(Duration::from_millis(5));
        store.recompress(Duration::from_millis(5));
        thread::sleep((start.elapsed() * 4).max(Duration::from_millis(20)));
    }
}

fn write_back(store: &Store, beside: &Beside) {
    while !beside.ends.load(Ordering::Acquire) {
        store.wait_until_write_back_is_wanted(Duration::from_millis(10));
        store.write_back(Duration::from_millis(500));
        store.clean_tier(Duration::from_millis(100));
    }
    store.end_write_back();
}

/// Gets pages in random order for as long as a round is; the times are in nanoseconds.
fn get(pool: &Pool, random: &mut Random, times: &mut Histogram<u64>) -> Result<()> {
    let mut page = [0u8; PAGE_BYTES];
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        for _ in 0..GETS_PER_LOOK {
            let index = PageIndex(random.below(READ_PAGES));
            let start = Instant::now();
            let got = pool.get(OBJECT, index, (&mut page).into())?;
            times.saturating_record(start.elapsed().as_nanos() as u64);
            ensure!(matches!(got, Got::Page), "page {} is not there", index.0);
        }
    }
    Ok(())
}

/// What the reader has at a place: a page of the file, with its number.
fn content(pages: &[u8], index: u64) -> Page {
    let at = index as usize * PAGE_BYTES % pages.len();
    let mut page = [0u8; PAGE_BYTES];
    page.copy_from_slice(&pages[at..at + PAGE_BYTES]);
    page[1600..1608].copy_from_slice(&index.to_ne_bytes());
    page
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let file = arguments.first().context("usage: neighbour PAGES-FILE [FILE-FOR-A-TIER]")?;
    let mut pages = fs::read(file).with_context(|| format!("cannot read {file}"))?;
    pages.truncate(pages.len() / PAGE_BYTES * PAGE_BYTES);
    ensure!(!pages.is_empty(), "{file} has no whole page");
    let store = Store::new(StoreOptions { limit_bytes: LIMIT_BYTES })?;
    let other = Store::new(StoreOptions { limit_bytes: LIMIT_BYTES })?;
    if let Some(path) = arguments.get(1) {
        let options = TierOptions::new(Path::new(path), Some(4 << 30));
        let tier = Arc::new(FileTier::new(options)?);
        tier.clear();
        store.attach_tier(tier)?;
    }
    let stock = |store: &Arc<Store>| StockKeeper::start(Arc::clone(store), || u64::MAX);
    let _stocks = (stock(&store)?, stock(&other)?);
    let (reader, noisy) = (client(&store, "reader", READ_PAGES)?, client(&store, "noisy", NOISE_PAGES)?);
    let elsewhere = client(&other, "noisy", NOISE_PAGES)?;
    for index in 0..READ_PAGES {
        let page = content(&pages, index);
        reader
            .put(OBJECT, PageIndex(index), (&page).into())
            .with_context(|| format!("put of page {index}"))?;
    }
    let beside = Beside::default();
    let new_times = || Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3);
    let mut times = [
        (NOWHERE, "alone", new_times()?),
        (ELSEWHERE, "beside it", new_times()?),
        (HERE, "in one store with it", new_times()?),
    ];
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| make_noise(&noisy, &elsewhere, &beside));
        scope.spawn(|| maintain(&store, &beside));
        if arguments.len() > 1 {
            scope.spawn(|| write_back(&store, &beside));
        }
        let mut random = Random::new(7);
        let result = (0..ROUNDS).try_for_each(|_| {
            times.iter_mut().try_for_each(|(noise, _, times)| {
                beside.noise.store(*noise, Ordering::Release);
                get(&reader, &mut random, times)
            })
        });
        beside.noise.store(NOWHERE, Ordering::Release);
        beside.ends.store(true, Ordering::Release);
        result
    })?;
    let mut page = [0u8; PAGE_BYTES];
    for index in 0..READ_PAGES {
        reader.get(OBJECT, PageIndex(index), (&mut page).into())?;
        ensure!(page == content(&pages, index), "page {index} came back wrong");
    }
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let p99 = |times: &Histogram<u64>| times.value_at_quantile(0.99) as f64;
    println!(
        "| gets | mean us | p50 us | p99 us | p99.9 us | most us | p99 : alone |\n|---|---|---|---|---|---|---|"
    );
    for (_, name, own) in &times {
        let [p50, p99_us, p999] = [0.5, 0.99, 0.999].map(|part| us(own.value_at_quantile(part)));
        let (mean, most, ratio) = (own.mean() / 1000.0, us(own.max()), p99(own) / p99(&times[0].2));
        println!("| {name} | {mean:.2} | {p50:.2} | {p99_us:.2} | {p999:.2} | {most:.0} | {ratio:.2} |");
    }
    let (put, refused) = (beside.put.load(Ordering::Relaxed), beside.refused.load(Ordering::Relaxed));
    let usage = store.clients().into_iter().find(|usage| usage.name == "reader").context("no reader")?;
    println!(
        "\nthe neighbour put {put} pages into the same store, {refused} were refused; {} of the reader's {READ_PAGES} are in the tier",
        usage.tiered_pages,
    );
    Ok(())
}
