//! Names of nodes in certificates.

use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use tmem_cluster::NodeName;
use webpki::EndEntityCert;

use crate::MembershipError;

/// A name that a certificate can carry: one of the domain name system's.
pub(crate) fn check_name(name: &str) -> Result<NodeName, MembershipError> {
    let wrong =
        || MembershipError::Name { name: name.chars().filter(|c| !c.is_control()).take(70).collect() };
    let node: NodeName = name.parse().map_err(|_| wrong())?;
    dns_name(&node).map(|_| node).ok_or_else(wrong)
}

/// What a borrower must find in the certificate of the lender of this name. `None`: no certificate can carry it.
pub fn server_name(name: &NodeName) -> Option<ServerName<'static>> {
    dns_name(name).map(ServerName::DnsName)
}

fn dns_name(name: &NodeName) -> Option<DnsName<'static>> {
    // Such as 10.0.0.1, which would be compared with addresses.
    let is_number = name.as_str().rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { None } else { DnsName::try_from(name.to_string()).ok() }
}

/// Whose certificates these are, once TLS has checked them. It must be the name that the peer says in its hello: a node could otherwise
/// speak for another one.
///
/// # Errors
/// [`MembershipError::NoNodesCertificate`]: none, or one that is not of one node.
pub fn peer_name(certificates: &[CertificateDer<'_>]) -> Result<NodeName, MembershipError> {
    let wrong = |why: String| MembershipError::NoNodesCertificate { why };
    let first = certificates.first().ok_or_else(|| wrong("there is none".to_owned()))?;
    let certificate = EndEntityCert::try_from(first).map_err(|error| wrong(error.to_string()))?;
    let mut names = certificate.valid_dns_names();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(wrong("it has not one name".to_owned()));
    };
    check_name(name).map_err(|_| wrong("its name is no node's".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_hosts_are_names_and_addresses_are_none() {
        for name in ["a", "host-1", "host-1.example", "1a", "0.b", "x-1.rack-2"] {
            assert_eq!(check_name(name).unwrap().as_str(), name);
        }
        for name in ["", "10.0.0.1", "7", "a.7", "-a", "a-", "a..b", ".a", "a.", "a_b", "A", "ä", "a\nb"] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains("no name for a node") && !error.contains('\n'), "{name}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_either_refused_or_fits_a_certificate(name in "[a-z0-9.-]{1,63}") {
            if let Ok(node) = check_name(&name) {
                let key = rcgen::KeyPair::generate().unwrap();
                let params = rcgen::CertificateParams::new([name.clone()]).unwrap();
                let certificate = params.self_signed(&key).unwrap();
                prop_assert_eq!(peer_name(std::slice::from_ref(certificate.der())).unwrap(), node);
                let parsed = EndEntityCert::try_from(certificate.der()).unwrap();
                prop_assert!(parsed.verify_is_valid_for_subject_name(&server_name(&node).unwrap()).is_ok());
            }
        }
    }
}
