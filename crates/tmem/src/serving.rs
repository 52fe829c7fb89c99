//! What serves a disk: one of the transports.

use std::sync::Arc;

use tmem_control::{AdminError, DiskName, DiskSpec, Frontend, NbdAddress};
use tmem_disk::SwapDisk;
use tmem_keeper::Estate;
use tmem_nbd::{NbdError, NbdExport, NbdServer};
use tmem_transport::{PollLimit, SocketError};
use tmem_ublk::{UblkError, UblkFrontend, UblkOptions};
use tmem_vhost::{VhostError, VhostFrontend, VhostOptions};

use crate::{
    disks::Origin,
    own_swap::{OwnSwap, OwnSwapDisk},
};

/// Everything that disks can be served by.
pub(crate) struct Transports {
    pub(crate) poll_limit: PollLimit,
    pub(crate) nbd: Arc<NbdServer>,
    pub(crate) own_swap: OwnSwap,
    /// Another process stands by while there is such a disk.
    pub(crate) has_spare_worker: bool,
    /// What the worker before this one left.
    pub(crate) estate: Arc<Estate>,
    /// Which daemon this is: the next one with the same is its successor.
    pub(crate) owner: String,
}

/// A disk being served. Dropping it ends that.
pub(crate) enum Serving {
    VhostUser(VhostFrontend),
    Nbd(NbdExport),
    Ublk(UblkFrontend, OwnSwapDisk),
}

impl Transports {
    /// Serves a disk as asked for; gives the frontend that came of it, with the port that the OS chose if it was to.
    pub(crate) fn serve(
        &self,
        disk: &Arc<SwapDisk>,
        spec: &DiskSpec,
        origin: Origin,
    ) -> Result<(Serving, Frontend), AdminError> {
        let disk = Arc::clone(disk);
        match &spec.frontend {
            Frontend::VhostUser { socket, queues } => {
                let poll_limit = self.poll_limit.clone();
                let estate = Arc::clone(&self.estate);
                let options =
                    VhostOptions { queues: *queues, poll_limit, estate, ..VhostOptions::new(socket) };
                let frontend =
                    VhostFrontend::start(disk, options).map_err(|error| vhost_refused(&spec.name, error))?;
                Ok((Serving::VhostUser(frontend), spec.frontend.clone()))
            }
            Frontend::Nbd(address) => {
                let address = match address {
                    NbdAddress::Unix(path) => tmem_nbd::NbdAddress::Unix(path.clone()),
                    NbdAddress::Tcp(address) => tmem_nbd::NbdAddress::Tcp(*address),
                };
                let export =
                    self.nbd.export(disk, &address).map_err(|error| nbd_refused(&spec.name, error))?;
                let address = match export.address() {
                    tmem_nbd::NbdAddress::Unix(path) => NbdAddress::Unix(path.clone()),
                    tmem_nbd::NbdAddress::Tcp(address) => NbdAddress::Tcp(*address),
                };
                Ok((Serving::Nbd(export), Frontend::Nbd(address)))
            }
            Frontend::Ublk { queues, .. } => {
                if self.has_spare_worker && tmem_store::never_swapped().is_none() {
                    log::warn!(
                        "disk {}: this host may swap out what is stored, and hang, when a worker dies: that takes Linux 6.4 or later \
                         and CAP_SYS_ADMIN to rule out",
                        spec.name
                    );
                }
                let own_swap = self.own_swap.add();
                let options = UblkOptions {
                    queues: *queues,
                    owner: self.owner.clone(),
                    pages_are_left: origin == Origin::Left,
                    poll_limit: self.poll_limit.clone(),
                };
                let frontend =
                    UblkFrontend::start(disk, &options).map_err(|error| ublk_refused(&spec.name, error))?;
                let device = Some(frontend.path().to_owned());
                let made = Frontend::Ublk { queues: Some(frontend.queues()), device };
                Ok((Serving::Ublk(frontend, own_swap), made))
            }
        }
    }
}

impl Serving {
    /// Whether anybody is connected now, or the block device in use.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::VhostUser(frontend) => frontend.is_connected(),
            Self::Nbd(export) => export.connections() > 0,
            Self::Ublk(frontend, _) => frontend.is_in_use(),
        }
    }

    /// Who uses it, and how they leave it in peace.
    pub(crate) fn way_out(&self) -> String {
        match self {
            Self::VhostUser(_) | Self::Nbd(_) => "a guest is connected; shut the guest down first".to_owned(),
            Self::Ublk(frontend, _) => format!(
                "it is swap or mounted; `swapoff {0}` or `umount {0}` first",
                frontend.path().display()
            ),
        }
    }

    /// Ends connections and threads.
    pub(crate) fn stop(self) {
        match self {
            Self::VhostUser(frontend) => frontend.stop(),
            Self::Nbd(export) => export.stop(),
            Self::Ublk(frontend, own_swap) => {
                frontend.stop();
                drop(own_swap);
            }
        }
    }
}

fn vhost_refused(name: &DiskName, error: VhostError) -> AdminError {
    let text = format!("disk {name}: {error}");
    match error {
        VhostError::Queues { .. } | VhostError::QueueSize { .. } => AdminError::Invalid(text),
        VhostError::Socket(error) => socket_refused(text, &error),
        VhostError::Thread { .. } => AdminError::Failed(text),
    }
}

fn nbd_refused(name: &DiskName, error: NbdError) -> AdminError {
    let text = format!("disk {name}: {error}");
    match error {
        NbdError::NeedsTls { .. } | NbdError::NameTaken { .. } | NbdError::AddressInUse { .. } => {
            AdminError::Conflict(text)
        }
        NbdError::Socket(error) => socket_refused(text, &error),
        NbdError::Listen { .. }
        | NbdError::Thread { .. }
        | NbdError::TlsFile { .. }
        | NbdError::TlsIdentity { .. } => AdminError::Failed(text),
    }
}

fn ublk_refused(name: &DiskName, error: UblkError) -> AdminError {
    let text = format!("disk {name}: {error}");
    match error {
        UblkError::Queues { .. } => AdminError::Invalid(text),
        UblkError::NoDriver | UblkError::ThreadNotIoFlusher { .. } => AdminError::Conflict(text),
        UblkError::NotAllowed { .. }
        | UblkError::Command { .. }
        | UblkError::Open { .. }
        | UblkError::NotIoFlusher { .. }
        | UblkError::NotLocked { .. }
        | UblkError::Helper { .. }
        | UblkError::Memory { .. }
        | UblkError::Ring { .. }
        | UblkError::Thread { .. } => AdminError::Failed(text),
    }
}

fn socket_refused(text: String, error: &SocketError) -> AdminError {
    match error {
        SocketError::PathTooLong { .. } => AdminError::Invalid(text),
        SocketError::NoDirectory { .. } | SocketError::InUse { .. } | SocketError::NotASocket { .. } => {
            AdminError::Conflict(text)
        }
        SocketError::Make { .. } => AdminError::Failed(text),
    }
}
