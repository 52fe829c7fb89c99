//! Whom the system trusts to sign certificates.

use std::fs;

/// Where systems have the certificates that they trust, in PEM.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Those that this system trusts, in PEM. `None`: they are nowhere where systems have them.
pub(crate) fn certificates() -> Option<Vec<u8>> {
    TRUSTED.iter().find_map(|path| fs::read(path).ok())
}
