//! TLS between nodes.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use time::{Date, Month, OffsetDateTime};
use tmem_cluster::NodeName;

use super::names::peer_name;
use crate::{
    Identity, MembershipError,
    directory::{AUTHORITY, CERTIFICATE, Directory, KEY},
};

/// What TLS of a node is made of, as text of files.
pub(crate) struct TlsFiles<'a> {
    pub(crate) authority: &'a str,
    pub(crate) certificate: &'a str,
    pub(crate) key: &'a str,
}

/// What is wrong, and in which file.
pub(crate) type Unfit = (&'static str, String);

/// What lenders and borrowers of the node of this directory speak TLS with. The peer's certificate is of the cluster's authority when a
/// handshake succeeds. Whose it is, is left to do: a borrower names the lender it expects ([`super::server_name`]), a lender compares
/// [`super::peer_name`] with the hello.
///
/// # Errors
/// Files that are missing, damaged, or do not go with each other.
pub fn tls_configs(directory: &Path) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), MembershipError> {
    let directory = Directory::at(directory);
    let name = Identity::load(directory.path())?.name();
    let (authority, certificate, key) =
        (directory.read(AUTHORITY)?, directory.read(CERTIFICATE)?, directory.read(KEY)?);
    let files = TlsFiles { authority: &authority, certificate: &certificate, key: &key };
    fit(&files, &name).map_err(|(file, why)| MembershipError::Certificates {
        path: directory.file(file),
        directory: directory.path().to_owned(),
        why,
    })
}

/// After how many days the certificate of the node of this directory is no longer valid; less than 0: so long it has not been.
///
/// # Errors
/// It cannot be read, or says no date.
pub fn days_left(directory: &Path) -> Result<i64, MembershipError> {
    let directory = Directory::at(directory);
    let text = directory.read(CERTIFICATE)?;
    let end = end_of(&text).ok_or_else(|| MembershipError::Certificates {
        path: directory.file(CERTIFICATE),
        directory: directory.path().to_owned(),
        why: "its first line says no date".to_owned(),
    })?;
    Ok((end - OffsetDateTime::now_utc().date()).whole_days())
}

/// The date of the first line, which the authority wrote there.
fn end_of(certificate: &str) -> Option<Date> {
    let mut parts = certificate.lines().next()?.split_once("valid until ")?.1.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()
}

/// What a node of this name speaks TLS with, if the three go with each other and with the name.
pub(crate) fn fit(
    files: &TlsFiles<'_>,
    name: &NodeName,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Unfit> {
    let authority = CertificateDer::from_pem_slice(files.authority.as_bytes()).map_err(damaged(AUTHORITY))?;
    let certificate =
        CertificateDer::from_pem_slice(files.certificate.as_bytes()).map_err(damaged(CERTIFICATE))?;
    let key = || PrivateKeyDer::from_pem_slice(files.key.as_bytes()).map_err(damaged(KEY));
    let issued_to =
        peer_name(std::slice::from_ref(&certificate)).map_err(|error| (CERTIFICATE, error.to_string()))?;
    if issued_to != *name {
        return Err((CERTIFICATE, format!("it is for {issued_to}, and this node is {name}")));
    }

    let mut authorities = RootCertStore::empty();
    authorities.add(authority).map_err(|error| (AUTHORITY, error.to_string()))?;
    let authorities = Arc::new(authorities);
    let provider = Arc::new(ring::default_provider());
    let unfit = |error: rustls::Error| (KEY, error.to_string());

    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), Arc::clone(&provider))
            .build()
            .map_err(|error| (AUTHORITY, error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(unfit)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key()?)
        .map_err(unfit)?;
    // Connections last for weeks. So each begins with certificates, and none with a ticket of one that began before they changed.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unfit)?
        .with_root_certificates(authorities)
        .with_client_auth_cert(vec![certificate], key()?)
        .map_err(unfit)?;
    client.resumption = Resumption::disabled();
    Ok((Arc::new(server), Arc::new(client)))
}

/// PEM errors name no file, and one of them is only the word "Io".
fn damaged(file: &'static str) -> impl Fn(pem::Error) -> Unfit {
    move |error| match error {
        pem::Error::NoItemsFound => (file, "it holds none".to_owned()),
        other => (file, format!("it is damaged ({other})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_they_are_written() {
        let date = Date::from_calendar_date(2028, Month::November, 9).unwrap();
        assert_eq!(end_of(&format!("host-a, valid until {date}\n-----BEGIN")), Some(date));
        for text in ["", "-----BEGIN", "valid until ", "valid until 2028-13-01", "valid until 2028-02-30"] {
            assert_eq!(end_of(text), None, "{text}");
        }
    }
}
