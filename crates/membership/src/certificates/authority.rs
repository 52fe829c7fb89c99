//! Makes certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use time::{Duration, OffsetDateTime};
use tmem_cluster::NodeName;

use crate::{ClusterId, MembershipError};

/// Ten years: nobody renews an authority gladly, and its key lies on one host.
const AUTHORITY_DAYS: i64 = 3653;
/// Two years: a node's key lies where guests run. Others ask for theirs to be renewed each year.
const NODE_DAYS: i64 = 731;

/// The cluster's authority, with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// A node's certificate and its key, as files have them.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one, its certificate and its key.
    pub(crate) fn make(cluster: ClusterId) -> Result<(Self, Issued), MembershipError> {
        let key = new_key()?;
        let params = authority_params(cluster);
        let certificate = params.self_signed(&key)?.pem();
        let issued = Issued { certificate, key: key.serialize_pem() };
        Ok((Self { issuer: Issuer::new(params, key) }, issued))
    }

    /// The one of this key.
    pub(crate) fn with_key(cluster: ClusterId, key: &str) -> Result<Self, rcgen::Error> {
        Ok(Self { issuer: Issuer::new(authority_params(cluster), KeyPair::from_pem(key)?) })
    }

    /// A certificate for a node, with a new key, from today on.
    pub(crate) fn issue(&self, name: &NodeName) -> Result<Issued, MembershipError> {
        self.issue_until(name, OffsetDateTime::now_utc() + Duration::days(NODE_DAYS))
    }

    pub(crate) fn issue_until(
        &self,
        name: &NodeName,
        end: OffsetDateTime,
    ) -> Result<Issued, MembershipError> {
        let key = new_key()?;
        let mut params = CertificateParams::new([name.to_string()])?;
        params.distinguished_name.push(DnType::CommonName, name.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = beginning();
        params.not_after = end;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        // Before the certificate itself there may be any text. This is for people, and for the warning before it is too late.
        let certificate = format!("{name}, valid until {}\n{certificate}", end.date());
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn authority_params(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("tmem cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = beginning();
    params.not_after = OffsetDateTime::now_utc() + Duration::days(AUTHORITY_DAYS);
    params
}

/// Certificates are valid from long ago: a host whose clock is behind after a cold start shall find its peers all the same.
fn beginning() -> OffsetDateTime {
    date_time_ymd(2000, 1, 1)
}
