//! A guest whose swap does not fit in the pool: the rest is in a tier, and every byte comes back (rule 1).

use anyhow::{Context, Result, ensure};
use tmem_tests::{BeyondMemory, Daemon};

#[test]
fn r1_what_a_guest_swaps_beyond_the_pool_is_in_the_tier_and_comes_back() -> Result<()> {
    let home = tempfile::tempdir().context("a directory")?;
    let tier = home.path().join("tier");
    let flags = ["--tier", &tier.display().to_string(), "--tier-size", "512M"].map(str::to_owned);
    let daemon = Daemon::start_with("24M", &flags, None)?;
    daemon.add_disk("uml", "512M", &[])?;
    BeyondMemory::boot(&daemon)?.end_well(&daemon)?;
    let status = daemon.status()?;
    ensure!(daemon.client("uml", "refused_puts")? == 0, "{status:#}");
    ensure!(daemon.client("uml", "written_back_pages")? > 5_000, "{status:#}");
    ensure!(daemon.client("uml", "tier_gets")? > 2_000, "{status:#}");
    ensure!(status["tiers"][0]["state"] == "ready" && status["tiers"][0]["errors"] == 0, "{status:#}");
    let (held, limit) = (daemon.pool("held_bytes")?, daemon.pool("limit_bytes")?);
    ensure!(held <= limit, "{held} of {limit} bytes are held");
    // The guest is gone; the daemon may have yet to see it.
    daemon.tmem_ok(&["disk", "rm", "uml", "--force"])?;
    ensure!(daemon.status()?["tiers"][0]["used_bytes"] == 0, "{:#}", daemon.status()?);
    daemon.stop().map(drop)
}
