//! A disk is a disk: ext4 on it, written and read by fio, which checks every block against its checksum.

use std::time::Duration;

use anyhow::{Result, ensure};
use tmem_tests::{Daemon, UmlGuest};

const TIMEOUT: Duration = Duration::from_secs(150);

#[test]
fn r1_ext4_on_a_disk_passes_fio_verify_and_e2fsck() -> Result<()> {
    let daemon = Daemon::start("512M")?;
    daemon.add_disk("files", "512M", &["--format", "none"])?;
    // Written with verification at once, then verified again after a mount that forgot the page cache.
    let script = "\
        test -z \"$(blkid -p /dev/vda)\"\n\
        mkfs.ext4 -q /dev/vda\n\
        mkdir files\n\
        mount -o discard /dev/vda files\n\
        job='--name=files --directory=files --filesize=96M --bsrange=1k-64k --rw=randwrite --ioengine=psync \
             --verify=crc32c --verify_fatal=1 --randseed=5 --buffer_compress_percentage=50 --minimal'\n\
        fio $job --do_verify=1 --end_fsync=1 > written\n\
        sha256sum files/files* > sums\n\
        umount files\n\
        e2fsck -fn /dev/vda\n\
        mount /dev/vda files\n\
        fio $job --verify_only > verified\n\
        sha256sum -c sums\n\
        rm files/files*\n\
        umount files\n\
        e2fsck -fn /dev/vda\n";
    let console = UmlGuest::boot(&daemon, "files", script)?.finish(TIMEOUT)?;
    let checks = console.iter().filter(|line| line.contains("Pass 5: Checking group summary")).count();
    ensure!(checks == 2, "e2fsck ran {checks} times:\n{}", console.join("\n"));
    let peak = daemon.client("files", "peak_stored_pages")?;
    ensure!(peak > 96 * 256, "only {peak} pages were ever on the disk");
    ensure!(daemon.client("files", "checksum_errors")? == 0, "{:#}", daemon.status()?);
    daemon.stop().map(drop)
}
