//! A pool that is full refuses pages. The guest keeps them in its own memory, and loses none (rule 2).

use std::time::Duration;

use anyhow::{Result, ensure};
use tmem_tests::{Daemon, UmlGuest, build_checker};

const TIMEOUT: Duration = Duration::from_secs(150);

#[test]
fn r2_a_full_pool_fails_writes_only_and_the_guest_goes_on() -> Result<()> {
    let daemon = Daemon::start("32M")?;
    daemon.add_disk("full", "512M", &[])?;
    let checker = build_checker(daemon.directory())?;
    // 80 MiB that do not compress, and the kernel is asked to swap all of it out, again and again, while pages change:
    // most of it must be refused, and what was refused must never be answered with an older page.
    let script = format!(
        "swapon LABEL=tmem\n\
         {} 80 41 3 kind=random pageout\n\
         echo \"@write_errors $(dmesg | grep -c 'Write-error on swap-device' || true)\"\n\
         echo \"@read_errors $(dmesg | grep -c 'Read-error on swap-device' || true)\"\n",
        checker.display()
    );
    let console = UmlGuest::boot(&daemon, "full", &script)?.finish(TIMEOUT)?;
    let all = console.join("\n");
    ensure!(console.iter().any(|line| line.starts_with("VERIFIED ")), "not verified:\n{all}");
    ensure!(console.iter().any(|line| line == "@read_errors 0"), "reads failed:\n{all}");
    ensure!(!console.iter().any(|line| line == "@write_errors 0"), "the kernel saw no refusal:\n{all}");
    ensure!(!all.contains("Out of memory"), "the guest ran out of memory:\n{all}");
    let refused = daemon.client("full", "refused_puts")?;
    ensure!(refused > 1000, "{refused} refused puts of some 12000");
    let (used, limit) = (daemon.pool("used_bytes")?, daemon.pool("limit_bytes")?);
    ensure!(used <= limit && used > limit / 2, "{used} of {limit} bytes are used");
    ensure!(daemon.client("full", "checksum_errors")? == 0, "{:#}", daemon.status()?);
    // The disk works as before once there is room again.
    daemon.tmem_ok(&["disk", "rm", "full"])?;
    ensure!(daemon.pool("used_bytes")? == 0, "{:#}", daemon.status()?);
    daemon.stop().map(drop)
}
