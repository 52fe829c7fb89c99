//! Why a disk could not be exported.

use std::{io, path::PathBuf};

use tmem_transport::SocketError;

use crate::address::NbdAddress;

/// Why a disk could not be exported over NBD. Once it is, nothing a client does is an error of ours.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The address can be reached from other machines, and there is no TLS.
    #[error(
        "{address} can be reached from other machines, and NBD is served there with TLS and client certificates only: \
         give `tmem serve` --nbd-tls-cert, --nbd-tls-key and --nbd-tls-client-ca, or use 127.0.0.1 or a socket"
    )]
    NeedsTls {
        /// The address asked for.
        address: NbdAddress,
    },
    /// The name is exported at the address already.
    #[error("{address} has an export '{name}' already: choose another address")]
    NameTaken {
        /// The address asked for.
        address: NbdAddress,
        /// The export's name.
        name: String,
    },
    /// The Unix socket could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Another program listens at the address.
    #[error(
        "NBD address {address} is in use, by another program or another address of this daemon: choose another port"
    )]
    AddressInUse {
        /// The address asked for.
        address: NbdAddress,
    },
    /// The OS refuses the address.
    #[error("cannot listen on NBD address {address}: {error}; choose an address that this host has")]
    Listen {
        /// The address asked for.
        address: NbdAddress,
        /// What the system said.
        error: io::Error,
    },
    /// A thread could not be started.
    #[error(
        "cannot start the thread for NBD address {address}: {error}; check the limits on processes and descriptors"
    )]
    Thread {
        /// The address asked for.
        address: NbdAddress,
        /// What the system said.
        error: io::Error,
    },
    /// A file with certificates or a key is of no use.
    #[error("{what} {}: {why}; give a PEM file", path.display())]
    TlsFile {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are no pair, or TLS does not take them.
    #[error("NBD's TLS does not take certificate {} with its key: {why}; give the key that belongs to it", cert.display())]
    TlsIdentity {
        /// The certificate.
        cert: PathBuf,
        /// What is wrong.
        why: String,
    },
}
