//! User-Mode Linux: a real kernel in a process. Its root is the host's file system, read-only, so that every program
//! of the host runs in it.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Daemon, GUEST_MEMORY_MIB, Process, places};

/// What runs before a test's script. The script's work goes to /run, which is in the guest's memory.
const PRELUDE: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=100% tmpfs /run
cd /run
insmod "/usr/lib/uml/modules/$(uname -r)/kernel/drivers/block/virtio_blk.ko" || echo "@exit no virtio_blk"
(
set -e
"#;

const EPILOGUE: &str = r#"
)
echo "@exit $?"
echo o > /proc/sysrq-trigger
sleep 60
"#;

/// A guest that runs one shell script and powers off. Dropping it kills it.
pub struct UmlGuest {
    process: Process,
    _directory: TempDir,
}

impl UmlGuest {
    /// Boots a guest that has this disk as `/dev/vda` and runs the script, which stops at the first command that
    /// fails.
    ///
    /// # Errors
    /// A program is missing, or the guest cannot be started.
    pub fn boot(daemon: &Daemon, disk: &str, script: &str) -> Result<Self> {
        let kernel = places::program("linux.uml")?;
        places::program("insmod")?;
        let directory = places::scratch()?;
        let init = directory.path().join("init");
        fs::write(&init, format!("{PRELUDE}{script}{EPILOGUE}"))
            .context("cannot write the guest's script")?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
            .context("cannot make the guest's script executable")?;
        let mut command = Command::new(kernel);
        command
            .args(daemon.guest_arguments(disk, "uml", GUEST_MEMORY_MIB)?)
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init={}", init.display()))
            .args(["con=null", "con0=null,fd:1", "quiet", "panic=-1", "umid=guest"])
            .arg(format!("uml_dir={}", directory.path().display()));
        let process = Process::start(&format!("the guest on disk {disk}"), &mut command)?;
        Ok(Self { process, _directory: directory })
    }

    /// Waits for a line of the script that starts with `prefix`, and returns what follows it.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn wait_for(&self, prefix: &str, timeout: Duration) -> Result<String> {
        self.process.wait_for(prefix, timeout)
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
        self.process.wait(Duration::from_secs(20))?;
        Ok(console)
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill();
    }
}
