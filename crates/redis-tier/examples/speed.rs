//! How fast the Redis tier is beside the file tier, and how much memory the server needs. Blocks of 24 to 4112 bytes, mostly some 1400, as
//! compressed pages are.
//!
//! ```sh
//! redis-server --port 7777 --save "" &
//! cargo run --release -p tmem-redis-tier --example speed -- redis://127.0.0.1:7777 /var/tmp/tier
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement: it may end where it can't go on")]

use std::{
    env, fs,
    time::{Duration, Instant},
};

use tmem_redis_tier::{RedisTier, RedisTierOptions};
use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierKey, TierRun, TierWrite};
use tmem_tier::{FileTier, TierOptions};

const EXTENTS: u32 = 4096;
const READS: usize = 20_000;

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below
    }

    /// The size of a block: the mean of three is nearer to the middle than one is.
    fn block_bytes(&mut self) -> u32 {
        let sum: usize = (0..3).map(|_| self.below(936)).sum();
        (24 + sum / 8 * 8) as u32
    }
}

fn copy(place: u32) -> TierCopy {
    TierCopy { place, writing: 1 + u64::from(place) }
}

fn main() {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().expect("the address of a server");
    let path = arguments.next().expect("the path of a file");
    let mut random = Random(1);
    let extent: Vec<u8> = (0..TIER_EXTENT_BYTES).map(|_| random.below(256) as u8).collect();
    let mut blocks: Vec<TierRun> = Vec::new();
    loop {
        let start = blocks.last().map_or(0, |last| last.start + last.bytes);
        let bytes = random.block_bytes();
        if start + bytes > TIER_EXTENT_BYTES as u32 {
            break;
        }
        blocks.push(TierRun { start, bytes });
    }
    let needed_bytes: u32 = blocks.iter().map(|run| run.bytes).sum();
    println!(
        "{EXTENTS} extents of {} blocks, {} bytes each on average",
        blocks.len(),
        needed_bytes as usize / blocks.len()
    );

    let before = used_memory(&url);
    let redis =
        RedisTier::new(RedisTierOptions::new(url.parse().expect("an address"), 4 << 30)).expect("a tier");
    redis.use_key(&TierKey([5; 32]));
    measure("redis", &redis, &extent, &blocks);
    let needed = u64::from(needed_bytes) * u64::from(EXTENTS);
    let more = used_memory(&url) - before;
    println!(
        "redis: {more} bytes of memory for {needed} of blocks: {:.1}% more",
        more as f64 / needed as f64 * 100.0 - 100.0
    );
    redis.clear();
    let file = FileTier::new(TierOptions::new(&path, Some(2 << 30))).expect("a tier");
    file.use_key(&TierKey([5; 32]));
    measure("file", &file, &extent, &blocks);
    drop(file);
    fs::remove_file(&path).expect("the file was there");
}

fn used_memory(url: &str) -> u64 {
    let mut connection = redis::Client::open(url).expect("an address").get_connection().expect("a server");
    let info: String = redis::cmd("INFO").arg("memory").query(&mut connection).expect("an answer");
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("its memory");
    used.trim().parse().expect("a number")
}

fn measure(name: &str, tier: &dyn Tier, extent: &[u8], blocks: &[TierRun]) {
    let start = Instant::now();
    for first in (0..EXTENTS).step_by(MAX_TIER_BATCH) {
        let writes: Vec<_> = (first..first + MAX_TIER_BATCH as u32)
            .map(|place| TierWrite { copy: copy(place), extent, needed: blocks })
            .collect();
        tier.write(&writes).expect("written");
    }
    let mib = f64::from(EXTENTS) * TIER_EXTENT_BYTES as f64 / f64::from(1 << 20);
    println!("{name}: write {:.0} MiB/s", mib / start.elapsed().as_secs_f64());

    let mut random = Random(7);
    let alone: Vec<_> =
        (0..READS).map(|_| (random.below(EXTENTS as usize) as u32, random.below(blocks.len()))).collect();
    read(name, "a block at random", tier, extent, blocks, &alone);
    let rows: Vec<_> = (0..READS / 8)
        .map(|_| (random.below(EXTENTS as usize) as u32, random.below(blocks.len() - 8)))
        .flat_map(|(place, block)| (0..8).map(move |at| (place, block + at)))
        .collect();
    read(name, "8 neighbours in turn, each", tier, extent, blocks, &rows);
}

fn read(name: &str, what: &str, tier: &dyn Tier, extent: &[u8], blocks: &[TierRun], wanted: &[(u32, usize)]) {
    let mut times: Vec<Duration> = wanted
        .iter()
        .map(|&(place, block)| {
            let run = blocks[block];
            let mut into = vec![0; run.bytes as usize];
            let start = Instant::now();
            tier.read(copy(place), run.start as usize, &mut into).expect("read");
            let took = start.elapsed();
            assert!(into == extent[run.start as usize..(run.start + run.bytes) as usize]);
            took
        })
        .collect();
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000].as_micros();
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    println!(
        "{name}: {what}: mean {} us, p50 {}, p99 {}, p99.9 {}",
        mean.as_micros(),
        at(500),
        at(990),
        at(999)
    );
}
