//! What the tier is told.

use std::time::Duration;

use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES};

use crate::{address::ServerAddress, error::RedisTierError};

/// Longest prefix, in bytes: a key has it once for each copy.
const MAX_PREFIX_BYTES: usize = 64;

/// Room for two batches: with less than one left it counts as full.
const MIN_SIZE_BYTES: u64 = 2 * (MAX_TIER_BATCH * TIER_EXTENT_BYTES) as u64;

/// Where copies are kept, and how long the server may take.
#[derive(Clone, Debug)]
pub struct RedisTierOptions {
    /// The server, or members of the cluster.
    pub address: ServerAddress,
    /// How much of the store's extents it holds, in bytes; the server needs a fifth more memory than is in use of that.
    pub size_bytes: u64,
    /// What all keys begin with.
    pub prefix: String,
    /// After how long a key goes that nobody has told to live on.
    pub expiry: Duration,
    /// How many replicas have to have a copy before it counts as written.
    pub replicas: u32,
    /// How long these may take for it. Shorter than the patience for a write.
    pub replica_patience: Duration,
    /// The password, if it is not in the address.
    pub password: Option<Password>,
    /// Certificates of the authorities that the server's is from, in PEM. `None`: those that the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a connection may take to be made.
    pub connect_patience: Duration,
    /// How long the server may take for a write.
    pub write_patience: Duration,
    /// How long it may take for a read before another connection is tried.
    pub read_patience: Duration,
    /// For so long after it stopped answering reads wait for it: a restart or a failover takes seconds, and there is no other way to get the
    /// page. After that they fail at once, but for one a second.
    pub outage_patience: Duration,
}

/// Not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl RedisTierOptions {
    /// With the usual prefix, patience, a day until keys expire, and no replicas to wait for.
    pub fn new(address: ServerAddress, size_bytes: u64) -> Self {
        Self {
            address,
            size_bytes,
            prefix: "tmem".to_owned(),
            expiry: Duration::from_secs(86_400),
            replicas: 0,
            replica_patience: Duration::from_secs(1),
            password: None,
            ca_pem: None,
            connect_patience: Duration::from_secs(1),
            write_patience: Duration::from_secs(5),
            read_patience: Duration::from_secs(1),
            outage_patience: Duration::from_secs(30),
        }
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), RedisTierError> {
        check_prefix(&self.prefix)?;
        let seconds = self.expiry.as_secs();
        if !(60..=2_592_000).contains(&seconds) {
            return Err(RedisTierError::Expiry { seconds });
        }
        if self.size_bytes < MIN_SIZE_BYTES {
            return Err(RedisTierError::TooSmall {
                name: self.address.to_string(),
                size_bytes: self.size_bytes,
            });
        }
        Ok(())
    }
}

/// Whether keys can begin with it.
///
/// # Errors
/// [`RedisTierError::Prefix`].
pub fn check_prefix(prefix: &str) -> Result<(), RedisTierError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    // No braces: all keys of a cluster would be at one member.
    if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.chars().all(fits) {
        return Err(RedisTierError::Prefix { prefix: prefix.to_owned() });
    }
    Ok(())
}
