//! What all tests of the tier need.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part; these helpers are for tests alone")]

pub mod disks;

use std::{path::Path, time::Duration};

use tmem_store::{TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierWrite};
use tmem_tier::{FileTier, TierOptions};

/// A tier in a file of at most `size_bytes`, with less patience than usual for what is made to hang.
pub fn options(path: &Path, size_bytes: u64) -> TierOptions {
    TierOptions {
        write_patience: Duration::from_secs(5),
        read_patience: Duration::from_secs(5),
        ..TierOptions::new(path, Some(size_bytes))
    }
}

/// Opens it with the key of all tests.
pub fn open(options: &TierOptions) -> FileTier {
    let tier = FileTier::new(options.clone()).unwrap();
    tier.use_key(&TierKey([7; 32]));
    tier
}

/// Contents that depend on `seed` at every byte.
pub fn extent(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 31)).to_le_bytes()
    };
    (0..TIER_EXTENT_BYTES / 8).flat_map(|_| next()).collect()
}

/// Writes one copy.
pub fn write_one(tier: &FileTier, copy: TierCopy, seed: u64) {
    tier.write(&[TierWrite::whole(copy, &extent(seed))]).unwrap();
}

/// Reads a part of a copy.
pub fn read(tier: &FileTier, copy: TierCopy, start: usize, len: usize) -> Result<Vec<u8>, TierError> {
    let mut into = vec![0; len];
    tier.read(copy, start, &mut into).map(|()| into)
}
