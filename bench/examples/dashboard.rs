//! What the dashboard's history and its charts cost when a whole day is there. `bench/dashboard` runs it.
//!
//! Reads a status document from stdin, has a dashboard see it for a day with numbers that change, and prints as JSON what that took.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;
use tmem_bench::random::Random;
use tmem_control::{Dashboard, DashboardSpan, Status, WholeHost};

/// From one look to the next, as in the daemon.
const EVERY: Duration = Duration::from_secs(5);
/// A day and a bit.
const LOOKS: u32 = 86_400 / 5 + 1_000;
const REPEATS: u32 = 20;

fn main() -> Result<()> {
    let mut status: Status = serde_json::from_reader(io::stdin()).context("stdin: not a status document")?;
    let host = WholeHost::read()?;
    let mut random = Random::new(1);
    let dashboard = Dashboard::default();
    let mut record = Duration::ZERO;
    let resident_before = resident_bytes()?;
    for look in 0..LOOKS {
        change(&mut status, &mut random);
        let start = Instant::now();
        dashboard.record(EVERY * look, &status, host);
        record += start.elapsed();
    }
    let history_bytes = resident_bytes()?.saturating_sub(resident_before);
    let mut found = json!({
        "clients": status.clients.len(),
        "guests": status.balance.as_ref().map_or(0, |balance| balance.guests.len()),
        "history_bytes": history_bytes,
        "record_us": record.as_secs_f64() * 1e6 / f64::from(LOOKS),
    });
    for (name, span) in [("hour", DashboardSpan::Hour), ("day", DashboardSpan::Day)] {
        let (mut drawn, mut again, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
        for repeat in 0..REPEATS {
            change(&mut status, &mut random);
            dashboard.record(EVERY * (LOOKS + repeat), &status, host);
            let start = Instant::now();
            bytes = dashboard.fragment(&status, span).len();
            drawn += start.elapsed();
            let start = Instant::now();
            dashboard.fragment(&status, span);
            again += start.elapsed();
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(REPEATS);
        found[name] = json!({ "drawn_ms": ms(drawn), "again_ms": ms(again), "bytes": bytes });
    }
    found["all_bytes"] = json!(resident_bytes()?.saturating_sub(resident_before));
    println!("{found}");
    Ok(())
}

/// Every number that is drawn becomes another.
fn change(status: &mut Status, random: &mut Random) {
    for client in &mut status.clients {
        client.gets += random.below(5_000);
        client.puts += random.below(5_000);
        client.used_bytes = random.below(100 << 20);
        client.logical_bytes = client.used_bytes * 3;
    }
    for guest in status.balance.iter_mut().flat_map(|balance| &mut balance.guests) {
        guest.size_bytes = (256 << 20) + random.below(512 << 20);
        guest.target_bytes = (256 << 20) + random.below(512 << 20);
    }
}

fn resident_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("no Pss in smaps_rollup")? * 1024)
}
