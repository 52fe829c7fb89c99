//! Where exports are reached.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// Where a listener listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NbdAddress {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// TCP. Port 0 lets the OS choose.
    Tcp(SocketAddr),
}

impl NbdAddress {
    /// Whether only programs of this host reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().is_loopback(),
        }
    }
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}
