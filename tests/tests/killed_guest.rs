//! A guest that is killed with -9 while it swaps leaves nothing behind, and harms nobody.

use std::time::Duration;

use anyhow::{Result, ensure};
use tmem_tests::{Daemon, UmlGuest, build_checker};

const TIMEOUT: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(10);

/// Boots a guest that never stops swapping, and kills it in the middle of it.
fn kill_in_the_middle(daemon: &Daemon, disk: &str) -> Result<()> {
    let checker = build_checker(daemon.directory())?;
    let script = format!("swapon LABEL=tmem\n{} 256 31 1 forever\n", checker.display());
    let guest = UmlGuest::boot(daemon, disk, &script)?;
    // Both ways at once: gets begin when the fill is over.
    daemon.wait_until("the guest swaps", TIMEOUT, |daemon| {
        Ok(daemon.client(disk, "stored_pages")? > 10_000 && daemon.client(disk, "gets")? > 2_000)
    })?;
    ensure!(daemon.is_connected(disk)?, "{disk} is not connected, and yet it swaps");
    let refused = daemon.tmem(&["disk", "rm", disk])?;
    ensure!(refused.code == Some(1), "rm of a disk in use exited with {:?}", refused.code);
    ensure!(
        refused.stderr.contains(disk) && refused.stderr.trim().lines().count() == 1,
        "{}",
        refused.stderr
    );
    guest.kill();
    daemon.wait_until(
        "the daemon sees that the guest is gone",
        SOON,
        |daemon| Ok(!daemon.is_connected(disk)?),
    )
}

#[test]
fn r7_a_killed_guests_pages_are_released_with_its_disk() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    daemon.add_disk("killed", "512M", &[])?;
    kill_in_the_middle(&daemon, "killed")?;
    ensure!(daemon.pool("used_bytes")? > 0, "nothing was in the pool");
    daemon.tmem_ok(&["disk", "rm", "killed"])?;
    // The thread that finds memory ahead gives it back when the last disk is gone.
    daemon.wait_until("nothing is held", SOON, |daemon| Ok(daemon.pool("held_bytes")? == 0))?;
    for field in
        ["used_bytes", "held_bytes", "stored_pages", "logical_bytes", "compressed_bytes", "metadata_bytes"]
    {
        ensure!(daemon.pool(field)? == 0, "pool.{field} is not 0: {:#}", daemon.status()?);
    }
    let clients = daemon.status()?["clients"].as_array().map(Vec::len);
    ensure!(clients == Some(0), "clients are left: {:#}", daemon.status()?);
    daemon.stop().map(drop)
}

#[test]
fn another_guest_can_have_a_killed_guests_disk() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    daemon.add_disk("again", "512M", &[])?;
    kill_in_the_middle(&daemon, "again")?;
    let checker = build_checker(daemon.directory())?;
    // Still swap by its label, though nobody has formatted it again. swapon --discard releases the old pages.
    let script =
        format!("swapon --discard LABEL=tmem\necho @swapped_on\nsleep 3\n{} 200 32 1\n", checker.display());
    let guest = UmlGuest::boot(&daemon, "again", &script)?;
    guest.wait_for("@swapped_on", TIMEOUT)?;
    let left = daemon.client("again", "stored_pages")?;
    ensure!(left < 100, "{left} pages of the killed guest are left after swapon --discard");
    let console = guest.finish(TIMEOUT)?;
    ensure!(
        console.iter().any(|line| line.starts_with("VERIFIED ")),
        "not verified:\n{}",
        console.join("\n")
    );
    daemon.stop().map(drop)
}
