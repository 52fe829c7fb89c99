//! Why a handshake failed, in one line that names the way out.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why TLS with `peer` failed. Whoever presents a wrong certificate hears only an alert, so both sides' lines say which side has to do what.
pub fn explain(error: &Error, peer: &str) -> String {
    format!("{peer}: {}", why(error))
}

/// As [`explain`], without the peer, for what rustls said as an I/O error. `None`: it is another one.
pub fn in_words(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<Error>().map(why)
}

fn why(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => certificate(why),
        Error::NoCertificatesPresented => {
            "it shows no certificate; have it join with `tmem cluster join`".to_owned()
        }
        Error::PeerIncompatible(_) => "it does not speak TLS 1.3".to_owned(),
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => refused(*alert),
        other => other.to_string(),
    }
}

fn certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not of this cluster; have it join with an invitation from here".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired, or this host's clock is wrong; invite it again, and `tmem cluster join --renew` there".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: this host's clock is wrong".to_owned()
        }
        CertificateError::NotValidForName => {
            "another node is there than the one of this name; look at the addresses in `peers`".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "{} is there instead; look at the addresses in `peers`",
            presented.first().map_or("a node without a name", |name| name)
        ),
        other => format!("its certificate is not accepted: {other}"),
    }
}

fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::DecryptError
        | AlertDescription::CertificateUnknown => {
            "it does not accept this host's certificate, perhaps because it is in another cluster".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it finds that this host's certificate has expired; have it invited again, and `tmem cluster join --renew` here".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "it wants a certificate; have this host join with `tmem cluster join`".to_owned()
        }
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3".to_owned(),
        other => format!("it ended the handshake with the alert {other:?}"),
    }
}
