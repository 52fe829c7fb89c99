//! How long it takes to open a store again whose process died: one thread.
//!
//! `cargo run --release -p tmem-bench --example recovery -- [GIB [PAGES]]` fills a store with GIB of logical pages (64 unless told),
//! leaves it without any shutdown and opens its files. Without a file of PAGES each page compresses to about 140 bytes, so that 64 GiB
//! of them fit into 3 GiB; with one its pages are taken in turn, which takes about half of GIB.

use std::{
    env, fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tmem_store::{
    ClientKind, ClientOptions, FileKeeper, Got, Keys, ObjectId, PAGE_BYTES, PageIndex, Persistence, Pool,
    Store, StoreOptions,
};

const OBJECT: ObjectId = ObjectId(0);
const PAGES_PER_GIB: u64 = (1 << 30) / PAGE_BYTES as u64;

/// What stays free for the rest of the machine.
const SPARE_BYTES: u64 = 1 << 30;

/// Pages that are put one after the other: a guest swaps in clusters, which lie anywhere on its disk.
const CLUSTER_PAGES: u64 = 8;

/// After so many pages one is compared.
const COMPARE_EVERY: u64 = 1009;

/// Where pages come from.
enum Source {
    Small,
    File(Vec<[u8; PAGE_BYTES]>),
}

impl Source {
    fn page(&self, index: u64, page: &mut [u8; PAGE_BYTES]) {
        match self {
            // 112 bytes that do not compress, and zeroes.
            Source::Small => {
                let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for chunk in page[..112].chunks_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    chunk.copy_from_slice(&state.to_le_bytes());
                }
            }
            Source::File(pages) => {
                *page = pages[(index % pages.len() as u64) as usize];
                // No two pages are the same.
                page[..8].copy_from_slice(&index.to_le_bytes());
            }
        }
    }

    /// What a page takes, roughly, with its index entry.
    fn bytes_per_page(&self) -> u64 {
        match self {
            Source::Small => 176,
            Source::File(_) => PAGE_BYTES as u64 / 2,
        }
    }
}

/// Holds the store's files, as a second process would.
#[derive(Default)]
struct Keeper(Mutex<Vec<(String, OwnedFd)>>);

impl FileKeeper for Keeper {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        let file = file.try_clone_to_owned()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), file));
        Ok(())
    }

    fn release(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| other != name);
    }
}

fn main() -> Result<()> {
    let gib: u64 = env::args().nth(1).map_or(Ok(64), |gib| gib.parse()).context("GIB must be a number")?;
    let source = match env::args().nth(2) {
        None => Source::Small,
        Some(path) => {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            let pages = bytes.as_chunks::<PAGE_BYTES>().0.to_vec();
            ensure!(!pages.is_empty(), "{path} holds no page");
            Source::File(pages)
        }
    };
    ensure!((1..=1024).contains(&gib), "GIB must be 1 to 1024");
    let count = gib * PAGES_PER_GIB;
    let needed = count * source.bytes_per_page();
    let available = available_bytes()?;
    if needed + SPARE_BYTES > available {
        bail!(
            "{gib} GiB of such pages need {} MiB and {} MiB are available: give a smaller GIB",
            needed >> 20,
            available >> 20
        );
    }

    let keeper = Arc::new(Keeper::default());
    let options = StoreOptions { limit_bytes: needed };
    let store = Store::new_kept(options.clone(), keeper.clone())?;
    let client = ClientOptions {
        name: "bench".to_owned(),
        kind: ClientKind::Native,
        cap_bytes: None,
        weight: tmem_store::Weight::default(),
        dedup: tmem_store::Dedup::Alone,
    };
    let client = store.create_client(client)?;
    let pool = client.create_pool(Persistence::Persistent, Keys::Flat { pages: count })?;
    let start = Instant::now();
    put_all(&pool, &source, count)?;
    let put_time = start.elapsed();
    let held = store.usage().held_bytes;
    // Nothing of it is told to go.
    std::mem::forget((store, client, pool));

    let files = {
        let kept = keeper.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .map(|(name, file)| Ok((name.clone(), file.try_clone()?)))
            .collect::<io::Result<Vec<_>>>()?
    };
    let start = Instant::now();
    let (store, recovery) = Store::open(files, options, Some(keeper))?;
    let open_time = start.elapsed();
    let start = Instant::now();
    while store.tend_dedup(Duration::from_secs(1)) {}
    let dedup_time = start.elapsed();

    let found = compare(&store, &source, count)?;
    ensure!(recovery.found_pages == count, "only {} of {count} pages were found", recovery.found_pages);
    println!("{count} pages ({gib} GiB), {} MiB held, put in {:.1} s", held >> 20, put_time.as_secs_f64());
    println!(
        "{found} pages compared, extents repaired: {}\n\n| phase | ms |\n|---|---|",
        recovery.repaired_extents
    );
    let row = |phase: &str, time: Duration| println!("| {phase} | {:.1} |", time.as_secs_f64() * 1e3);
    row("map files, read catalog and directories", recovery.mapping_time);
    row("read indexes", recovery.index_time);
    row("derive the state of extents", recovery.extent_time);
    row("all of opening", open_time);
    row("let pages be found by their contents, in the background", dedup_time);
    Ok(())
}

fn put_all(pool: &Pool, source: &Source, count: u64) -> Result<()> {
    let clusters = count / CLUSTER_PAGES;
    let mut page = [0; PAGE_BYTES];
    for turn in 0..clusters {
        // By a large prime, so that every cluster has its turn.
        let cluster = turn.wrapping_mul(0x9e37_79b1) % clusters;
        for index in cluster * CLUSTER_PAGES..(cluster + 1) * CLUSTER_PAGES {
            source.page(index, &mut page);
            pool.put(OBJECT, PageIndex(index), (&page).into())?;
        }
    }
    Ok(())
}

/// Compares some pages with what was put.
fn compare(store: &Store, source: &Source, count: u64) -> Result<u64> {
    let client = store.client("bench").context("the client is gone")?;
    let pool = client.pools().pop().context("the pool is gone")?;
    let (mut expected, mut found) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
    let mut compared = 0;
    for index in (0..count).step_by(COMPARE_EVERY as usize) {
        source.page(index, &mut expected);
        let got = pool.get(OBJECT, PageIndex(index), (&mut found).into())?;
        ensure!(got == Got::Page && found == expected, "page {index} is not what was put");
        compared += 1;
    }
    Ok(compared)
}

fn available_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).map(|kib| kib.trim().parse::<u64>());
    Ok(kib.context("/proc/meminfo does not say what is available")?? << 10)
}
