//! A guest whose swap does not fit in the pool: the rest is in a Redis server, and every byte comes back (rule 1), from a daemon that is
//! confined and from the next one after it was killed.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tmem_tests::{BeyondMemory, Daemon, RedisServer};

const SOON: Duration = Duration::from_secs(60);

fn start(redis: &RedisServer) -> Result<Daemon> {
    // By its name: looking it up has to be possible from inside of the sandbox, too.
    let address = format!("redis://localhost:{}", redis.port());
    let flags = ["--tier", &address, "--tier-size", "512M", "--redis-prefix", "test/1"].map(str::to_owned);
    let daemon = Daemon::start_with("24M", &flags, None)?;
    daemon.add_disk("uml", "512M", &[])?;
    Ok(daemon)
}

fn wait_for_keys(redis: &RedisServer, is_enough: impl Fn(usize) -> bool) -> Result<()> {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let keys = redis.keys()?;
        if is_enough(keys) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{keys} keys are in the server");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn r1_what_a_guest_swaps_beyond_the_pool_is_in_redis_and_comes_back() -> Result<()> {
    let redis = RedisServer::start()?;
    let daemon = start(&redis)?;
    BeyondMemory::boot(&daemon)?.end_well(&daemon)?;
    let status = daemon.status()?;
    ensure!(daemon.client("uml", "refused_puts")? == 0, "{status:#}");
    ensure!(daemon.client("uml", "written_back_pages")? > 5_000, "{status:#}");
    ensure!(daemon.client("uml", "tier_gets")? > 2_000, "{status:#}");
    let tier = &status["tiers"][0];
    ensure!(tier["kind"] == "redis" && tier["state"] == "ready" && tier["errors"] == 0, "{status:#}");
    ensure!(tier["limit_bytes"] == 512 << 20, "{status:#}");
    let log = daemon.lines_after(0).join("\n");
    ensure!(log.contains("confined: "), "{log}");
    let keys = redis.cli(&["--scan", "--pattern", "test/1:*"])?;
    ensure!(!keys.is_empty(), "no keys with the prefix");
    // The guest is gone; the daemon may have yet to see it.
    daemon.tmem_ok(&["disk", "rm", "uml", "--force"])?;
    wait_for_keys(&redis, |keys| keys == 0).context("nobody needs what is there")?;
    daemon.stop().map(drop)
}

#[test]
fn r1_a_worker_that_follows_one_that_was_killed_finds_what_that_one_wrote() -> Result<()> {
    let redis = RedisServer::start()?;
    let daemon = start(&redis)?;
    let guest = BeyondMemory::boot(&daemon)?;
    for kill in 0..2 {
        wait_for_keys(&redis, |keys| keys > 100 * (kill + 1))?;
        let worker = daemon.kill_worker()?;
        daemon.wait_for_worker_after(worker, SOON)?;
    }
    guest.end_well(&daemon)?;
    let status = daemon.status()?;
    ensure!(status["tiers"][0]["state"] == "ready" && status["tiers"][0]["errors"] == 0, "{status:#}");
    ensure!(daemon.client("uml", "tier_gets")? > 100, "{status:#}");
    // An orderly end takes everything along that this worker knows of.
    let before = redis.keys()?;
    daemon.stop()?;
    let after = redis.keys()?;
    ensure!(after < before, "of {before} keys {after} are left");
    Ok(())
}
