//! `tmem guest-config`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use tmem_control::{
    AdminClient, AdminError, ByteSize, ControlError, DiskName, TRANSPORT_NBD, TRANSPORT_UBLK,
};

use super::print;
use crate::{
    Outcome,
    failure::Failure,
    guest_config::{self, Guest, HostDisk, NbdGuest, Vmm},
};

/// `tmem guest-config`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the disk
    name: DiskName,
    /// What runs the guest
    #[arg(long, value_enum)]
    vmm: VmmName,
    /// The guest's memory; the monitor must share it with tmem, so it appears in what is printed
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    memory: ByteSize,
    /// Only the monitor's arguments, one a line, for scripts
    #[arg(long)]
    args_only: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum VmmName {
    Qemu,
    Libvirt,
    CloudHypervisor,
    Firecracker,
    Uml,
    /// The NBD client of a Linux kernel, in a guest or on a host
    NbdClient,
    /// The daemon's own host, over ublk: no guest at all
    Host,
}

impl From<VmmName> for Vmm {
    fn from(name: VmmName) -> Self {
        match name {
            VmmName::Qemu => Self::Qemu,
            VmmName::Libvirt => Self::Libvirt,
            VmmName::CloudHypervisor => Self::CloudHypervisor,
            VmmName::Firecracker => Self::Firecracker,
            VmmName::Uml => Self::Uml,
            VmmName::NbdClient => Self::NbdClient,
            VmmName::Host => Self::Host,
        }
    }
}

/// Asks the daemon for the disk and prints what its guest needs.
pub(crate) fn run(arguments: &Arguments, client: &AdminClient) -> Outcome {
    let name = &arguments.name;
    if arguments.memory.bytes() < guest_config::MIN_MEMORY_BYTES
        || !arguments.memory.bytes().is_multiple_of(guest_config::MIN_MEMORY_BYTES)
    {
        return Err(Failure::Usage(format!(
            "--memory {}: give a whole number of M, at least 1M, such as 512M",
            arguments.memory
        )));
    }
    let disk = client.disks()?.into_iter().find(|disk| disk.name == *name).ok_or_else(|| {
        ControlError::Admin(AdminError::NotFound(format!(
            "disk {name} does not exist; `tmem disk ls` shows those that do"
        )))
    })?;
    let vmm = Vmm::from(arguments.vmm);
    if disk.transport == TRANSPORT_NBD {
        let guest = NbdGuest::new(&disk)?;
        return show(arguments, || guest.instructions(vmm), || guest.arguments(vmm));
    }
    if disk.transport == TRANSPORT_UBLK {
        let disk = HostDisk::new(&disk)?;
        return show(arguments, || disk.instructions(vmm), || disk.arguments(vmm));
    }
    let guest = Guest::new(&disk, arguments.memory)?;
    show(arguments, || guest.instructions(vmm), || guest.arguments(vmm))
}

fn show(
    arguments: &Arguments,
    instructions: impl FnOnce() -> Result<String>,
    list: impl FnOnce() -> Result<Option<Vec<String>>>,
) -> Outcome {
    if !arguments.args_only {
        return print(&instructions()?);
    }
    match list()? {
        Some(list) => print(&list.iter().map(|argument| format!("{argument}\n")).collect::<String>()),
        None => {
            Err(Failure::Usage("--args-only: this one takes no arguments; leave --args-only out".to_owned()))
        }
    }
}
