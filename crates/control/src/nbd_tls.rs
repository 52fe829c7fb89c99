//! The files that make TLS on NBD possible.

use std::path::PathBuf;

use crate::{Config, ControlError};

/// PEM files: all of them are there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NbdTls {
    /// The server's certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Certificates of the authorities whose clients are let in.
    pub client_ca: PathBuf,
}

impl Config {
    /// What it says of TLS on NBD: nothing, or everything.
    ///
    /// # Errors
    /// [`ControlError::NbdTls`] where a part is missing.
    pub fn nbd_tls(&self) -> Result<Option<NbdTls>, ControlError> {
        let given = [
            ("nbd-tls-cert", &self.nbd_tls_cert),
            ("nbd-tls-key", &self.nbd_tls_key),
            ("nbd-tls-client-ca", &self.nbd_tls_client_ca),
        ];
        match given.map(|(_, path)| path.clone()) {
            [Some(cert), Some(key), Some(client_ca)] => Ok(Some(NbdTls { cert, key, client_ca })),
            [None, None, None] => Ok(None),
            _ => {
                let names = |there: bool| {
                    let named = given.iter().filter(|(_, path)| path.is_some() == there);
                    named.map(|(name, _)| *name).collect::<Vec<_>>().join(" and ")
                };
                Err(ControlError::NbdTls { given: names(true), missing: names(false) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_none() {
        let path = || Some(PathBuf::from("/p"));
        assert_eq!(Config::default().nbd_tls().expect("none"), None);
        let all = Config {
            nbd_tls_cert: path(),
            nbd_tls_key: path(),
            nbd_tls_client_ca: path(),
            ..Config::default()
        };
        assert!(all.nbd_tls().expect("all").is_some());
        let error = Config { nbd_tls_client_ca: None, ..all }.nbd_tls().unwrap_err().to_string();
        assert!(error.contains("without nbd-tls-client-ca"), "{error}");
    }
}
