//! What the daemon is told of the cluster that this host is in: its section of the configuration.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer};

use crate::{
    ByteSize, Config, ControlError,
    on_off::written_on_or_off,
    written::{number, text_or_number},
};

/// Where a node keeps its identity and certificates, if nothing else is said.
const DIRECTORY: &str = "/var/lib/tmem/cluster";

/// A copy that is made anew should not take a whole link of 1 Gbit/s.
const REPAIR_BYTES_PER_SECOND: u64 = 100 << 20;

/// The section `[cluster]`. [`ClusterSettings::default`] is what holds where it says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ClusterSettings {
    /// Where this host lends, as the others reach it.
    pub listen: Option<SocketAddr>,
    /// Its identity and certificates.
    pub directory: PathBuf,
    /// On how many hosts each extent is.
    pub copies: ClusterCopies,
    /// Whether the others get pages encrypted.
    pub encrypt: EncryptPages,
    /// How much it lends.
    pub lend: Lend,
    /// What fails together with it.
    pub domain: Option<String>,
    /// The other hosts: `NAME=IP:PORT` or `NAME=IP:PORT,DOMAIN`.
    pub peers: Vec<String>,
    /// Where etcd is, if that knows the others: all `http://HOST:PORT` or all `https://HOST:PORT`.
    pub etcd: Vec<String>,
    /// Certificates, in PEM, of those who sign etcd's.
    pub etcd_ca: Option<PathBuf>,
    /// This host's certificate as etcd's client, in PEM.
    pub etcd_certificate: Option<PathBuf>,
    /// The key of that, in PEM.
    pub etcd_key: Option<PathBuf>,
    /// As whom it logs in to etcd.
    pub etcd_user: Option<String>,
    /// A file with the password for that.
    pub etcd_password_file: Option<PathBuf>,
    /// How many bytes a second repair may fetch; 0: as many as it can.
    pub repair_bandwidth: ByteSize,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            listen: None,
            directory: PathBuf::from(DIRECTORY),
            copies: ClusterCopies::default(),
            encrypt: EncryptPages::default(),
            lend: Lend::default(),
            domain: None,
            peers: Vec::new(),
            etcd: Vec::new(),
            etcd_ca: None,
            etcd_certificate: None,
            etcd_key: None,
            etcd_user: None,
            etcd_password_file: None,
            repair_bandwidth: ByteSize::from_bytes(REPAIR_BYTES_PER_SECOND),
        }
    }
}

impl ClusterSettings {
    /// Whether they go with each other.
    fn check(&self) -> Result<(), ControlError> {
        let wrong = |why| Err(ControlError::Cluster { why });
        match (self.listen, self.lend) {
            (None, Lend::Auto | Lend::Fixed(_)) => {
                return wrong("say with `listen` at which IP:PORT this host lends, or `lend = \"off\"`");
            }
            (Some(address), _) if address.port() == 0 || address.ip().is_unspecified() => {
                return wrong("`listen` is where others reach this host: an address and a port of its own");
            }
            _ => {}
        }
        if self.listen.is_none() && !self.etcd.is_empty() {
            return wrong(
                "who is known to etcd has an address there: say it with `listen`; with `lend = \"off\"` nothing is lent at it",
            );
        }
        match (self.peers.is_empty(), self.etcd.is_empty()) {
            (false, false) => wrong("the other hosts are named by `peers` or by `etcd`, not by both"),
            (true, true) => wrong("name the other hosts with `peers`, or say with `etcd` who knows them"),
            _ => self.check_etcd_keys(),
        }
    }
}

impl Config {
    /// What it says of a cluster, if this host is to be in one.
    ///
    /// # Errors
    /// [`ControlError::Cluster`].
    pub fn cluster(&self) -> Result<Option<&ClusterSettings>, ControlError> {
        self.cluster.as_ref().map(|settings| settings.check().map(|()| settings)).transpose()
    }
}

/// Whether pages that go to other hosts are encrypted, so that these cannot read them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EncryptPages {
    /// All that go from now on.
    #[default]
    On,
    /// They are only hidden from who listens on the way.
    Off,
}

written_on_or_off!(EncryptPages);

