//! A tier in ordinary memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tmem_store::{TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierState, TierWrite};

const PLACES: u32 = 32;

/// A copy: its writing, the key it was made with, and what it holds.
type Copy = (u64, [u8; 32], Arc<[u8]>);

#[derive(Debug, Default)]
pub struct MemoryTier {
    copies: Mutex<HashMap<u32, Copy>>,
    key: Mutex<[u8; 32]>,
}

impl MemoryTier {
    /// Another one that has the same.
    pub fn copy(&self) -> MemoryTier {
        MemoryTier { copies: Mutex::new(self.copies.lock().expect("a lock").clone()), key: Mutex::default() }
    }
}

impl Tier for MemoryTier {
    fn name(&self) -> &str {
        "memory"
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn places(&self) -> u32 {
        PLACES
    }

    fn use_key(&self, key: &TierKey) {
        *self.key.lock().expect("a lock") = key.0;
    }

    fn write(&self, copies: &[TierWrite<'_>]) -> Result<(), TierError> {
        let (mut all, key) = (self.copies.lock().expect("a lock"), *self.key.lock().expect("a lock"));
        for TierWrite { copy, extent, .. } in copies {
            assert!(copy.place < PLACES && extent.len() == TIER_EXTENT_BYTES);
            all.insert(copy.place, (copy.writing, key, Arc::from(*extent)));
        }
        Ok(())
    }

    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        let (all, key) = (self.copies.lock().expect("a lock"), *self.key.lock().expect("a lock"));
        let (writing, made_with, bytes) = all.get(&copy.place).ok_or(TierError::Damaged)?;
        if (*writing, *made_with) != (copy.writing, key) {
            return Err(TierError::Damaged);
        }
        into.copy_from_slice(&bytes[start..start + into.len()]);
        Ok(())
    }

    fn discard(&self, place: u32) {
        self.copies.lock().expect("a lock").remove(&place);
    }

    fn state(&self) -> TierState {
        TierState::Ready
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}
