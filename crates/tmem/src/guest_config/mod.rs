//! What to paste so that a guest gets a disk, for each virtual machine monitor.
//!
//! Over vhost-user every monitor must share the guest's memory with tmem, which reads and writes it in place. Over NBD there is nothing
//! to share, and no monitor is needed: the kernel has a client of its own. Over ublk there is not even a guest: the disk is a block
//! device of the daemon's host.
//!
//! None of this asks a monitor to reconnect by itself. A daemon that was started again has none of the guest's pages,
//! and a guest that goes on with an empty disk would read zeroes where its memory was; without a reconnect it gets I/O
//! errors instead.

mod cloud_hypervisor;
mod firecracker;
mod host;
mod libvirt;
mod nbd;
mod qemu;
mod uml;

use anyhow::{Result, anyhow, bail};
use tmem_control::{ByteSize, DiskFormat, DiskInfo};

pub(crate) use host::HostDisk;
pub(crate) use nbd::NbdGuest;

/// Monitors count guest memory in MiB.
pub(crate) const MIN_MEMORY_BYTES: u64 = 1 << 20;

/// A virtual machine monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vmm {
    Qemu,
    Libvirt,
    CloudHypervisor,
    Firecracker,
    Uml,
    /// No monitor: the NBD client of a Linux kernel, in a guest or on a host.
    NbdClient,
    /// No monitor, no guest: the daemon's own host, over ublk.
    Host,
}

/// One guest with one disk.
pub(crate) struct Guest<'a> {
    name: &'a str,
    socket: &'a str,
    size: ByteSize,
    format: DiskFormat,
    queues: u16,
    memory: ByteSize,
}

impl<'a> Guest<'a> {
    /// A guest with so much memory.
    pub(crate) fn new(disk: &'a DiskInfo, memory: ByteSize) -> Result<Self> {
        let socket = socket_of(disk)?.unwrap_or_default();
        Ok(Self {
            name: disk.name.as_str(),
            socket,
            size: ByteSize::from_bytes(disk.size_bytes),
            format: disk.format,
            queues: disk.queues.unwrap_or(1),
            memory,
        })
    }

    /// The monitor's arguments, or none where it takes a document instead.
    pub(crate) fn arguments(&self, vmm: Vmm) -> Result<Option<Vec<String>>> {
        Ok(match vmm {
            Vmm::Qemu => Some(qemu::arguments(self)),
            Vmm::CloudHypervisor => Some(cloud_hypervisor::arguments(self)?),
            Vmm::Uml => Some(uml::arguments(self)?),
            Vmm::Libvirt | Vmm::Firecracker => None,
            Vmm::NbdClient => return Err(self.not_nbd()),
            Vmm::Host => return Err(host::not_ublk(self.name)),
        })
    }

    /// What to do on the host and in the guest, for a person.
    pub(crate) fn instructions(&self, vmm: Vmm) -> Result<String> {
        let host = match vmm {
            Vmm::Qemu => qemu::instructions(self),
            Vmm::Libvirt => libvirt::instructions(self),
            Vmm::CloudHypervisor => cloud_hypervisor::instructions(self)?,
            Vmm::Firecracker => firecracker::instructions(self),
            Vmm::Uml => uml::instructions(self)?,
            Vmm::NbdClient => return Err(self.not_nbd()),
            Vmm::Host => return Err(host::not_ublk(self.name)),
        };
        let modules = if vmm == Vmm::Uml { "modprobe virtio_blk   # where it is a module\n" } else { "" };
        Ok(format!(
            "# Disk {}, {} ({}).\n\n{host}\n{}",
            self.name,
            self.size,
            self.socket,
            inside(self.format, self.size, modules)
        ))
    }

    fn not_nbd(&self) -> anyhow::Error {
        anyhow!(
            "disk {} is on a vhost-user socket, and the kernel's NBD client cannot use that; add it again with --nbd",
            self.name
        )
    }
}

/// The disk's socket as text, if it has one.
fn socket_of(disk: &DiskInfo) -> Result<Option<&str>> {
    let Some(path) = &disk.socket else { return Ok(None) };
    match path.to_str() {
        Some(socket) => Ok(Some(socket)),
        None => bail!(
            "disk {}: its socket path {path:?} is not UTF-8; add the disk again with a plain path",
            disk.name
        ),
    }
}

/// What to do inside the guest.
///
/// `discard` tells tmem which pages the guest no longer needs: all of them at swapon, and freed ones while it runs.
/// `nofail` lets the guest boot without the disk.
fn inside(format: DiskFormat, size: ByteSize, modules: &str) -> String {
    match format {
        DiskFormat::Swap => format!(
            "# In the guest's /etc/fstab (discard gives freed pages back to the pool, nofail lets it boot without the disk):\n\
             LABEL=tmem none swap sw,pri=100,discard,nofail 0 0\n\n\
             # Or by hand, now:\n{modules}swapon --discard --priority 100 LABEL=tmem\n"
        ),
        DiskFormat::None => format!(
            "# In the guest: the disk was added with --format none and holds zeroes. Give it a file system or a swap area;\n\
             # lsblk shows it with the size {size}.\n{modules}"
        ),
    }
}

/// Quotes an argument for a shell, where it needs it.
fn shell_quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Flags with their values, a line each, continued as in a shell script.
fn shell_lines(arguments: &[String]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for argument in arguments {
        let quoted = shell_quoted(argument);
        match lines.last_mut() {
            Some(line) if !argument.starts_with('-') => {
                line.push(' ');
                line.push_str(&quoted);
            }
            _ => lines.push(format!("  {quoted}")),
        }
    }
    lines.join(" \\\n") + "\n"
}

#[cfg(test)]
mod tests;
