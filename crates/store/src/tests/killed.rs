//! A process with several threads is killed at a random moment, again and again; the next one opens its files.
//!
//! The process is this test's own program, started anew to run `child`; it reaches the files through `/proc`. What it was told is
//! accepted it notes in a memory file of its own. `TMEM_KILLS=N` kills so often.

use std::{
    env,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::pages::{TestKeeper, client_options, get, page, put};
use crate::{
    ClientOptions, Dedup, GetError, Keys, ObjectId, PageIndex, Persistence, Pool, PutError, Store,
    StoreOptions, memory_file::MemoryFile,
};

const LIMIT: u64 = 6 << 20;
const PAGES: u64 = 1500;
/// Pool 0: a disk. Pool 1: many objects. Pool 2: a cache. Pools 3 and 4: disks of two clients in one dedup domain.
const POOLS: u64 = 5;
const THREADS: u64 = 3;
const FILES: &str = "TMEM_TEST_FILES";
const LOG: &str = "tmem-test-log";
const LOG_BYTES: usize = 1 << 16;

/// What a key holds, in the log: nothing, a refused put, or the page of a seed, plus 2.
const ABSENT: u64 = 0;
const REFUSED: u64 = 1;

/// A key's cell: what it holds, and what an operation that goes on wants it to hold.
fn cell(log: &MemoryFile, pool: u64, index: u64) -> &AtomicU64 {
    &log.as_u64s()[(pool * PAGES + index) as usize]
}

fn key(pool: u64, index: u64) -> (u64, u64) {
    if matches!(pool, 1 | 2) { (index % 7, index) } else { (0, index) }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
}

fn pools(store: &Store) -> Vec<Arc<Pool>> {
    (0..POOLS).map(|pool| store.client(&format!("c{pool}")).unwrap().pools().remove(0)).collect()
}

/// Works on its own share of the pages until the process is killed.
fn work(pools: &[Arc<Pool>], log: &MemoryFile, thread: u64, mut state: u64) {
    loop {
        let pool = random(&mut state) % POOLS;
        let index = random(&mut state) % (PAGES / THREADS) * THREADS + thread;
        let (object, page_index) = key(pool, index);
        let (cell, target) = (cell(log, pool, index), &pools[pool as usize]);
        let before = cell.load(Ordering::Relaxed) as u32;
        // Clients in one domain store few contents, which they share.
        let contents = if pool > 2 { 200 } else { 1 << 30 };
        let wanted =
            if random(&mut state).is_multiple_of(4) { ABSENT } else { 2 + random(&mut state) % contents };
        cell.store(wanted << 32 | u64::from(before), Ordering::SeqCst);
        let now = if wanted == ABSENT {
            target.flush_page(ObjectId(object), PageIndex(page_index));
            ABSENT
        } else {
            match put(target, object, page_index, (wanted - 2) as u32) {
                Ok(()) => wanted,
                Err(PutError::Full | PutError::OverShare) => REFUSED,
                Err(error) => panic!("{error}"),
            }
        };
        cell.store(now << 32 | now, Ordering::SeqCst);
    }
}

/// What the killed process does.
#[test]
#[ignore = "a part of the test below, which starts it in a process of its own"]
fn child() {
    let Ok(files) = env::var(FILES) else { return };
    let open = |file: &str| {
        let (name, path) = file.split_once('=').unwrap();
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        (name.to_owned(), OwnedFd::from(file))
    };
    let (logs, files): (Vec<_>, Vec<_>) = files.split(',').map(open).partition(|(name, _)| name == LOG);
    let log = MemoryFile::open(logs.into_iter().next().unwrap().1, LOG_BYTES).unwrap();
    let (store, recovery) = Store::open(files, StoreOptions { limit_bytes: LIMIT }, None).unwrap();
    assert_eq!((recovery.damaged_pages, recovery.damaged_records), (0, 0), "{recovery:?}");
    let pools = pools(&store);
    let started = log.as_u64s().last().unwrap();
    let seed = started.fetch_add(1, Ordering::SeqCst) + 1;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pools, log) = (&pools, &log);
            scope.spawn(move || work(pools, log, thread, seed * 77 + thread));
        }
        loop {
            store.compact(Duration::from_millis(1));
            store.tend_dedup(Duration::from_millis(1));
            thread::yield_now();
        }
    });
}

