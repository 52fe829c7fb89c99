//! What it means when etcd does not do as it should, and the way out: a line for each.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError};

use super::{probe::Handshake, server::Server, settings::host_and_port};

/// The longest line that comes from elsewhere.
const LONGEST_CHARS: usize = 300;

/// What etcd says that it does not do. It says so in the same words since 3.0, and not always with the same code.
pub(crate) fn of_refusal(server: &Server, message: &str) -> String {
    let says = |part: &str| message.contains(part);
    if says("invalid user ID or password") {
        return "wrong user or password; look at etcd-user and etcd-password-file".to_owned();
    }
    if says("user name is empty") {
        return "it wants a login; give etcd-user and etcd-password-file".to_owned();
    }
    if says("authentication is not enabled") {
        return "it has no logins; run `etcdctl auth enable`, or leave out etcd-user and etcd-password-file"
            .to_owned();
    }
    if says("permission denied") {
        let who = match &server.settings.login {
            Some(login) => format!("user {}", login.user),
            None => "the user that etcd-certificate names".to_owned(),
        };
        return format!(
            "permission denied; grant a role of {who} readwrite on keys with the prefix {}",
            server.prefix
        );
    }
    match message {
        "" => "no answer".to_owned(),
        message => one_line(message),
    }
}

/// Why a connection cannot be made or was lost, where it is TLS that says so.
pub(crate) fn of_connection(server: &Server, cause: Option<&(dyn Error + 'static)>) -> Option<String> {
    let mut next = cause;
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(is_end_of_handshake) {
            return Some(
                "it ends the connection before TLS begins; if it does not speak TLS, write http:// in etcd"
                    .to_owned(),
            );
        }
        let inner = io.and_then(io::Error::get_ref);
        let within = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(error) = within.or_else(|| error.downcast_ref::<rustls::Error>()) {
            return Some(of_tls(server, error));
        }
        next = error.source();
    }
    None
}

/// As tokio-rustls says it.
fn is_end_of_handshake(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof && error.to_string() == "tls handshake eof"
}

/// What another handshake found out.
pub(crate) fn of_handshake(server: &Server, handshake: &Handshake) -> Option<String> {
    match handshake {
        Handshake::SpeaksTls => Some("it speaks TLS; write https:// in etcd".to_owned()),
        Handshake::Failed(error) => Some(of_tls(server, error)),
    }
}

fn of_tls(server: &Server, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => of_certificate(server, why),
        rustls::Error::AlertReceived(alert) => of_alert(server, *alert),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS; write http:// in etcd".to_owned(),
        other => one_line(&other.to_string()),
    }
}

fn of_certificate(server: &Server, why: &CertificateError) -> String {
    let host = host_and_port(&server.endpoint).map_or("", |(host, _)| host);
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by nobody who is trusted; say with etcd-ca who signs etcd's certificates".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or this host's clock is wrong; renew it there".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or this host's clock is wrong".to_owned()
        }
        CertificateError::NotValidForName => format!(
            "its certificate is not for {host}; write in etcd a name that it is for, or have one made for {host}"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => match &names(presented)[..] {
            "" => format!(
                "its certificate is for no name at all; have one made for {host}, as its subjectAltName"
            ),
            names => one_line(&format!(
                "its certificate is for {names} and not for {host}; write in etcd a name that it is for, or have one made for {host}"
            )),
        },
        CertificateError::Other(other) if is_authority(other) => {
            "its certificate is an authority's own; have one made that is not (CA:FALSE), and signed by that one".to_owned()
        }
        other => one_line(&format!("its certificate is not accepted: {other}")),
    }
}

/// As `openssl req -x509` makes them if nothing else is said.
fn is_authority(error: &rustls::OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Without what the library writes around each.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').to_owned()
    };
    presented.iter().map(bare).collect::<Vec<_>>().join(", ")
}

