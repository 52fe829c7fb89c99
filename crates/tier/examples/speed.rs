//! How fast the tier is on a disk: writing, encryption, and reading in order and at random.
//!
//! `cargo run --release -p tmem-tier --example speed -- PATH [MIB]`; PATH is a file, which is made and removed again, or a block device.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program for people who measure")]

use std::{
    env,
    hint::black_box,
    time::{Duration, Instant},
};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierKey, TierWrite};
use tmem_tier::{FileTier, TierOptions};

/// A page that compressed to 0.4 of its size.
const BLOCK_BYTES: usize = 1640;

fn main() {
    let mut arguments = env::args_os().skip(1);
    let path = arguments.next().expect("the path of a file or device");
    let mib: u64 = arguments.next().map_or(1024, |mib| mib.to_str().unwrap().parse().unwrap());
    let options = TierOptions::new(&path, Some(mib << 20));
    let tier = FileTier::new(options).unwrap();
    tier.use_key(&TierKey([5; 32]));
    let extent: Vec<u8> = (0..TIER_EXTENT_BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let places = tier.places() / MAX_TIER_BATCH as u32 * MAX_TIER_BATCH as u32;

    encryption();
    for (pass, what) in ["new", "overwritten"].iter().enumerate() {
        let (cpu, start) = (cpu_time(), Instant::now());
        for first in (0..places).step_by(MAX_TIER_BATCH) {
            let copies: Vec<_> = (first..first + MAX_TIER_BATCH as u32)
                .map(|place| TierWrite::whole(copy(place, pass), &extent))
                .collect();
            tier.write(&copies).unwrap();
        }
        let mib = f64::from(places) * TIER_EXTENT_BYTES as f64 / f64::from(1 << 20);
        let (took, cpu) = (start.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
        println!("write, {what}: {:.0} MiB/s, {:.0} us of CPU a MiB", mib / took, cpu * 1e6 / mib);
    }

    let blocks = TIER_EXTENT_BYTES / BLOCK_BYTES;
    let mut random = 1u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    measure(&tier, "read, in order", (0..20_000).map(|at| ((at / blocks) as u32 % places, at % blocks)));
    let random: Vec<_> = (0..5_000).map(|_| (next(places as usize) as u32, next(blocks))).collect();
    measure(&tier, "read, at random", random.into_iter());
    // Guests' own read-ahead: 8 pages that stand side by side.
    let clusters: Vec<_> = (0..2_000)
        .map(|_| (next(places as usize) as u32, next(blocks - 8)))
        .flat_map(|(place, block)| (0..8).map(move |at| (place, block + at)))
        .collect();
    measure(&tier, "read, 8 at a time", clusters.into_iter());
    // Nearby but not in order: what a program touches of what was written with it.
    let copies: Vec<_> = (0..200).map(|_| next(places as usize) as u32).collect();
    let near: Vec<_> = (0..8000).map(|at| (copies[at / 40], next(blocks))).collect();
    measure(&tier, "read, 40 of a copy", near.into_iter());
    tier.clear();
    drop(tier);
    if std::fs::metadata(&path).unwrap().is_file() {
        std::fs::remove_file(&path).unwrap();
    }
}

/// The library alone, on what one sector holds.
fn encryption() {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[5; 32]).unwrap());
    let mut sector = vec![7; 4080];
    let (sectors, cpu) = (50_000u32, cpu_time());
    for number in 0..sectors {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&number.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::from([0; 20]), &mut sector).unwrap());
    }
    let cpu = (cpu_time() - cpu).as_secs_f64() * 1e6 / f64::from(sectors);
    println!("encryption alone: {cpu:.2} us a sector, {:.0} us a MiB", cpu * f64::from(1 << 20) / 4080.0);
}

fn copy(place: u32, pass: usize) -> TierCopy {
    TierCopy { place, writing: u64::from(place) + ((pass as u64) << 32) }
}

fn measure(tier: &FileTier, what: &str, blocks: impl Iterator<Item = (u32, usize)>) {
    let before = tier.counters();
    let cpu = cpu_time();
    let mut block = vec![0; BLOCK_BYTES];
    let mut times: Vec<Duration> = blocks
        .map(|(place, number)| {
            let start = Instant::now();
            tier.read(copy(place, 1), number * BLOCK_BYTES, &mut block).unwrap();
            black_box(&block);
            start.elapsed()
        })
        .collect();
    let cpu = cpu_time() - cpu;
    let after = tier.counters();
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    times.sort_unstable();
    println!(
        "{what}: mean {} us, p50 {} us, p99 {} us, {:.1} us of CPU; {:.2} reads of {:.0} KiB a block",
        mean.as_micros(),
        times[times.len() / 2].as_micros(),
        times[times.len() * 99 / 100].as_micros(),
        cpu.as_secs_f64() * 1e6 / times.len() as f64,
        (after.disk_reads - before.disk_reads) as f64 / times.len() as f64,
        (after.disk_read_bytes - before.disk_read_bytes) as f64
            / 1024.0
            / (after.disk_reads - before.disk_reads).max(1) as f64,
    );
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to a value that is valid for it.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
