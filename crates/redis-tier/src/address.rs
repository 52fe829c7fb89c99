//! Addresses of servers.

use std::{fmt, str::FromStr};

use crate::error::RedisTierError;

/// Which server, or which members of a cluster: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, `rediss://…` with TLS, and
/// `redis-cluster://HOST:PORT,HOST:PORT`, `rediss-cluster://…`. `valkey`, `valkeys` and theirs are the same.
///
/// Its text is for people and has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    pub(crate) is_cluster: bool,
    pub(crate) is_tls: bool,
    user_and_password: Option<String>,
    hosts: Vec<String>,
    database: u32,
}

impl ServerAddress {
    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// An address of each member that is known, as the client library has them.
    pub(crate) fn urls(&self) -> Vec<String> {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let user = self.user_and_password.as_ref().map(|text| format!("{text}@")).unwrap_or_default();
        self.hosts.iter().map(|host| format!("{scheme}://{user}{host}/{}", self.database)).collect()
    }
}

impl FromStr for ServerAddress {
    type Err = RedisTierError;

    fn from_str(text: &str) -> Result<Self, RedisTierError> {
        let wrong = |why: &str| {
            let shown = match (text.split_once("://"), text.rsplit_once('@')) {
                (Some((scheme, _)), Some((_, hosts))) => format!("{scheme}://…@{hosts}"),
                _ => text.to_owned(),
            };
            RedisTierError::Address { name: shown, why: why.to_owned() }
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no ://"))?;
        let (is_tls, is_cluster) = split_scheme(scheme).ok_or_else(|| wrong("it is of another kind"))?;
        let (user_and_password, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            number => {
                number.parse().map_err(|_| wrong("what is behind the / is not the number of a database"))?
            }
        };
        if is_cluster && database != 0 {
            return Err(wrong("a cluster has only database 0"));
        }
        let hosts: Vec<_> = hosts.split(',').map(str::to_owned).collect();
        if hosts.iter().any(|host| host.is_empty() || host.contains(['/', '?', '#', ' '])) {
            return Err(wrong("a host is missing"));
        }
        if hosts.len() > 1 && !is_cluster {
            return Err(wrong("several hosts make a cluster"));
        }
        let address = Self { is_cluster, is_tls, user_and_password, hosts, database };
        for url in address.urls() {
            use redis::IntoConnectionInfo;
            url.into_connection_info().map_err(|error| wrong(&error.to_string()))?;
        }
        Ok(address)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_tls { "rediss" } else { "redis" })?;
        f.write_str(if self.is_cluster { "-cluster" } else { "" })?;
        write!(f, "://{}", self.hosts.join(","))?;
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}") // not the password
    }
}

/// Whether it is with TLS, and whether it is a cluster's.
fn split_scheme(scheme: &str) -> Option<(bool, bool)> {
    let (base, is_cluster) = match scheme.strip_suffix("-cluster") {
        Some(base) => (base, true),
        None => (scheme, false),
    };
    match base {
        "redis" | "valkey" => Some((false, is_cluster)),
        "rediss" | "valkeys" => Some((true, is_cluster)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ServerAddress, String> {
        text.parse::<ServerAddress>().map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_is_understood_and_passwords_are_not_shown() {
        let one = parse("redis://me:secret@cache.example:7000/3").unwrap();
        assert_eq!(one.urls(), ["redis://me:secret@cache.example:7000/3"]);
        assert_eq!(
            (one.to_string(), format!("{one:?}")),
            ("redis://cache.example:7000/3".into(), one.to_string())
        );
        let cluster = parse("rediss-cluster://:secret@10.0.0.1:1,10.0.0.2:2").unwrap();
        assert_eq!(cluster.urls(), ["rediss://:secret@10.0.0.1:1/0", "rediss://:secret@10.0.0.2:2/0"]);
        assert_eq!(cluster.to_string(), "rediss-cluster://10.0.0.1:1,10.0.0.2:2");
        assert!(cluster.is_cluster && cluster.is_tls);
        assert_eq!(parse("valkey://[::1]:6379").unwrap().to_string(), "redis://[::1]:6379");
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        for text in [
            "redis://:secret@",
            "redis://:secret@a,b",
            "redis-cluster://:secret@a/2",
            "redis://:secret@a/x",
            "http://:secret@a",
            "redis://:secret@a:99999",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("write redis://") && !error.contains("secret"), "{error}");
        }
    }
}