fn of_alert(server: &Server, alert: AlertDescription) -> String {
    let has_certificate = server.settings.tls.as_ref().is_some_and(|tls| tls.has_certificate());
    match (alert, has_certificate) {
        (AlertDescription::CertificateExpired, true) => {
            "it finds that etcd-certificate has expired; renew it, and `tmem upgrade`".to_owned()
        }
        (
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
            true,
        ) => "it does not accept etcd-certificate; give one that is signed by etcd's trusted-ca-file, good for clients, and not expired".to_owned(),
        (AlertDescription::CertificateRequired | AlertDescription::BadCertificate, false) => {
            "it wants a certificate of this host; give etcd-certificate and etcd-key".to_owned()
        }
        (AlertDescription::ProtocolVersion, _) => "it speaks no TLS 1.2 or 1.3".to_owned(),
        (other, _) => format!("it ended the handshake with the alert {other:?}"),
    }
}

/// An error and its causes, each said once and without line breaks.
pub(crate) fn said(first: &str, mut cause: Option<&(dyn Error + 'static)>) -> String {
    let mut text = first.to_owned();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::EtcdSettings;

    fn server(endpoint: &str, user: Option<&str>) -> Server {
        let settings = EtcdSettings::new(&[endpoint]).unwrap();
        let settings = match user {
            Some(user) => settings.with_login(user, "secret").unwrap(),
            None => settings,
        };
        Server { endpoint: endpoint.to_owned(), settings: Arc::new(settings), prefix: "/tmem/1/".to_owned() }
    }

    #[test]
    fn what_etcd_refuses_is_said_with_the_way_out() {
        let (user, nobody) = (server("http://a:1", Some("tmem")), server("http://a:1", None));
        for (server, message, part) in [
            (&user, "etcdserver: authentication failed, invalid user ID or password", "etcd-password-file"),
            (&nobody, "etcdserver: user name is empty", "give etcd-user"),
            (&user, "etcdserver: authentication is not enabled", "leave out etcd-user"),
            (
                &user,
                "etcdserver: permission denied",
                "role of user tmem readwrite on keys with the prefix /tmem/1/",
            ),
            (&nobody, "etcdserver: permission denied", "etcd-certificate"),
            (&user, "etcdserver: no leader", "etcdserver: no leader"),
            (&user, "two\nlines", "two lines"),
            (&user, "", "no answer"),
        ] {
            let said = of_refusal(server, message);
            assert!(said.contains(part) && !said.contains('\n') && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_names_both_names() {
        let host = server("https://[fd00::1]:2379", None);
        let wrong = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: "fd00::1".try_into().unwrap(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (error, part) in [
            (wrong(&["DnsName(\"a\")", "IpAddress(10.0.0.1)"]), "is for a, 10.0.0.1 and not for fd00::1"),
            (wrong(&["plain"]), "is for plain and not for fd00::1"),
            (wrong(&[]), "no name at all; have one made for fd00::1"),
            (CertificateError::NotValidForName, "not for fd00::1"),
            (CertificateError::UnknownIssuer, "etcd-ca"),
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidYet, "not valid yet"),
            (CertificateError::BadEncoding, "not accepted"),
        ] {
            let said = of_tls(&host, &rustls::Error::InvalidCertificate(error));
            assert!(said.contains(part) && !said.contains('\n'), "{said}");
        }
    }

    /// rustls' own error is what an I/O error is about, and no cause of it.
    #[test]
    fn tls_is_found_among_the_causes_of_a_connections_end() {
        #[derive(Debug, thiserror::Error)]
        #[error("transport error")]
        struct Outer(#[source] io::Error);

        let host = server("https://a:1", None);
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        let found = of_connection(&host, Some(&Outer(io::Error::new(io::ErrorKind::InvalidData, alert))));
        assert!(found.is_some_and(|said| said.contains("give etcd-certificate and etcd-key")));
        let end = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert!(of_connection(&host, Some(&Outer(end))).is_some_and(|said| said.contains("http://")));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(of_connection(&host, Some(&Outer(reset))), None);
    }
}
