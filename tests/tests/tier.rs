//! A guest whose swap does not fit in the pool: the rest is in a tier, and every byte comes back (rule 1).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tmem_tests::{Daemon, UmlGuest, build_checker};

const TIMEOUT: Duration = Duration::from_secs(200);

#[test]
fn r1_what_a_guest_swaps_beyond_the_pool_is_in_the_tier_and_comes_back() -> Result<()> {
    let home = tempfile::tempdir().context("a directory")?;
    let tier = home.path().join("tier");
    let flags = ["--tier", &tier.display().to_string(), "--tier-size", "512M"].map(str::to_owned);
    let daemon = Daemon::start_with("24M", &flags, None)?;
    daemon.add_disk("uml", "512M", &[])?;
    let checker = build_checker(daemon.directory())?;
    // 224 MiB in a guest of 192, of pages that hardly compress: far more than 24 MiB have to go somewhere.
    let script = format!(
        "swapon LABEL=tmem\n\
         {} 224 51 1 kind=random\n\
         echo \"@write_errors $(dmesg | grep -c 'Write-error on swap-device' || true)\"\n\
         echo \"@read_errors $(dmesg | grep -c 'Read-error on swap-device' || true)\"\n",
        checker.display()
    );
    let console = UmlGuest::boot(&daemon, "uml", &script)?.finish(TIMEOUT)?;
    let all = console.join("\n");
    ensure!(console.iter().any(|line| line.starts_with("VERIFIED ")), "not verified:\n{all}");
    for errors in ["@read_errors 0", "@write_errors 0"] {
        ensure!(console.iter().any(|line| line == errors), "no {errors}:\n{all}");
    }
    let status = daemon.status()?;
    ensure!(daemon.client("uml", "refused_puts")? == 0, "{status:#}");
    ensure!(daemon.client("uml", "checksum_errors")? == 0, "{status:#}");
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
