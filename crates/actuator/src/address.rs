//! Where a guest is told.

use std::path::{Path, PathBuf};

/// Where a guest is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A guest under QEMU.
    Qemu {
        /// The Unix socket of a monitor of its own (`-qmp`).
        monitor: PathBuf,
        /// The Unix socket of the guest's agent, if one is asked for what only the guest knows.
        agent: Option<PathBuf>,
    },
    /// The API socket of a Cloud Hypervisor.
    CloudHypervisor(PathBuf),
    /// The API socket of a Firecracker.
    Firecracker(PathBuf),
    /// The directory of a cgroup of version 2.
    Cgroup(PathBuf),
}

impl Address {
    /// What it is: `qemu`, `cloud-hypervisor`, `firecracker` or `cgroup`.
    pub fn kind(&self) -> &'static str {
        match self {
            Address::Qemu { .. } => "qemu",
            Address::CloudHypervisor(_) => "cloud-hypervisor",
            Address::Firecracker(_) => "firecracker",
            Address::Cgroup(_) => "cgroup",
        }
    }

    /// The path that errors name.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Address::Qemu { monitor: path, .. }
            | Address::CloudHypervisor(path)
            | Address::Firecracker(path)
            | Address::Cgroup(path) => path,
        }
    }
}