/// How much of this host's idle memory others may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lend {
    /// All but twice the pool's reserve.
    #[default]
    Auto,
    /// Nothing.
    Off,
    /// As [`Lend::Auto`], and so much at most.
    Fixed(ByteSize),
}

impl Lend {
    /// The most that is lent, in bytes.
    pub fn max_bytes(self) -> u64 {
        match self {
            Self::Auto => u64::MAX,
            Self::Off => 0,
            Self::Fixed(size) => size.bytes(),
        }
    }
}

impl FromStr for Lend {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Ok(Self::Fixed(text.parse()?)),
        }
    }
}

impl fmt::Display for Lend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Fixed(size) => size.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Lend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "\"auto\", \"off\", a size such as \"8G\" or a number of bytes")
    }
}

/// On how many hosts each extent is, 1 to 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterCopies(usize);

impl ClusterCopies {
    /// So many.
    pub fn count(self) -> usize {
        self.0
    }
}

impl Default for ClusterCopies {
    /// One host may fail.
    fn default() -> Self {
        Self(2)
    }
}

impl FromStr for ClusterCopies {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(count @ 1..=4) => Ok(Self(count)),
            _ => Err(ControlError::ClusterCopies { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for ClusterCopies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Config, ControlError> {
        Config::parse(text, Path::new("t.toml"))
    }

    #[test]
    fn a_section_says_where_this_host_is_and_who_the_others_are() {
        assert_eq!(parse("").unwrap().cluster().unwrap(), None);
        let text = "[cluster]\nlisten = \"10.0.0.1:7790\"\npeers = [\"b=10.0.0.2:7790,rack-2\"]\ncopies = 1\nlend = \"4G\"\n\
            encrypt = \"off\"\ndomain = \"rack-1\"\nrepair-bandwidth = \"10M\"\ndirectory = \"/c\"";
        let config = parse(text).unwrap();
        let settings = config.cluster().unwrap().unwrap();
        assert_eq!((settings.copies.count(), settings.lend.max_bytes()), (1, 4 << 30));
        assert_eq!((settings.repair_bandwidth.bytes(), settings.encrypt), (10 << 20, EncryptPages::Off));
        let least = parse("[cluster]\nlend = \"off\"\npeers = [\"b=10.0.0.2:7790\"]").unwrap();
        let least = least.cluster().unwrap().unwrap();
        assert_eq!((least.copies.count(), least.lend, least.encrypt), (2, Lend::Off, EncryptPages::On));
        assert_eq!(least.directory, Path::new(DIRECTORY));
    }

    #[test]
    fn what_does_not_go_together_is_said_in_one_line() {
        for (text, part) in [
            ("peers = [\"b=10.0.0.2:1\"]", "`listen`"),
            ("listen = \"0.0.0.0:7790\"\npeers = [\"b=10.0.0.2:1\"]", "of its own"),
            ("listen = \"10.0.0.1:0\"\npeers = [\"b=10.0.0.2:1\"]", "of its own"),
            ("listen = \"10.0.0.1:1\"", "`peers`"),
            ("lend = \"off\"\netcd = [\"http://e:1\"]", "`listen`"),
            ("listen = \"10.0.0.1:1\"\npeers = [\"b=10.0.0.2:1\"]\netcd = [\"http://e:1\"]", "not by both"),
        ] {
            let config = parse(&format!("[cluster]\n{text}")).unwrap();
            let error = config.cluster().unwrap_err().to_string();
            assert!(error.contains("[cluster]") && error.contains(part) && !error.contains('\n'), "{error}");
        }
        for (text, part) in [
            ("copies = 0", "`0`"),
            ("copies = 5", "1 to 4"),
            ("lend = \"much\"", "much"),
            ("encrypt = \"yes\"", "on or off"),
            ("listen = \"host-a:7790\"", "line 2"),
            ("colour = \"red\"", "colour"),
        ] {
            let error = parse(&format!("[cluster]\n{text}")).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_lent_is_auto_off_or_a_size() {
        for text in ["auto", "off", "3G"] {
            assert_eq!(text.parse::<Lend>().unwrap().to_string(), text);
        }
    }
}
