//! Where a disk is exported over NBD, as people write it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ControlError;

/// A Unix socket or a TCP address. Several disks may have the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NbdAddress {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// TCP. Port 0 lets the OS choose.
    Tcp(SocketAddr),
}

impl FromStr for NbdAddress {
    type Err = ControlError;

    /// `IP:PORT` is TCP and anything else a path, unless it looks as if TCP had been meant.
    fn from_str(text: &str) -> Result<Self, ControlError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let ends_in_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u32>().is_ok());
        let meant_tcp = !text.contains('/') && (ends_in_port || text.parse::<IpAddr>().is_ok());
        if text.is_empty() || meant_tcp {
            return Err(ControlError::NbdAddress { text: text.to_owned() });
        }
        Ok(Self::Unix(text.into()))
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

impl Serialize for NbdAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unix(path) => path.serialize(serializer),
            Self::Tcp(address) => address.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NbdAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_told_apart() {
        for (text, tcp) in [
            ("127.0.0.1:10809", true),
            ("[::1]:0", true),
            ("/run/tmem/nbd.sock", false),
            ("nbd.sock", false),
            ("./a:1", false),
            ("a:b", false),
        ] {
            let address: NbdAddress = text.parse().expect(text);
            assert_eq!(matches!(address, NbdAddress::Tcp(_)), tcp, "{text}");
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).expect("json");
            assert_eq!(serde_json::from_str::<NbdAddress>(&json).expect("address"), address);
        }
    }

    #[test]
    fn what_was_meant_as_tcp_is_no_path() {
        for text in ["", "localhost:10809", "127.0.0.1", "::1", "127.0.0.1:70000", ":10809"] {
            let error = text.parse::<NbdAddress>().expect_err(text).to_string();
            assert!(error.contains("127.0.0.1:10809"), "{error}");
        }
    }
}
