//! The kinds of tiers: which one the configuration asks for, and what the daemon does for any of them.

use std::{fs, io, path::Path, sync::Arc};

use anyhow::{Context, Result};
use tmem_control::{Config, Frontend};
use tmem_keeper::Estate;
use tmem_redis_tier::{Password, RedisTier, RedisTierError, RedisTierOptions, ServerAddress};
use tmem_store::{Store, Tier};
use tmem_tier::{FileTier, TierOpener, TierOptions};

use crate::trusted;

/// A tier that the daemon tends.
pub(crate) trait TendedTier: Tier {
    /// Done for it once a second or so.
    fn probe(&self);
    /// Nobody needs anything that is there.
    fn clear(&self);
}

impl TendedTier for FileTier {
    fn probe(&self) {
        FileTier::probe(self);
    }

    fn clear(&self) {
        FileTier::clear(self);
    }
}

impl TendedTier for RedisTier {
    fn probe(&self) {
        RedisTier::probe(self);
    }

    fn clear(&self) {
        RedisTier::clear(self);
    }
}

/// The tier that there is to be.
pub(crate) enum TierPlan {
    File(TierOptions),
    Redis(RedisTierOptions),
}

impl TierPlan {
    /// What the configuration asks for. Reads the password and the certificates: this process may not do so later.
    ///
    /// # Errors
    /// It makes no sense, or these can't be read.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>> {
        if let Some((address, size_bytes)) = config.redis_tier()? {
            return redis_options(config, address.parse()?, size_bytes)
                .map(|options| Some(Self::Redis(options)));
        }
        Ok(config.tier()?.map(|(path, size_bytes)| Self::File(TierOptions::new(path, size_bytes))))
    }

    /// Opens the tier. The store is new or has what another process put there.
    pub(crate) fn open(
        self,
        store: &Store,
        estate: &Arc<Estate>,
        store_is_new: bool,
    ) -> Result<Arc<dyn TendedTier>> {
        let tier: Arc<dyn TendedTier> = match self {
            Self::File(options) => {
                let opener = Arc::new(ByKeeper(Arc::clone(estate)));
                let tier = FileTier::new(TierOptions { opener, ..options })?;
                if store_is_new {
                    // What another daemon left there is of no use to anybody.
                    tier.clear();
                }
                Arc::new(tier)
            }
            Self::Redis(options) => {
                let tier = RedisTier::new(options)?;
                tier.adopt(&store.tier_copies());
                Arc::new(tier)
            }
        };
        Ok(tier)
    }
}

/// Says what is possible and not wise.
pub(crate) fn warn(config: &Config) {
    let is_own_swap = config.disks.iter().any(|disk| matches!(disk.frontend, Frontend::Ublk { .. }));
    if is_own_swap && matches!(config.redis_tier(), Ok(Some(_))) {
        log::warn!(
            "the tier is a server and a disk is on ublk: if this host swaps to that disk, writing to the server may need memory that there is none of; a file or block device does not"
        );
    }
}

fn redis_options(config: &Config, address: ServerAddress, size_bytes: u64) -> Result<RedisTierOptions> {
    let read = |path: &Path| {
        fs::read(path).map_err(|error| RedisTierError::File {
            name: address.to_string(),
            path: path.to_owned(),
            error,
        })
    };
    let password = match &config.redis_password_file {
        Some(path) => {
            let text = String::from_utf8(read(path)?).with_context(|| format!("{}", path.display()))?;
            Some(Password(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        None => None,
    };
    let ca_pem = match &config.redis_ca {
        Some(path) => Some(read(path)?),
        None if address.is_tls() => trusted::certificates(),
        None => None,
    };
    let options = RedisTierOptions {
        prefix: config.redis_prefix.as_str().to_owned(),
        expiry: config.redis_expiry.time(),
        replicas: config.redis_replicas.count(),
        password,
        ca_pem,
        ..RedisTierOptions::new(address, size_bytes)
    };
    options.check()?;
    Ok(options)
}

/// The keeper opens the tier, whenever that is: this process may not.
#[derive(Debug)]
struct ByKeeper(Arc<Estate>);

impl TierOpener for ByKeeper {
    fn open(&self, _path: &Path, flags: i32) -> io::Result<fs::File> {
        let gone = || io::Error::other("there is no keeper");
        self.0.keeper().ok_or_else(gone)?.open_tier(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Option<TierPlan>> {
        TierPlan::new(&Config::parse(text, Path::new("t.toml")).expect("config"))
    }

    #[test]
    fn addresses_and_paths_are_told_apart() {
        assert!(plan("").expect("nothing").is_none());
        assert!(matches!(plan("tier = \"/t\"\ntier-size = \"1G\""), Ok(Some(TierPlan::File(_)))));
        let redis = plan("tier = \"redis://h:1\"\ntier-size = \"1G\"\nredis-prefix = \"a\"");
        assert!(matches!(redis, Ok(Some(TierPlan::Redis(options))) if options.prefix == "a"));
        for (text, names) in [
            ("tier = \"redis://h:1\"", "tier-size"),
            ("tier = \"http://h:1\"\ntier-size = \"1G\"", "http://h:1"),
            ("tier = \"redis://h:1\"\ntier-size = \"1K\"", "too little"),
            (
                "tier = \"redis://h:1\"\ntier-size = \"1G\"\nredis-password-file = \"/nowhere/p\"",
                "/nowhere/p",
            ),
        ] {
            let error = plan(text).err().map(|error| format!("{error:#}")).expect("an error");
            assert!(error.contains(names), "{error}");
        }
    }
}
