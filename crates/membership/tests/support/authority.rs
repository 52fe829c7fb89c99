//! Who signs the certificates of etcd and of its clients.

use std::{fs, path::Path};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tmem_membership::EtcdTls;

use super::etcd::Ways;

/// An authority, and a directory for what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Signed,
    directory: TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "who signs");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::IpAddress(SERVER.parse().unwrap())];
        let certificate = params.self_signed(&key).unwrap().pem();
        let own = Signed { certificate, key: key.serialize_pem() };
        Self { issuer: Issuer::new(params, key), own, directory: tempfile::tempdir().unwrap() }
    }

    /// Its own certificate, with which it signs.
    pub fn own(&self) -> &Signed {
        &self.own
    }

    /// A certificate for a name or an address that is good for so many days from now on.
    pub fn sign(&self, name: &str, days: i64) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().unwrap()),
        }];
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// A server with this certificate, and this test as a client that it accepts.
    pub fn ways(&self, server: &Signed, wants_certificate: bool) -> Ways {
        self.give(server);
        fs::write(self.file("ca.pem"), &self.own.certificate).unwrap();
        let path = |name: &str| self.file(name).to_str().unwrap().to_owned();
        let mut arguments = ["--cert-file", &path("server.pem"), "--key-file", &path("server-key.pem")]
            .map(str::to_owned)
            .to_vec();
        if wants_certificate {
            arguments.extend(["--client-cert-auth", "--trusted-ca-file", &path("ca.pem")].map(str::to_owned));
        }
        let tester = self.sign("tester", 1);
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.own.certificate))
            .identity(Identity::from_pem(tester.certificate, tester.key));
        Ways { arguments, is_https: true, options: ConnectOptions::new().with_tls(tls) }
    }

    /// The server has another certificate from its next start on.
    pub fn give(&self, server: &Signed) {
        fs::write(self.file("server.pem"), &server.certificate).unwrap();
        fs::write(self.file("server-key.pem"), &server.key).unwrap();
    }

    /// A client that believes this authority.
    pub fn tls(&self, own: Option<&Signed>) -> EtcdTls {
        let own = own.map(|own| (own.certificate.clone().into_bytes(), own.key.clone().into_bytes()));
        EtcdTls::new(self.own.certificate.clone().into_bytes(), own).unwrap()
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.directory.path(), name)
    }
}

/// Where servers are.
pub const SERVER: &str = "127.0.0.1";
