//! Guests swap through the device with a program that compares every byte (rule 1: what was put comes back).

use std::time::Duration;

use anyhow::{Result, ensure};
use tmem_tests::{Daemon, QemuGuest, UmlGuest, build_checker};

const UML: Duration = Duration::from_secs(150);
/// Emulated code is slow, and a busy machine makes it slower.
const QEMU: Duration = Duration::from_secs(300);

/// The number behind a prefix on the console, such as `@pswpin 77`.
fn number(console: &[String], prefix: &str) -> Result<u64> {
    let line = console.iter().find_map(|line| line.strip_prefix(prefix));
    let number = line.and_then(|rest| rest.trim().parse().ok());
    number.ok_or_else(|| anyhow::anyhow!("no `{prefix}` on the console:\n{}", console.join("\n")))
}

fn verified(console: &[String]) -> Result<()> {
    ensure!(
        console.iter().any(|line| line.starts_with("VERIFIED ")),
        "not verified:\n{}",
        console.join("\n")
    );
    Ok(())
}

/// What guest and daemon counted has to agree: every page that the kernel swapped is a put or a get.
fn counters_agree(daemon: &Daemon, disk: &str, console: &[String]) -> Result<()> {
    let (swapped_out, swapped_in) = (number(console, "@pswpout")?, number(console, "@pswpin")?);
    ensure!(swapped_out > 1000 && swapped_in > 1000, "hardly swapped: {swapped_out} out, {swapped_in} in");
    // A page that was refused stays with the guest, and was a put all the same.
    let puts = daemon.client(disk, "puts")? + daemon.client(disk, "refused_puts")?;
    let gets = daemon.client(disk, "gets")?;
    ensure!(puts >= swapped_out, "{puts} puts for {swapped_out} pages swapped out: {:#}", daemon.status()?);
    ensure!(gets >= swapped_in, "{gets} gets for {swapped_in} pages swapped in");
    for counter in ["refused_puts", "checksum_errors"] {
        ensure!(daemon.client(disk, counter)? == 0, "{counter}: {}", daemon.status()?);
    }
    let (logical, used) = (daemon.client(disk, "logical_bytes")?, daemon.client(disk, "used_bytes")?);
    ensure!(used < logical, "{logical} bytes of pages took {used}");
    Ok(())
}

const COUNTERS: &str =
    "grep -E '^pswp' /proc/vmstat | while read name value; do echo \"@$name $value\"; done\n";

#[test]
fn r1_a_uml_guest_gets_every_byte_back() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    let checker = build_checker(daemon.directory())?;
    daemon.add_disk("uml", "512M", &[])?;
    let script = format!("swapon LABEL=tmem\n{} 256 11 1\n{COUNTERS}", checker.display());
    let console = UmlGuest::boot(&daemon, "uml", &script)?.finish(UML)?;
    verified(&console)?;
    counters_agree(&daemon, "uml", &console)?;
    daemon.stop().map(drop)
}

#[test]
fn r1_a_qemu_guest_with_a_stock_kernel_gets_every_byte_back() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    let checker = build_checker(daemon.directory())?;
    daemon.add_disk("qemu", "512M", &[])?;
    let script = format!("uname -r\nswapon -d /dev/vda\n/check_pages 160 12 1\n{COUNTERS}");
    let console = QemuGuest::boot(&daemon, "qemu", &checker, &script)?.finish(QEMU)?;
    verified(&console)?;
    ensure!(
        console.iter().any(|line| line.starts_with("6.")),
        "which kernel is this?\n{}",
        console.join("\n")
    );
    counters_agree(&daemon, "qemu", &console)?;
    daemon.stop().map(drop)
}

#[test]
fn r3_two_guests_at_once_get_their_own_pages() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    let checker = build_checker(daemon.directory())?;
    let mut guests = Vec::new();
    for (disk, seed) in [("one", 21), ("two", 22)] {
        daemon.add_disk(disk, "512M", &[])?;
        let script = format!("swapon LABEL=tmem\n{} 200 {seed} 1\n{COUNTERS}", checker.display());
        guests.push((disk, UmlGuest::boot(&daemon, disk, &script)?));
    }
    for (disk, guest) in guests {
        let console = guest.finish(UML)?;
        verified(&console)?;
        counters_agree(&daemon, disk, &console)?;
    }
    let sum = daemon.client("one", "used_bytes")? + daemon.client("two", "used_bytes")?;
    ensure!(daemon.pool("used_bytes")? == sum, "rule 7: the clients' sum is {sum}: {:#}", daemon.status()?);
    daemon.stop().map(drop)
}

/// A guest needs nothing but swapon: no mkswap, in the guest or on the host.
#[test]
fn a_disk_is_born_as_swap() -> Result<()> {
    let daemon = Daemon::start("64M")?;
    daemon.add_disk("born", "256M", &[])?;
    let script = "\
        echo \"@label $(blkid -p -s LABEL -o value /dev/vda)\"\n\
        echo \"@type $(blkid -p -s TYPE -o value /dev/vda)\"\n\
        swapon --discard LABEL=tmem\n\
        echo \"@swap $(grep vda /proc/swaps)\"\n";
    let console = UmlGuest::boot(&daemon, "born", script)?.finish(UML)?;
    let line = |prefix: &str| console.iter().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    assert_eq!((line("@label "), line("@type ")), ("tmem", "swap"));
    let swap: Vec<_> = line("@swap ").split_whitespace().collect();
    // The header takes the first page: all but 4 of 262144 KiB are left to swap on.
    assert_eq!((swap[0], swap[1], swap[2]), ("/dev/vda", "partition", "262140"));
    daemon.stop().map(drop)
}
