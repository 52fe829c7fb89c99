//! What serves a disk: one of the transports.

use std::sync::Arc;

use tmem_control::{AdminError, DiskName, DiskSpec, Frontend, NbdAddress};
use tmem_disk::SwapDisk;
use tmem_nbd::{NbdError, NbdExport, NbdServer};
use tmem_transport::{PollLimit, SocketError};
use tmem_vhost::{VhostError, VhostFrontend, VhostOptions};

/// Everything that disks can be served by.
pub(crate) struct Transports {
    pub(crate) poll_limit: PollLimit,
    pub(crate) nbd: Arc<NbdServer>,
}

/// A disk being served. Dropping it ends that.
pub(crate) enum Serving {
    VhostUser(VhostFrontend),
    Nbd(NbdExport),
}

impl Transports {
    /// Serves a disk as asked for; gives the frontend that came of it, with the port that the OS chose if it was to.
    pub(crate) fn serve(
        &self,
        disk: &Arc<SwapDisk>,
        spec: &DiskSpec,
    ) -> Result<(Serving, Frontend), AdminError> {
        let disk = Arc::clone(disk);
        match &spec.frontend {
            Frontend::VhostUser { socket, queues } => {
                let poll_limit = self.poll_limit.clone();
                let options = VhostOptions { queues: *queues, poll_limit, ..VhostOptions::new(socket) };
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
        }
    }
}

impl Serving {
    /// Whether anybody is connected now.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::VhostUser(frontend) => frontend.is_connected(),
            Self::Nbd(export) => export.connections() > 0,
        }
    }

    /// Ends connections and threads.
    pub(crate) fn stop(self) {
        match self {
            Self::VhostUser(frontend) => frontend.stop(),
            Self::Nbd(export) => export.stop(),
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

fn socket_refused(text: String, error: &SocketError) -> AdminError {
    match error {
        SocketError::PathTooLong { .. } => AdminError::Invalid(text),
        SocketError::NoDirectory { .. } | SocketError::InUse { .. } | SocketError::NotASocket { .. } => {
            AdminError::Conflict(text)
        }
        SocketError::Make { .. } => AdminError::Failed(text),
    }
}
