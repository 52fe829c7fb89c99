//! Where etcd is.

use std::time::Duration;

use crate::MembershipError;

/// How long a node is there after it was heard of last: three times of what a busy host or a switch that starts takes. Data does not wait for it.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// Where etcd is, and for how long it believes a node to be there that it does not hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) lease: Duration,
}

impl EtcdSettings {
    /// One or more addresses of one etcd, `http://HOST:PORT`.
    ///
    /// # Errors
    /// [`MembershipError::Endpoint`]: one that is none, or no address at all.
    pub fn new<T: AsRef<str>>(endpoints: &[T]) -> Result<Self, MembershipError> {
        let endpoints: Vec<String> = endpoints.iter().map(|text| text.as_ref().to_owned()).collect();
        let wrong = endpoints.iter().find(|endpoint| !is_endpoint(endpoint));
        if endpoints.is_empty() || wrong.is_some() {
            let text =
                wrong.map_or("", |endpoint| endpoint).chars().filter(|c| !c.is_control()).take(120).collect();
            return Err(MembershipError::Endpoint { text });
        }
        Ok(Self { endpoints, lease: DEFAULT_LEASE })
    }

    /// Another lease than [`DEFAULT_LEASE`]; etcd gives none of less than 2 s.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease: lease.max(Duration::from_secs(2)), ..self }
    }
}

fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')) else {
        return false;
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    !host.is_empty() && host.bytes().all(is_host) && port.parse().is_ok_and(|port: u16| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http_and_anything_else_is_named() {
        for text in ["http://10.0.0.1:2379", "http://[fd00::1]:2379", "http://etcd-1.example:2379"] {
            assert_eq!(EtcdSettings::new(&[text]).unwrap().endpoints, [text]);
        }
        for text in [
            "",
            "10.0.0.1:2379",
            "https://a:1",
            "http://a",
            "http://:1",
            "http://a:0",
            "http://a:1/b",
            "http://u@a:1",
            "http://a b:1",
        ] {
            let error = EtcdSettings::new(&["http://a:1", text]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("http://HOST:PORT"), "{error}");
        }
        assert!(EtcdSettings::new::<&str>(&[]).is_err());
    }
}
