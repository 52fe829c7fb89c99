//! What is in the keys. Fields that are not known here are left alone: they are of a later version.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, de};
use tmem_cluster::Epoch;

use crate::{identity::Life, static_peer::is_domain};

/// A node that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) address: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "domain")]
    pub(crate) domain: Option<String>,
    #[serde(deserialize_with = "epoch")]
    pub(crate) epoch: u64,
    pub(crate) free_bytes: u64,
    pub(crate) version: String,
    /// Whose directory it is.
    pub(crate) nonce: String,
}

/// The epoch that a node reached at last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    #[serde(deserialize_with = "epoch")]
    pub(crate) epoch: u64,
    /// What the node drew with it; nothing, where somebody else ended its epochs before this one.
    #[serde(default)]
    pub(crate) drawn: String,
}

impl EpochRecord {
    pub(crate) fn of(life: Life) -> Self {
        Self { epoch: life.epoch.0, drawn: drawn(life) }
    }

    /// Whether it is of this stretch of a node's life, and not only of one with the same number.
    pub(crate) fn is(&self, life: Life) -> bool {
        self.epoch == life.epoch.0 && self.drawn == drawn(life)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }
}

fn drawn(life: Life) -> String {
    format!("{:016x}", life.drawn)
}

fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(de::Error::custom("no epoch is 0")),
        epoch => Ok(epoch),
    }
}

fn domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let domain = Option::<String>::deserialize(deserializer)?;
    match domain.as_deref().is_none_or(is_domain) {
        true => Ok(domain),
        false => Err(de::Error::custom("a domain is 1 to 63 of A-Z a-z 0-9 . _ -")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_what_was_said_and_later_ones_may_say_more() {
        let record = NodeRecord {
            address: "10.0.0.1:7790".parse().unwrap(),
            domain: Some("rack-1".to_owned()),
            epoch: 1 << 40,
            free_bytes: 5,
            version: "0.1.0".to_owned(),
            nonce: "ab".to_owned(),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<NodeRecord>(&text).unwrap(), record);
        let more = text.replacen('{', "{\"later\":[1],", 1);
        assert_eq!(serde_json::from_str::<NodeRecord>(&more).unwrap(), record);
        for (from, to) in [("rack-1", "a b"), ("1099511627776", "0"), ("10.0.0.1", "nowhere"), ("5,", "-1,")]
        {
            assert!(
                text.contains(from) && serde_json::from_str::<NodeRecord>(&text.replace(from, to)).is_err(),
                "{to}"
            );
        }
    }

    #[test]
    fn an_epoch_of_the_same_number_may_be_somebody_elses() {
        let life = Life { epoch: Epoch(5), drawn: 7 };
        let record = EpochRecord::of(life);
        assert!(record.is(life) && record.epoch() == Epoch(5));
        assert!(!record.is(Life { drawn: 8, ..life }) && !record.is(Life { epoch: Epoch(6), ..life }));
        // What an administrator writes.
        let ended: EpochRecord = serde_json::from_str("{\"epoch\": 5}").unwrap();
        assert!(!ended.is(life));
        assert!(serde_json::from_str::<EpochRecord>("{\"epoch\": 0}").is_err());
    }
}
