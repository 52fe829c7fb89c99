//! TLS to etcd.

use std::{fmt, sync::Arc};

use etcd_client::{Certificate, Identity, TlsOptions};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::MembershipError;

/// A key of the configuration, and what is to be in the file that it names.
type File = (&'static str, &'static str);

const AUTHORITIES: File = ("etcd-ca", "give the certificates of who signs etcd's");
const CERTIFICATE: File = ("etcd-certificate", "give this host's certificate as etcd's client");
const KEY: File = ("etcd-key", "give the private key of etcd-certificate, not encrypted");

/// Whom a host believes that it is etcd, and as whom etcd knows it. Files in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdTls {
    authorities: Vec<u8>,
    own: Option<Own>,
}

/// This host's certificate as etcd's client.
#[derive(Clone, PartialEq, Eq)]
struct Own {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl EtcdTls {
    /// `authorities`: certificates of those who sign etcd's. `own`: this host's certificate and its key, if etcd is to see one.
    ///
    /// # Errors
    /// [`MembershipError::EtcdTls`]: something that is not what it should be, or a key of another certificate.
    pub fn new(authorities: Vec<u8>, own: Option<(Vec<u8>, Vec<u8>)>) -> Result<Self, MembershipError> {
        let own = own.map(|(certificate, key)| Own { certificate, key });
        let tls = Self { authorities, own };
        tls.config()?;
        Ok(tls)
    }

    /// Whether etcd is shown a certificate.
    pub(crate) fn has_certificate(&self) -> bool {
        self.own.is_some()
    }

    /// The same for etcd's client.
    pub(crate) fn options(&self) -> TlsOptions {
        let options = TlsOptions::new().ca_certificate(Certificate::from_pem(&self.authorities));
        match &self.own {
            Some(own) => options.identity(Identity::from_pem(&own.certificate, &own.key)),
            None => options,
        }
    }

    /// The same for a handshake of one's own.
    pub(crate) fn config(&self) -> Result<ClientConfig, MembershipError> {
        let authorities = certificates(AUTHORITIES, &self.authorities)?;
        let mut roots = RootCertStore::empty();
        // As with what a system trusts: some of many may be of a kind that is not known here.
        if roots.add_parsable_certificates(authorities).0 == 0 {
            return Err(wrong(AUTHORITIES, "none of its certificates can be used".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(AUTHORITIES, error.to_string()))?
            .with_root_certificates(roots);
        let Some(own) = &self.own else { return Ok(builder.with_no_client_auth()) };
        let own_certificates = certificates(CERTIFICATE, &own.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&own.key)
            .map_err(|_| wrong(KEY, "it has no private key in PEM, or one that is encrypted".to_owned()))?;
        builder.with_client_auth_cert(own_certificates, key).map_err(|error| {
            let why = match error {
                rustls::Error::InconsistentKeys(_) => "it is not the key of etcd-certificate".to_owned(),
                other => other.to_string(),
            };
            wrong(KEY, why)
        })
    }
}

/// Keys are not for logs.
impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").field("has_certificate", &self.own.is_some()).finish_non_exhaustive()
    }
}

/// All that are there, and one at least.
fn certificates(file: File, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MembershipError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(wrong(file, "it has no certificate in PEM".to_owned())),
    }
}

fn wrong((key, way_out): File, why: String) -> MembershipError {
    MembershipError::EtcdTls { key, why, way_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key.
    fn made() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["host-a".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn what_goes_together_is_taken_and_no_key_is_shown() {
        let (certificate, key) = made();
        let several = [&certificate[..], &made().0[..]].concat();
        assert!(!EtcdTls::new(several, None).unwrap().has_certificate());
        let tls = EtcdTls::new(certificate.clone(), Some((certificate, key.clone()))).unwrap();
        assert!(tls.has_certificate());
        let shown = format!("{tls:?}");
        assert!(!shown.contains(&format!("{key:?}")) && shown.len() < 100, "{shown}");
    }

    #[test]
    fn what_does_not_is_one_line_that_names_the_key() {
        let ((certificate, key), (other, other_key)) = (made(), made());
        let noise = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
        let own = |certificate: &[u8], key: &[u8]| Some((certificate.to_vec(), key.to_vec()));
        for (authorities, own, named) in [
            (b"".to_vec(), None, "etcd-ca: "),
            (key.clone(), None, "etcd-ca: "),
            (noise.clone(), None, "etcd-ca: "),
            (other.clone(), own(b"", &key), "etcd-certificate: "),
            (other.clone(), own(&certificate, &certificate), "etcd-key: "),
            (other.clone(), own(&certificate, &other_key), "etcd-key: it is not the key of"),
        ] {
            let error = EtcdTls::new(authorities, own).unwrap_err().to_string();
            assert!(error.starts_with(named) && !error.contains('\n'), "{named}: {error}");
        }
    }
}
