//! `tmem disk`: add, rm, ls.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use tmem_control::{
    AdminClient, ByteSize, DedupChoice, DiskFormat, DiskList, DiskName, DiskSpec, DiskStatus, Frontend,
    NbdAddress, Status,
};
use tmem_store::Weight;

use super::print;
use crate::{
    Outcome,
    failure::Failure,
    table::{Align, Table},
};

/// What can be done with disks.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a swap disk and serve it
    Add(Add),
    /// Stop serving a disk and forget its pages
    Rm(Remove),
    /// List the disks
    Ls(List),
}

/// `tmem disk add`.
#[derive(Args)]
pub(crate) struct Add {
    /// Name of the disk and of its client: 1 to 63 of A-Z a-z 0-9 . _ -
    name: DiskName,
    /// What the guest sees as its size: a multiple of 4K, at least 1M, such as 4G
    #[arg(long, allow_hyphen_values = true)]
    size: ByteSize,
    /// Socket for the virtual machine monitor to connect to; at most the socket of a program that is gone may be there
    #[arg(long, value_name = "SOCKET", required_unless_present_any = ["nbd", "ublk"], conflicts_with_all = ["nbd", "ublk"])]
    vhost_user: Option<PathBuf>,
    /// Where NBD clients find the disk, by its name: IP:PORT or a socket; disks may share it
    #[arg(long, value_name = "ADDR|SOCKET", conflicts_with = "ublk")]
    nbd: Option<NbdAddress>,
    /// Make it a block device of this host, above all for its own swap; prints the device. Needs the kernel's ublk_drv, and root
    #[arg(long)]
    ublk: bool,
    /// The most of the pool that its pages may take [default: the pool's limit]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    cap: Option<ByteSize>,
    /// Its share under pressure, relative to other disks', 1 to 10000: when the pool is nearly full, disks beyond their share take no
    /// more
    #[arg(long, value_name = "N", default_value_t, allow_negative_numbers = true)]
    weight: Weight,
    /// With whose pages its own may share memory when they are equal: those of the same disk, none, or those of
    /// every disk that names this domain (which can then learn from timing what the others hold)
    #[arg(long, value_name = "alone|off|DOMAIN", default_value_t)]
    dedup: DedupChoice,
    /// swap: born as an empty swap area with the label tmem; none: zeroes
    #[arg(long, value_name = "swap|none", default_value_t)]
    format: DiskFormat,
    /// Virtqueues offered to the guest over vhost-user, or queues of the ublk device, with a thread each [default: 4, or one
    /// for each CPU]
    #[arg(long, value_name = "N", conflicts_with = "nbd")]
    queues: Option<u16>,
}

/// `tmem disk rm`.
#[derive(Args)]
pub(crate) struct Remove {
    /// Name of the disk
    name: DiskName,
    /// Even while a guest is connected: it loses its pages and gets I/O errors. Swap of this host is turned off first
    #[arg(long)]
    force: bool,
}

/// `tmem disk ls`.
#[derive(Args)]
pub(crate) struct List {
    /// The daemon's JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(crate) fn run(command: Command, client: &AdminClient) -> Outcome {
    match command {
        Command::Add(add) => run_add(add, client),
        Command::Rm(remove) => Ok(client.remove_disk(&remove.name, remove.force)?),
        Command::Ls(list) if list.json => {
            let list = DiskList { disks: client.disks()? };
            print(&format!("{}\n", serde_json::to_string_pretty(&list)?))
        }
        Command::Ls(_) => print(&table(&client.status()?)),
    }
}

fn run_add(add: Add, client: &AdminClient) -> Outcome {
    // The daemon has another working directory, so paths are made absolute here.
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).with_context(|| format!("cannot use socket path `{}`", path.display()))
    };
    let vhost_user = add.vhost_user.map(absolute).transpose()?;
    let nbd = match add.nbd {
        Some(NbdAddress::Unix(path)) => Some(NbdAddress::Unix(absolute(path)?)),
        other => other,
    };
    let frontend = Frontend::new(vhost_user, nbd, add.ublk, add.queues)
        .map_err(|wrong| Failure::Usage(format!("disk {}: {wrong}", add.name)))?;
    let spec = DiskSpec {
        name: add.name,
        size_bytes: add.size.bytes(),
        frontend,
        cap_bytes: add.cap.map(ByteSize::bytes),
        weight: add.weight,
        dedup: add.dedup,
        format: add.format,
    };
    spec.check().map_err(|error| Failure::Usage(error.to_string()))?;
    match client.add_disk(&spec)?.device {
        Some(device) => print(&format!("{}\n", device.display())),
        None => Ok(()),
    }
}

fn user_of(disk: &DiskStatus) -> &'static str {
    match (disk.connected, disk.device.is_some()) {
        (false, _) => "none",
        (true, false) => "connected",
        (true, true) => "this host",
    }
}

fn table(status: &Status) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("NAME", Left),
        ("SIZE", Right),
        ("GUEST", Left),
        ("STORED", Right),
        ("USED", Right),
        ("WHERE", Left),
    ]);
    let mut any = false;
    for client in &status.clients {
        let Some(disk) = &client.disk else { continue };
        any = true;
        table.row(vec![
            client.name.clone(),
            ByteSize::from_bytes(disk.size_bytes).to_string(),
            user_of(disk).to_owned(),
            ByteSize::from_bytes(client.logical_bytes).rounded(),
            ByteSize::from_bytes(client.used_bytes).rounded(),
            disk.place(),
        ]);
    }
    if any { table.render() } else { "no disks; `tmem disk add` makes one\n".to_owned() }
}
