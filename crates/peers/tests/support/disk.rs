//! A disk-file tier that fails when it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tmem_store::{Tier, TierCopy, TierError, TierKey, TierState, TierWrite};
use tmem_tier::{FileTier, FileTierCounters, TierOptions};

#[derive(Debug)]
pub struct Disk {
    tier: FileTier,
    directory: tempfile::TempDir,
    refuses_writes: AtomicBool,
    refuses_reads: AtomicBool,
    /// Reads that were tried.
    pub reads: AtomicU64,
    /// What it gives is as of a disk whose bits have turned over.
    is_damaged: AtomicBool,
}

impl Disk {
    /// With room for so many extents.
    pub fn new(extents: u64) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size_bytes = (extents * 133 * 1024).max(tmem_tier::MIN_TIER_BYTES);
        let tier = FileTier::new(TierOptions::new(directory.path().join("tier"), Some(size_bytes))).unwrap();
        let (refuses_writes, refuses_reads, reads, is_damaged) = Default::default();
        Arc::new(Self { tier, directory, refuses_writes, refuses_reads, reads, is_damaged })
    }

    pub fn refuse_writes(&self, refuses: bool) {
        self.refuses_writes.store(refuses, Relaxed);
    }

    pub fn refuse_reads(&self, refuses: bool) {
        self.refuses_reads.store(refuses, Relaxed);
    }

    pub fn be_damaged(&self, is_damaged: bool) {
        self.is_damaged.store(is_damaged, Relaxed);
    }

    pub fn counters(&self) -> FileTierCounters {
        self.tier.counters()
    }
}

fn refused() -> TierError {
    TierError::Unavailable("the disk is told to fail".to_owned())
}

impl Tier for Disk {
    fn name(&self) -> &str {
        self.tier.name()
    }

    fn kind(&self) -> &'static str {
        self.tier.kind()
    }

    fn places(&self) -> u32 {
        self.tier.places()
    }

    fn use_key(&self, key: &TierKey) {
        self.tier.use_key(key);
    }

    fn write(&self, writes: &[TierWrite<'_>]) -> Result<(), TierError> {
        if self.refuses_writes.load(Relaxed) { Err(refused()) } else { self.tier.write(writes) }
    }

    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        self.reads.fetch_add(1, Relaxed);
        if self.refuses_reads.load(Relaxed) {
            return Err(refused());
        }
        if self.is_damaged.load(Relaxed) {
            return Err(TierError::Damaged);
        }
        self.tier.read(copy, start, into)
    }

    fn discard(&self, place: u32) {
        self.tier.discard(place);
    }

    fn state(&self) -> TierState {
        if self.refuses_writes.load(Relaxed) { TierState::Failing } else { self.tier.state() }
    }

    fn trouble(&self) -> Option<String> {
        self.tier.trouble()
    }
}
