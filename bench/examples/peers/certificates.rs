//! An authority, a certificate for each node, and TLS with them as the cluster has it: version 1.3, certificates on both sides, no tickets.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use tempfile::TempDir;
use tmem_peers::Security;

/// Nobody asks for another's name here: a borrower knows one lender, and that one no other borrower.
const NODES: [&str; 2] = ["lender-0", "borrower"];

/// Certificates of one node, and perhaps the directory that has those of all.
pub(crate) struct Certificates {
    directory: Option<TempDir>,
    node: &'static str,
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificates {
    /// New ones: the borrower's, and the lender's in a directory.
    pub(crate) fn make() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.der().to_vec();
        let issuer = Issuer::new(params, key);
        let [lender, borrower] = NODES.map(|node| issue(node, &issuer));
        let (certificate, key) = lender?;
        fs::write(directory.path().join("authority"), &authority)?;
        fs::write(directory.path().join("certificate"), certificate)?;
        fs::write(directory.path().join("key"), key)?;
        let (certificate, key) = borrower?;
        Ok(Self { directory: Some(directory), node: NODES[0], authority, certificate, key })
    }

    /// The lender's.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let read = |name| {
            fs::read(directory.join(name)).with_context(|| format!("no {name} in {}", directory.display()))
        };
        let (authority, certificate, key) = (read("authority")?, read("certificate")?, read("key")?);
        Ok(Self { directory: None, node: NODES[1], authority, certificate, key })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new("."), TempDir::path)
    }

    pub(crate) fn security(&self) -> Result<Security> {
        let provider = Arc::new(ring::default_provider());
        let mut authorities = RootCertStore::empty();
        authorities.add(CertificateDer::from(self.authority.clone()))?;
        let authorities = Arc::new(authorities);
        let chain = || vec![CertificateDer::from(self.certificate.clone())];
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), Arc::clone(&provider));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(chain(), key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(authorities)
            .with_client_auth_cert(chain(), key())?;
        let other = self.node.to_owned();
        Ok(Security::Tls {
            client: Arc::new(client),
            server: Arc::new(server),
            name_of: Arc::new(move |_| Ok(other.clone())),
            in_words: |_| None,
        })
    }
}

/// A certificate for a node, and its key.
fn issue(node: &str, issuer: &Issuer<'_, KeyPair>) -> Result<(Vec<u8>, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([node.to_owned()])?.signed_by(&key, issuer)?;
    Ok((certificate.der().to_vec(), key.serialize_der()))
}
