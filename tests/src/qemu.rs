//! A stock 6.12 kernel in QEMU, emulated: about 13 times slower than native, but what people really run.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Daemon, GUEST_MEMORY_MIB, Process, initramfs::Initramfs, places};

const PRELUDE: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
insmod /virtio_blk.ko || echo "@exit no virtio_blk"
(
set -e
"#;

const EPILOGUE: &str = r#"
)
echo "@exit $?"
poweroff -f
"#;

/// The busybox commands that scripts may use.
const COMMANDS: [&str; 15] = [
    "sh", "mount", "insmod", "poweroff", "swapon", "cat", "grep", "echo", "sleep", "dmesg", "blkid", "mkdir",
    "uname", "test", "ls",
];

/// A guest that runs one shell script and powers off. Dropping it kills it.
pub struct QemuGuest {
    process: Process,
    _directory: TempDir,
}

impl QemuGuest {
    /// Boots a guest that has this disk as `/dev/vda` and the checker as `/check_pages`, and runs the script, which
    /// stops at the first command that fails.
    ///
    /// # Errors
    /// A program or the kernel is missing, QEMU is too old, or the guest cannot be started.
    pub fn boot(daemon: &Daemon, disk: &str, checker: &Path, script: &str) -> Result<Self> {
        let qemu = places::program("qemu-system-x86_64")?;
        let version = Command::new(&qemu).arg("--version").output().context("cannot run QEMU")?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        if major_version(&version).is_none_or(|major| major < 10) {
            bail!("QEMU 10 or later is needed, this is {version}; scripts/test installs it");
        }
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut archive = Initramfs::default();
        for directory in ["bin", "dev", "proc", "sys", "mnt"] {
            archive.directory(directory);
        }
        archive.program("bin/busybox", &read(&places::program("busybox")?)?);
        for command in COMMANDS {
            archive.symlink(&format!("bin/{command}"), "busybox");
        }
        archive.program("virtio_blk.ko", &read(&places::guest_file("virtio_blk.ko")?)?);
        archive.program("check_pages", &read(checker)?);
        archive.program("init", format!("{PRELUDE}{script}{EPILOGUE}").as_bytes());
        let directory = places::scratch()?;
        let initramfs = directory.path().join("initramfs");
        fs::write(&initramfs, archive.finish()).context("cannot write the initramfs")?;
        let mut command = Command::new(qemu);
        command
            .args(daemon.guest_arguments(disk, "qemu", GUEST_MEMORY_MIB)?)
            .args(["-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(places::guest_file("vmlinuz")?)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1"]);
        let process = Process::start(&format!("the QEMU guest on disk {disk}"), &mut command)?;
        Ok(Self { process, _directory: directory })
    }

    /// Waits until the script has succeeded and the guest is off, and returns all that was on its console.
    ///
    /// # Errors
    /// The script failed, or the time is up.
    pub fn finish(mut self, timeout: Duration) -> Result<Vec<String>> {
        let exit = self.process.wait_for("@exit", timeout)?;
        let console = self.process.lines();
        if exit != "0" {
            bail!("the guest's script ended with {exit}:\n{}", console.join("\n"));
        }
        self.process.wait(Duration::from_secs(30))?;
        Ok(console)
    }
}

/// From "QEMU emulator version 10.0.2 (…)".
fn major_version(text: &str) -> Option<u32> {
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}
