//! Where etcd is, and how it is spoken to.

use std::time::Duration;

use super::{login::Login, tls::EtcdTls};
use crate::MembershipError;

/// How long a node is there after it was heard of last: three times of what a busy host or a switch that starts takes. Data does not wait for it.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// Where etcd is, how it is spoken to, and for how long it believes a node to be there that it does not hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) scheme: Scheme,
    pub(crate) tls: Option<EtcdTls>,
    pub(crate) login: Option<Login>,
    pub(crate) lease: Duration,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// In the clear.
    Http,
    /// TLS.
    Https,
}

impl EtcdSettings {
    /// One or more addresses of one etcd, all `http://HOST:PORT` or all `https://HOST:PORT`.
    ///
    /// # Errors
    /// [`MembershipError::Endpoint`]: one that is none, or no address at all. [`MembershipError::MixedEndpoints`].
    pub fn new<T: AsRef<str>>(endpoints: &[T]) -> Result<Self, MembershipError> {
        let endpoints: Vec<String> = endpoints.iter().map(|text| text.as_ref().to_owned()).collect();
        let wrong = |text: &str| MembershipError::Endpoint {
            text: text.chars().filter(|c| !c.is_control()).take(120).collect(),
        };
        let first = endpoints.first().ok_or_else(|| wrong(""))?;
        let scheme = scheme_of(first).ok_or_else(|| wrong(first))?;
        for endpoint in &endpoints {
            if scheme_of(endpoint).ok_or_else(|| wrong(endpoint))? != scheme {
                return Err(MembershipError::MixedEndpoints { one: first.clone(), other: endpoint.clone() });
            }
        }
        Ok(Self { endpoints, scheme, tls: None, login: None, lease: DEFAULT_LEASE })
    }

    /// Whether what is said to etcd is encrypted: its addresses are `https://HOST:PORT`, and [`EtcdSettings::with_tls`] is needed.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// Whom to believe that it is etcd, and who this host is. Nobody is believed without it.
    #[must_use]
    pub fn with_tls(self, tls: EtcdTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// A user of etcd's.
    ///
    /// # Errors
    /// [`MembershipError::EtcdLogin`]: one of the two is empty.
    pub fn with_login(self, user: &str, password: &str) -> Result<Self, MembershipError> {
        Ok(Self { login: Some(Login::new(user, password)?), ..self })
    }

    /// Another lease than [`DEFAULT_LEASE`]; etcd gives none of less than 2 s.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease: lease.max(Duration::from_secs(2)), ..self }
    }
}

/// What an address says is spoken there. `None`: it is no address.
fn scheme_of(text: &str) -> Option<Scheme> {
    let (scheme, rest) = match text.strip_prefix("https://") {
        Some(rest) => (Scheme::Https, rest),
        None => (Scheme::Http, text.strip_prefix("http://")?),
    };
    let (host, port) = rest.rsplit_once(':')?;
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    let is_one =
        !host.is_empty() && host.bytes().all(is_host) && port.parse().is_ok_and(|port: u16| port > 0);
    is_one.then_some(scheme)
}

/// Host and port of an address that is one.
pub(crate) fn host_and_port(endpoint: &str) -> Option<(&str, u16)> {
    let (host, port) = endpoint.split_once("://")?.1.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_or_https_and_anything_else_is_named() {
        for host in ["10.0.0.1:2379", "[fd00::1]:2379", "etcd-1.example:2379"] {
            for scheme in ["http", "https"] {
                let text = format!("{scheme}://{host}");
                let settings = EtcdSettings::new(&[&text]).unwrap();
                assert_eq!((settings.is_https(), settings.endpoints), (scheme == "https", vec![text]));
            }
        }
        for text in [
            "",
            "10.0.0.1:2379",
            "ftp://a:1",
            "HTTPS://a:1",
            "http://a",
            "https://a",
            "http://:1",
            "http://a:0",
            "https://a:1/b",
            "http://u@a:1",
            "http://a b:1",
        ] {
            let error = EtcdSettings::new(&["http://a:1", text]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("https://HOST:PORT"), "{error}");
        }
        assert!(EtcdSettings::new::<&str>(&[]).is_err());
    }

    #[test]
    fn a_mixture_of_schemes_is_one_line_that_names_both() {
        for list in [["http://a:1", "https://b:1"], ["https://b:1", "http://a:1"]] {
            let error = EtcdSettings::new(&list).unwrap_err().to_string();
            assert!(list.iter().all(|endpoint| error.contains(endpoint)) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn hosts_and_ports_are_found_in_addresses() {
        for (endpoint, found) in [
            ("http://10.0.0.1:2379", ("10.0.0.1", 2379)),
            ("https://[fd00::1]:1", ("fd00::1", 1)),
            ("https://etcd-1.example:7", ("etcd-1.example", 7)),
        ] {
            assert_eq!(host_and_port(endpoint), Some(found));
        }
        assert_eq!(host_and_port("nothing"), None);
    }

    #[test]
    fn a_login_has_a_user_and_a_password_that_no_log_has() {
        let settings = || EtcdSettings::new(&["http://a:1"]).unwrap();
        let text = format!("{:?}", settings().with_login("tmem", "secret").unwrap());
        assert!(text.contains("tmem") && !text.contains("secret"), "{text}");
        for (user, password, key) in [("", "p", "etcd-user"), ("u", "", "etcd-password-file")] {
            let error = settings().with_login(user, password).unwrap_err().to_string();
            assert!(error.starts_with(key) && !error.contains('\n'), "{error}");
        }
    }
}
