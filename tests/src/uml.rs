//! User-Mode Linux: a real kernel in a process. Its root is the host's file system, read-only, so that every program
//! of the host runs in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

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

/// The same for a machine that systemd runs. The files are mounted before folders are laid over others that they may be in. The unit is the one that
/// people install, but for the paths.
const SYSTEMD: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=100% tmpfs /run
mkdir -p /run/files /run/systemd/system/tmem.service.d
lay() { touch "/run/files/$1"; mount --bind "$2" "/run/files/$1" || echo "@exit cannot mount $2"; }
@FILES@
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/lib
cd /run/systemd/system
sed 's,^ExecStart=.*,ExecStart=/run/files/tmem serve --http off --pool-size 128M,' /run/files/tmem.service > tmem.service
printf '[Service]\nStandardError=file:/run/tmem.log\n' > tmem.service.d/log.conf
cat > /run/files/script << 'END_OF_SCRIPT'
export PATH=/run/files:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
trap 'sed "s/^/log: /" /run/tmem.log' EXIT
@SCRIPT@
END_OF_SCRIPT
cat > test.service << 'END_OF_UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh -c 'sh -e /run/files/script; echo "@exit $?"; echo o > /proc/sysrq-trigger; sleep 60'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
END_OF_UNIT
printf '[Unit]\nDefaultDependencies=no\nWants=test.service\n' > test.target
exec /lib/systemd/systemd --unit=test.target --log-target=console --log-level=err --show-status=0
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
        places::program("insmod")?;
        let arguments = daemon.guest_arguments(disk, "uml", GUEST_MEMORY_MIB)?;
        Self::start(&format!("the guest on disk {disk}"), &arguments, &format!("{PRELUDE}{script}{EPILOGUE}"))
    }

    /// Boots a machine with so much memory that systemd runs, with tmem's own unit, which the script may start. The files are in `/run/files`
    /// under their names, and so is `tmem`.
    ///
    /// # Errors
    /// As [`UmlGuest::boot`].
    pub fn boot_with_systemd(memory_mib: u64, files: &[(&str, PathBuf)], script: &str) -> Result<Self> {
        if !Path::new("/lib/systemd/systemd").exists() {
            bail!("systemd is missing; scripts/test installs it");
        }
        let ours = [("tmem", places::tmem_binary()?), ("tmem.service", places::packaging("tmem.service")?)];
        let files: String = files
            .iter()
            .chain(&ours)
            .map(|(name, path)| format!("lay {name} {}\n", path.display()))
            .collect();
        let init = SYSTEMD.replace("@FILES@", &files).replace("@SCRIPT@", script);
        Self::start("the machine with systemd", &[format!("mem={memory_mib}M")], &init)
    }

    fn start(name: &str, arguments: &[String], init_script: &str) -> Result<Self> {
        let kernel = places::program("linux.uml")?;
        let directory = places::scratch()?;
        let init = directory.path().join("init");
        fs::write(&init, init_script).context("cannot write the guest's script")?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
            .context("cannot make the guest's script executable")?;
        let mut command = Command::new(kernel);
        command
            .args(arguments)
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"])
            .arg(format!("init={}", init.display()))
            .args(["con=null", "con0=null,fd:1", "quiet", "panic=-1", "umid=guest"])
            .arg(format!("uml_dir={}", directory.path().display()));
        let process = Process::start(name, &mut command)?;
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
