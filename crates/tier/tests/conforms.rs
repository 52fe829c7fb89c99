//! The file tier does what every tier has to do.
#![allow(clippy::unwrap_used, reason = "helper functions here are for tests alone")]

mod conformance;

use std::path::PathBuf;

use conformance::{
    KEY, Rig, agrees_with_a_map, many_threads_read_while_one_writes, refuses_what_is_no_batch, steps,
};
use proptest::prelude::*;
use tmem_store::{Tier, TierCopy};
use tmem_tier::{FileTier, TierOptions};

struct FileRig {
    path: PathBuf,
    tier: Option<FileTier>,
    _directory: tempfile::TempDir,
}

impl FileRig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut rig = Self { path: directory.path().join("tier"), tier: None, _directory: directory };
        rig.reopen(&[]);
        rig
    }
}

impl Rig for FileRig {
    fn tier(&self) -> &dyn Tier {
        self.tier.as_ref().unwrap()
    }

    fn tend(&self) {
        self.tier.as_ref().unwrap().probe();
    }

    fn reopen(&mut self, _copies: &[(TierCopy, u32)]) {
        self.tier = None;
        let tier = FileTier::new(TierOptions::new(&self.path, Some(6 << 20))).unwrap();
        tier.use_key(&KEY);
        self.tier = Some(tier);
    }
}

#[test]
fn what_is_no_batch_is_refused() {
    refuses_what_is_no_batch(FileRig::new().tier());
}

#[test]
fn many_threads() {
    many_threads_read_while_one_writes(&FileRig::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_traffic(steps in steps()) {
        agrees_with_a_map(&mut FileRig::new(), steps)?;
    }
}
