//! A stock 6.12 kernel in QEMU, emulated: about 13 times slower than native, but what people really run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Daemon, GUEST_MEMORY_MIB, Process, initramfs::Initramfs, places};

const PRELUDE: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $MODULES; do insmod /$module.ko || echo "@exit no $module"; done
(
set -e
"#;

/// Emulated, everything takes thirteen times as long, so that less could be a guest at work.
const HUNG_TASKS_END_IT: &str =
    "echo 30 > /proc/sys/kernel/hung_task_timeout_secs\necho 1 > /proc/sys/kernel/hung_task_panic\n";

const EPILOGUE: &str = r#"
)
echo "@exit $?"
poweroff -f
"#;

/// The busybox commands that scripts may use.
const COMMANDS: &str = "sh mount insmod poweroff swapon cat grep echo sleep dmesg blkid mkdir uname test ls ip swapoff dd cmp blkdiscard kill \
                        head tail sed awk wc tr printf cut ps free top stty";

/// What a guest has its disk by.
const DISK_MODULES: [&str; 1] = ["virtio_blk"];
/// What a guest has a block device of its own daemon's by.
const UBLK_MODULES: [&str; 1] = ["ublk_drv"];
/// What a guest has its balloon by.
const BALLOON_MODULES: [&str; 1] = ["virtio_balloon"];
/// What a guest has NBD by, each behind those that it needs.
const NBD_MODULES: [&str; 4] = ["failover", "net_failover", "virtio_net", "nbd"];

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
        let arguments = daemon.guest_arguments(disk, "qemu", GUEST_MEMORY_MIB)?;
        Self::start(
            &format!("the QEMU guest on disk {disk}"),
            &arguments,
            &DISK_MODULES,
            &[],
            checker,
            script,
        )
    }

    /// Boots a guest without a disk that has nbd-client, and reaches the host's own 127.0.0.1 at 10.0.2.2.
    ///
    /// # Errors
    /// As [`QemuGuest::boot`].
    pub fn boot_with_nbd_client(checker: &Path, script: &str) -> Result<Self> {
        let memory = format!("{GUEST_MEMORY_MIB}M");
        let arguments =
            ["-m", &memory, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="];
        let arguments = arguments.map(str::to_owned);
        let script =
            format!("ip link set lo up\nip link set eth0 up\nip addr add 10.0.2.15/24 dev eth0\n{script}");
        let programs = ["nbd-client"];
        Self::start("the QEMU guest with nbd-client", &arguments, &NBD_MODULES, &programs, checker, &script)
    }

    /// Boots a guest with so much memory that has `tmem` and runs it itself, and can make disks on ublk. A task that waits for longer
    /// than 30 seconds is the end of it.
    ///
    /// # Errors
    /// As [`QemuGuest::boot`].
    pub fn boot_with_tmem(memory_mib: u64, cpus: u32, checker: &Path, script: &str) -> Result<Self> {
        let arguments = ["-m".to_owned(), format!("{memory_mib}M"), "-smp".to_owned(), cpus.to_string()];
        let script = format!("export PATH=/bin\n{HUNG_TASKS_END_IT}{script}");
        Self::start("the QEMU guest with tmem", &arguments, &UBLK_MODULES, &["tmem"], checker, &script)
    }

    /// Boots a guest that has `tmem` and runs it itself, in the memory cgroup `/sys/fs/cgroup/tmem` if the script puts it there, and
    /// nbd-client. The checker is `/check_pages`.
    ///
    /// # Errors
    /// As [`QemuGuest::boot`].
    pub fn boot_with_tmem_and_nbd(checker: &Path, script: &str) -> Result<Self> {
        let arguments = ["-m", "384M", "-smp", "2"].map(str::to_owned);
        let script = format!(
            "export PATH=/bin\nmount -t cgroup2 none /sys/fs/cgroup\necho +memory > /sys/fs/cgroup/cgroup.subtree_control\n\
             mkdir /sys/fs/cgroup/tmem\n{script}"
        );
        let programs = ["tmem", "nbd-client"];
        Self::start("the QEMU guest with tmem", &arguments, &["nbd"], &programs, checker, &script)
    }

    /// Boots a guest with so much memory, a balloon and an agent. Its monitor is `qmp` in that directory, the agent's socket `qga`, and what `more` says
    /// is added to QEMU's arguments. The agent is the script's to start, by `agent`.
    ///
    /// # Errors
    /// As [`QemuGuest::boot`].
    pub fn boot_with_balloon(
        memory_mib: u64,
        sockets: &Path,
        more: &[&str],
        checker: &Path,
        script: &str,
    ) -> Result<Self> {
        let socket = |name| format!("unix:{},server=on,wait=off", sockets.join(name).display());
        let agent = format!("socket,path={},server=on,wait=off,id=agent", sockets.join("qga").display());
        let mut arguments = vec!["-m".to_owned(), format!("{memory_mib}M"), "-qmp".to_owned(), socket("qmp")];
        arguments.extend(["-device", "virtio-serial-pci", "-chardev", &agent].map(str::to_owned));
        arguments.extend(
            ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"].map(str::to_owned),
        );
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let agent = "mkdir -p /var/run\nagent() { qemu-ga --method virtio-serial --path /dev/vport*p1 --statedir /tmp & }\n";
        let script = format!("export PATH=/bin\n{agent}{script}");
        Self::start(
            "the QEMU guest with a balloon",
            &arguments,
            &BALLOON_MODULES,
            &["qemu-ga"],
            checker,
            &script,
        )
    }

    /// Boots a guest that has a program of these tests, by its path, in `/bin`, the memory cgroup `/sys/fs/cgroup/small`, and an area to swap to, in
    /// that file, as `/dev/vda`.
    ///
    /// # Errors
    /// As [`QemuGuest::boot`].
    pub fn boot_with_cgroup(program: &str, swap: &Path, checker: &Path, script: &str) -> Result<Self> {
        let drive = format!("if=virtio,format=raw,file={}", swap.display());
        let arguments = ["-m", "384M", "-smp", "2", "-drive", &drive].map(str::to_owned);
        let script = format!(
            "export PATH=/bin\nmount -t cgroup2 none /sys/fs/cgroup\necho +memory > /sys/fs/cgroup/cgroup.subtree_control\n\
             mkdir /sys/fs/cgroup/small\n{script}"
        );
        Self::start("the QEMU guest with a cgroup", &arguments, &DISK_MODULES, &[program], checker, &script)
    }

    /// Memory of the host that the guest has now, in KiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")
    }

    /// Boots a guest with these arguments that has a disk as `/dev/vda`, a balloon and the guest agent, whose second serial line is the first that the
    /// arguments name. The program is `/check_pages`.
    ///
    /// # Errors
    /// As [`QemuGuest::boot`].
    pub fn boot_with_balloon_and_disk(
        name: &str,
        arguments: &[String],
        program: &Path,
        script: &str,
    ) -> Result<Self> {
        let modules = ["virtio_blk", "virtio_balloon"];
        Self::start(&format!("guest {name}"), arguments, &modules, &["qemu-ga"], program, script)
    }

    /// The lines of its console after the first so many.
    pub fn lines_after(&self, known: usize) -> Vec<String> {
        self.process.lines_after(known)
    }

    fn start(
        name: &str,
        arguments: &[String],
        modules: &[&str],
        programs: &[&str],
        checker: &Path,
        script: &str,
    ) -> Result<Self> {
        let qemu = emulator()?;
        let directory = places::scratch()?;
        let initramfs = directory.path().join("initramfs");
        write_initramfs(&initramfs, modules, programs, checker, script)?;
        let mut command = Command::new(qemu);
        command
            .args(["-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .args(arguments)
            .arg("-kernel")
            .arg(places::guest_file("vmlinuz")?)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1"]);
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
        self.process.wait(Duration::from_secs(30))?;
        Ok(console)
    }
}

/// The emulator, if it is one that runs this kernel.
fn emulator() -> Result<PathBuf> {
    let qemu = places::program("qemu-system-x86_64")?;
    let version = Command::new(&qemu).arg("--version").output().context("cannot run QEMU")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if major_version(&version).is_none_or(|major| major < 10) {
        bail!("QEMU 10 or later is needed, this is {version}; scripts/test installs it");
    }
    Ok(qemu)
}

/// The kernel of such guests, and an initramfs for a guest that has its disk as `/dev/vda` and runs the script, for a monitor that somebody else starts.
///
/// # Errors
/// Something that is to be in it is missing, or it cannot be written.
pub fn kernel_and_initramfs(directory: &Path, checker: &Path, script: &str) -> Result<[PathBuf; 2]> {
    emulator()?;
    let initramfs = directory.join("initramfs");
    write_initramfs(&initramfs, &DISK_MODULES, &[], checker, script)?;
    Ok([places::guest_file("vmlinuz")?, initramfs])
}

fn write_initramfs(
    path: &Path,
    modules: &[&str],
    programs: &[&str],
    checker: &Path,
    script: &str,
) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Initramfs::default();
    for directory in ["bin", "dev", "proc", "sys", "mnt", "run", "tmp"] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", &read(&places::program("busybox")?)?);
    for command in COMMANDS.split(' ').filter(|word| !word.is_empty()) {
        archive.symlink(&format!("bin/{command}"), "busybox");
    }
    for module in modules.iter().map(|module| format!("{module}.ko")) {
        archive.program(&module, &read(&places::guest_file(&module)?)?);
    }
    for program in programs {
        let path = match *program {
            "tmem" => places::tmem_binary()?,
            program if program.starts_with('/') => PathBuf::from(program),
            program => places::program(program)?,
        };
        let name = path.file_name().with_context(|| format!("{program} is no program"))?;
        archive.program(&format!("bin/{}", name.display()), &stripped(&path)?);
        for library in libraries(&path)? {
            archive.file_with_folders(&library, &read(Path::new(&library))?);
        }
    }
    archive.program("check_pages", &read(checker)?);
    archive.program(
        "init",
        format!("{}{script}{EPILOGUE}", PRELUDE.replace("$MODULES", &modules.join(" "))).as_bytes(),
    );
    fs::write(path, archive.finish()).context("cannot write the initramfs")
}

/// A program without what only a debugger reads: guests have little memory.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let directory = places::scratch()?;
    let stripped = directory.path().join("stripped");
    let output = Command::new(places::program("strip")?)
        .arg("-o")
        .arg(&stripped)
        .arg(program)
        .output()
        .context("cannot run strip")?;
    if !output.status.success() {
        bail!("cannot strip {}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    fs::read(&stripped).context("cannot read what strip wrote")
}

/// The shared libraries that a program of the host needs, by their paths.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "name => path (address)", or just the path for the loader.
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// From "QEMU emulator version 10.0.2 (…)".
fn major_version(text: &str) -> Option<u32> {
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}