/// Compares every page with the log, and enters what was found where the child could not say.
fn check(store: &Store, log: &MemoryFile) -> u64 {
    let mut pages = 0;
    for (pool, target) in pools(store).iter().enumerate() {
        for index in 0..PAGES {
            let (object, page_index) = key(pool as u64, index);
            let cell = cell(log, pool as u64, index);
            let bits = cell.load(Ordering::Relaxed);
            let (wanted, before) = (bits >> 32, bits & 0xffff_ffff);
            let got = get(target, object, page_index);
            let is = |known: u64| match &got {
                Ok(None) => known <= REFUSED || pool == 2,
                Ok(Some(found)) => known >= 2 && **found == page((known - 2) as u32),
                // A put that goes on may have forgotten what it replaces, and one that was refused has.
                Err(GetError::Refused) => known == REFUSED || wanted >= 2 && wanted != before,
                Err(error) => panic!("pool {pool}, page {index}: {error}"),
            };
            assert!(is(before) || is(wanted), "pool {pool}, page {index}: {before} or {wanted}, got {got:?}");
            let now = match got {
                Ok(None) => ABSENT,
                Ok(Some(_)) => {
                    if is(before) {
                        before
                    } else {
                        wanted
                    }
                }
                Err(_) => REFUSED,
            };
            cell.store(now << 32 | now, Ordering::Relaxed);
            pages += u64::from(now >= 2);
        }
    }
    pages
}

#[test]
fn r1_r2_r3_a_process_that_is_killed_loses_nothing() {
    let kills: u64 = env::var("TMEM_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    let keeper = Arc::<TestKeeper>::default();
    let store = keeper.store(LIMIT);
    for number in 0..POOLS {
        let dedup = if number > 2 { Dedup::Domain("web".to_owned()) } else { Dedup::Alone };
        let options = ClientOptions { dedup, ..client_options(&format!("c{number}"), None) };
        let client = store.create_client(options).unwrap();
        let is_sparse = matches!(number, 1 | 2);
        let keys = if is_sparse { Keys::Sparse { max_pages: 1 << 16 } } else { Keys::Flat { pages: PAGES } };
        let kind = if number == 2 { Persistence::Ephemeral } else { Persistence::Persistent };
        client.create_pool(kind, keys).unwrap();
    }
    store.detach();
    drop(store);
    let log = MemoryFile::create(LOG, LOG_BYTES).unwrap();
    let started = log.as_u64s().last().unwrap();
    let (mut state, mut shared_pages) = (4711, 0);
    for kill in 1..=kills {
        let files = keeper.files();
        let path = |name: &str, file: i32| format!("{name}=/proc/{}/fd/{file}", std::process::id());
        let mut paths: Vec<_> = files.iter().map(|(name, file)| path(name, file.as_raw_fd())).collect();
        paths.push(path(LOG, log.as_fd().as_raw_fd()));
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "tests::killed::child", "--ignored", "--nocapture"])
            .env(FILES, paths.join(","))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Instant::now();
        while started.load(Ordering::SeqCst) < kill {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            assert!(patience.elapsed() < Duration::from_secs(60), "the child did not start");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random(&mut state) % 60_000));
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let (store, recovery) = keeper.open(LIMIT);
        assert_eq!((recovery.damaged_pages, recovery.damaged_records), (0, 0), "{recovery:?}");
        let pages = check(&store, &log);
        assert_eq!(store.usage().stored_pages, pages);
        shared_pages += store.clients().iter().skip(3).map(|client| client.dedup_pages).sum::<u64>();
        assert!(pages > 0 && recovery.repaired_extents <= 3 + 2 * THREADS + 2, "{recovery:?}");
        store.detach();
    }
    assert!(shared_pages > 0, "nothing was ever shared");
    // r7: what was shared when processes died goes back like everything else.
    let (store, _) = keeper.open(LIMIT);
    pools(&store).iter().for_each(|pool| (0..7).for_each(|object| pool.flush_object(ObjectId(object))));
    let usage = store.usage();
    assert_eq!((usage.used_bytes, usage.held_bytes, usage.stored_pages), (0, 0, 0));
}
