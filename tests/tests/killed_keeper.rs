//! The keeper itself is killed: systemd, which holds all that it held, starts the next one, and guests go on (rule 1).
//!
//! The whole of it is in a machine of its own, which systemd runs: the daemon under the unit that people install, and a QEMU guest that swaps to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tmem_tests::{UmlGuest, build_checker, kernel_and_initramfs};

/// Emulated code within an emulator's guest, on one CPU.
const ALL: Duration = Duration::from_secs(400);

#[test]
fn r1_a_guest_survives_the_death_of_the_keeper() -> Result<()> {
    let directory = TempDir::new()?;
    let checker = build_checker(directory.path())?;
    let guest = "swapon -d /dev/vda\n/check_pages 90 31 1 kind=light seconds=10\n";
    let [kernel, initramfs] = kernel_and_initramfs(directory.path(), &checker, guest)?;
    let script = r#"
        systemctl start tmem
        tmem disk add swap --size 256M --vhost-user /run/tmem/swap.sock > /dev/null
        tmem disk add plain --size 16M --nbd /run/tmem/plain.sock --format none > /dev/null
        nbd() { python3 -c "import nbd; h = nbd.NBD(); h.connect_uri('nbd+unix:///plain?socket=/run/tmem/plain.sock'); $1; h.shutdown()"; }
        nbd 'h.pwrite(b"kept" * 1024, 8192)'

        tmem guest-config swap --vmm qemu --memory 96M --args-only > /run/arguments
        IFS='
'
        qemu-system-x86_64 $(cat /run/arguments) -accel tcg -nodefaults -display none -no-reboot -serial stdio -kernel /run/files/vmlinuz \
            -initrd /run/files/initramfs -append "console=ttyS0 quiet panic=-1" > /run/console 2>&1 < /dev/null &
        unset IFS
        qemu=$!
        until grep -qs '^filled ' /run/console; do kill -0 $qemu; sleep 0.2; done

        for death in 1 2 3; do
            dead=$(systemctl show -P MainPID tmem)
            systemctl kill -s KILL --kill-whom=main tmem
            until systemctl is-active -q tmem && test "$(systemctl show -P MainPID tmem)" != "$dead"; do sleep 0.1; done
            nbd 'assert h.pread(4096, 8192) == b"kept" * 1024'
            kill -0 $qemu
            echo "@survived $death, $(systemctl show -P NFileDescriptorStore tmem) stored"
            sleep 0.5
        done
        tmem status --json | tr -d ' \n' | grep -q '"connected":true'
        wait $qemu
        tr -d '\r' < /run/console | sed 's/^@exit/@guest/'
        systemctl stop tmem
        echo "@left $(systemctl show -P NFileDescriptorStore tmem)"
        "#;
    let files = [("vmlinuz", kernel), ("initramfs", initramfs)];
    let console = UmlGuest::boot_with_systemd(512, &files, script)?.finish(ALL)?;
    let all = console.join("\n");
    let told =
        |word: &str| console.iter().find_map(|line| line.strip_prefix(word)).with_context(|| all.clone());
    told("VERIFIED ")?;
    ensure!(told("@guest ")? == "0", "{all}");
    ensure!(!all.contains("I/O error") && !all.contains("MISMATCH"), "{all}");
    // The session, and the files of the store and the disks: two ends each.
    for death in 1..=3 {
        let stored = told(&format!("@survived {death}, "))?.strip_suffix(" stored").context("a number")?;
        ensure!(stored.parse::<u32>()? >= 2 * 8, "{all}");
    }
    ensure!(told("@left ")? == "0", "{all}");
    Ok(())
}
