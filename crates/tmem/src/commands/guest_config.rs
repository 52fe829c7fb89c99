//! `tmem guest-config`.

use clap::{Args, ValueEnum};
use tmem_control::{AdminClient, AdminError, ByteSize, ControlError, DiskName};

use super::print;
use crate::{
    Outcome,
    failure::Failure,
    guest_config::{self, Guest, Vmm},
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
}

impl From<VmmName> for Vmm {
    fn from(name: VmmName) -> Self {
        match name {
            VmmName::Qemu => Self::Qemu,
            VmmName::Libvirt => Self::Libvirt,
            VmmName::CloudHypervisor => Self::CloudHypervisor,
            VmmName::Firecracker => Self::Firecracker,
            VmmName::Uml => Self::Uml,
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
    let guest = Guest::new(&disk, arguments.memory)?;
    let vmm = Vmm::from(arguments.vmm);
    if !arguments.args_only {
        return print(&guest.instructions(vmm)?);
    }
    match guest.arguments(vmm)? {
        Some(list) => print(&list.iter().map(|argument| format!("{argument}\n")).collect::<String>()),
        None => Err(Failure::Usage(
            "--args-only: this monitor takes a document and no arguments; leave --args-only out".to_owned(),
        )),
    }
}
