//! A tier in ordinary memory that can fail and be damaged. The real one is in a crate above this one, which tests the store on it, too.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierRead, TierRun, TierState,
    TierWrite,
};

/// A copy.
#[derive(Debug)]
struct Kept {
    writing: u64,
    bytes: Vec<u8>,
    /// Of each unit of 8 bytes, whether it is there.
    is_there: Vec<bool>,
}

/// The units of a stretch.
fn units(start: usize, bytes: usize) -> std::ops::Range<usize> {
    assert!(start.is_multiple_of(8) && bytes.is_multiple_of(8) && start + bytes <= TIER_EXTENT_BYTES);
    start / 8..(start + bytes) / 8
}

#[derive(Debug, Default)]
pub(crate) struct TestTier {
    places: AtomicU32,
    copies: Mutex<HashMap<u32, Kept>>,
    keeps_blocks: bool,
    /// It has whole copies, too, for those who want all of one.
    is_backed: bool,
    /// No writing may have the number of another under one key, ever.
    writings: Mutex<HashSet<u64>>,
    key: Mutex<Option<TierKey>>,
    pub(crate) refuses_writes: AtomicBool,
    pub(crate) refuses_reads: AtomicBool,
    /// Writes are refused for lack of space.
    pub(crate) is_full: AtomicBool,
    /// Writes take so long, and reads a tenth of it.
    pub(crate) delay_us: AtomicU32,
    pub(crate) writes_begun: AtomicU32,
    /// The most reads that came with one call.
    pub(crate) most_together: AtomicUsize,
}

impl TestTier {
    pub(crate) fn new(places: u32) -> Arc<Self> {
        Arc::new(Self { places: AtomicU32::new(places), ..Self::default() })
    }

    /// One that has only the blocks that are needed, and is asked for several at once.
    pub(crate) fn of_blocks(places: u32) -> Arc<Self> {
        Arc::new(Self { places: AtomicU32::new(places), keeps_blocks: true, ..Self::default() })
    }

    /// The same, with whole copies behind it.
    pub(crate) fn backed(places: u32) -> Arc<Self> {
        let places = AtomicU32::new(places);
        Arc::new(Self { places, keeps_blocks: true, is_backed: true, ..Self::default() })
    }

    /// What it keeps, in bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        let copies = self.copies.lock().unwrap();
        copies.values().flat_map(|kept| &kept.is_there).filter(|is_there| **is_there).count() * 8
    }

    /// All that it was given of each copy.
    pub(crate) fn whole_copies(&self) -> Vec<(TierCopy, Vec<u8>)> {
        let copies = self.copies.lock().unwrap();
        let copy = |(place, kept): (&u32, &Kept)| {
            (TierCopy { place: *place, writing: kept.writing }, kept.bytes.clone())
        };
        copies.iter().map(copy).collect()
    }

    pub(crate) fn copies(&self) -> usize {
        self.copies.lock().unwrap().len()
    }

    /// It has so many places from now on.
    pub(crate) fn shrink_to(&self, places: u32) {
        self.places.store(places, Ordering::Relaxed);
        self.copies.lock().unwrap().retain(|place, _| *place < places);
    }

    /// Turns a bit of a copy over.
    pub(crate) fn flip_bit(&self, place: u32, bit: usize) {
        self.copies.lock().unwrap().get_mut(&place).unwrap().bytes[bit / 8] ^= 1 << (bit % 8);
    }

    fn take_time(&self, part: u32) {
        let delay_us = self.delay_us.load(Ordering::Relaxed) / part;
        if delay_us > 0 {
            std::thread::sleep(Duration::from_micros(delay_us.into()));
        }
    }

    fn unavailable() -> TierError {
        TierError::Unavailable("told to fail".to_owned())
    }
}

impl Tier for TestTier {
    fn name(&self) -> &str {
        "test"
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn places(&self) -> u32 {
        self.places.load(Ordering::Relaxed)
    }

    fn use_key(&self, key: &TierKey) {
        let before = self.key.lock().unwrap().replace(*key);
        assert!(before.is_none_or(|before| before == *key), "the key has changed");
        assert_ne!(key.0, [0; 32]);
    }

    fn write(&self, copies: &[TierWrite<'_>]) -> Result<(), TierError> {
        assert!((1..=MAX_TIER_BATCH).contains(&copies.len()));
        self.writes_begun.fetch_add(1, Ordering::Relaxed);
        self.take_time(1);
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Self::unavailable());
        }
        let mut all = self.copies.lock().unwrap();
        for (i, TierWrite { copy, extent, needed }) in copies.iter().enumerate() {
            assert!(copy.place < self.places() && extent.len() == TIER_EXTENT_BYTES && !needed.is_empty());
            assert!(self.writings.lock().unwrap().insert(copy.writing), "writing {} again", copy.writing);
            if self.refuses_writes.load(Ordering::Relaxed) && i == copies.len() / 2 {
                return Err(Self::unavailable()); // after some of them, which are there now for nobody
            }
            let mut is_there = vec![false; TIER_EXTENT_BYTES / 8];
            for run in *needed {
                let units = units(run.start as usize, run.bytes as usize);
                assert!(is_there[units.start..].iter().all(|is_there| !is_there), "{run:?} is out of order");
                is_there[units].fill(true);
            }
            assert!(self.keeps_blocks || is_there.iter().all(|is_there| *is_there));
            all.insert(copy.place, Kept { writing: copy.writing, bytes: extent.to_vec(), is_there });
        }
        Ok(())
    }

    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        if self.refuses_reads.load(Ordering::Relaxed) {
            return Err(Self::unavailable());
        }
        self.take_time(10);
        let copies = self.copies.lock().unwrap();
        let kept =
            copies.get(&copy.place).filter(|kept| kept.writing == copy.writing).ok_or(TierError::Damaged)?;
        let mut is_there = kept.is_there[units(start, into.len())].iter();
        let is_whole = self.is_backed && into.len() == TIER_EXTENT_BYTES;
        assert!(is_whole || is_there.all(|is_there| *is_there), "{copy:?} {start}: it was not needed");
        into.copy_from_slice(&kept.bytes[start..start + into.len()]);
        Ok(())
    }

    /// As peers do both.
    fn reads_together(&self) -> bool {
        self.keeps_blocks
    }

    fn read_many(&self, reads: &mut [TierRead<'_>]) {
        self.most_together.fetch_max(reads.len(), Ordering::Relaxed);
        for read in reads {
            read.result = self.read(read.copy, read.start, read.into);
        }
    }

    fn keeps_blocks(&self) -> bool {
        self.keeps_blocks
    }

    fn is_cleaned(&self) -> bool {
        self.is_backed || !self.keeps_blocks
    }

    fn release(&self, dead: &[(TierCopy, TierRun)]) {
        assert!(self.keeps_blocks);
        let mut copies = self.copies.lock().unwrap();
        for (copy, run) in dead {
            let kept = copies.get_mut(&copy.place).filter(|kept| kept.writing == copy.writing);
            if let Some(kept) = kept {
                kept.is_there[units(run.start as usize, run.bytes as usize)].fill(false);
            }
        }
    }

    fn discard(&self, place: u32) {
        self.copies.lock().unwrap().remove(&place);
    }

    fn state(&self) -> TierState {
        if self.refuses_writes.load(Ordering::Relaxed) {
            TierState::Failing
        } else if self.is_full.load(Ordering::Relaxed) {
            TierState::Full
        } else {
            TierState::Ready
        }
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}
