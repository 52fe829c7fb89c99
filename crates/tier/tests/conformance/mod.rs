//! What every tier has to do, whatever it keeps copies in.
#![allow(dead_code, clippy::unwrap_used, reason = "for tests alone, and not all of them use all of it")]

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use tmem_store::{
    MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierRun, TierState, TierWrite,
};

/// The key of all tests.
pub const KEY: TierKey = TierKey([7; 32]);

/// Places that a tier under test needs.
pub const PLACES: u32 = 40;

/// A tier under test, which has had [`KEY`].
pub trait Rig {
    /// The tier.
    fn tier(&self) -> &dyn Tier;
    /// What the daemon does for it now and then.
    fn tend(&self);
    /// Ends it and opens it again, as another process would that has these copies.
    fn reopen(&mut self, copies: &[(TierCopy, u32)]);
}

/// An extent and its blocks, all contents from a seed.
#[derive(Clone, Debug)]
pub struct Extent {
    pub bytes: Vec<u8>,
    pub blocks: Vec<TierRun>,
}

impl Extent {
    /// Blocks of all sizes, some of them not needed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 31)
        };
        let bytes: Vec<u8> = (0..TIER_EXTENT_BYTES / 8).flat_map(|_| next().to_le_bytes()).collect();
        let (mut blocks, mut start) = (Vec::new(), 0);
        loop {
            let block = next();
            let len = 24 + (block >> 8) as u32 % 520 * 8;
            if start + len > TIER_EXTENT_BYTES as u32 {
                break;
            }
            if block % 5 > 0 || blocks.is_empty() {
                blocks.push(TierRun { start, bytes: len });
            }
            start += len;
        }
        Self { bytes, blocks }
    }

    pub fn write(&self, copy: TierCopy) -> TierWrite<'_> {
        TierWrite { copy, extent: &self.bytes, needed: &self.blocks }
    }

    pub fn needed_bytes(&self) -> u32 {
        self.blocks.iter().map(|run| run.bytes).sum()
    }

    /// What a block holds.
    pub fn block(&self, run: TierRun) -> &[u8] {
        &self.bytes[run.start as usize..(run.start + run.bytes) as usize]
    }
}

/// Reads a stretch.
pub fn read(tier: &dyn Tier, copy: TierCopy, run: TierRun) -> Result<Vec<u8>, TierError> {
    let mut into = vec![0xAA; run.bytes as usize];
    tier.read(copy, run.start as usize, &mut into).map(|()| into)
}

/// Reads the blocks of a copy one by one and all at once.
pub fn assert_kept(tier: &dyn Tier, copy: TierCopy, extent: &Extent) {
    for run in &extent.blocks {
        assert!(read(tier, copy, *run).as_deref() == Ok(extent.block(*run)), "{copy:?} {run:?}");
    }
    let whole = read(tier, copy, TierRun { start: 0, bytes: TIER_EXTENT_BYTES as u32 }).unwrap();
    for run in &extent.blocks {
        let range = run.start as usize..(run.start + run.bytes) as usize;
        assert!(&whole[range] == extent.block(*run), "{copy:?} {run:?} of the whole");
    }
}

/// What can't be written is refused whole, and leaves the tier as it was.
pub fn refuses_what_is_no_batch(tier: &dyn Tier) {
    let extent = Extent::new(1);
    let copy = |place| TierCopy { place, writing: 1 + u64::from(place) };
    let refused = |writes: &[TierWrite<'_>]| matches!(tier.write(writes), Err(TierError::Unavailable(_)));
    let write = |place| extent.write(copy(place));
    assert!(refused(&[TierWrite { extent: &extent.bytes[..100], ..write(0) }]), "too short");
    assert!(refused(&[write(0), write(tier.places())]), "no such place");
    assert!(refused(&[write(3), write(4), write(3)]), "the same place twice");
    assert!(tier.places() >= PLACES);
    let many: Vec<_> = (0..=MAX_TIER_BATCH as u32).map(write).collect();
    assert!(refused(&many), "more than a batch");
    assert_eq!(tier.state(), TierState::Ready);
    assert!(read(tier, copy(0), extent.blocks[0]).is_err());
    assert!(read(tier, copy(tier.places()), extent.blocks[0]).is_err());
    assert!(read(tier, copy(0), TierRun { start: TIER_EXTENT_BYTES as u32 - 5, bytes: 10 }).is_err());
    tier.write(&[]).unwrap();
}

/// Blocks are read while others are written and removed.
pub fn many_threads_read_while_one_writes(rig: &(dyn Rig + Sync)) {
    let tier = rig.tier();
    let kept: Vec<_> = (0..16).map(|place| TierCopy { place, writing: 1 + u64::from(place) }).collect();
    let extents: Vec<_> = kept.iter().map(|copy| Extent::new(copy.writing)).collect();
    let writes: Vec<_> = kept.iter().zip(&extents).map(|(copy, extent)| extent.write(*copy)).collect();
    tier.write(&writes).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..24usize {
            let (kept, extents) = (&kept, &extents);
            scope.spawn(move || {
                let mut at = thread * 7919;
                for _ in 0..100 {
                    at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let which = (at >> 20) % kept.len();
                    let run = extents[which].blocks[(at >> 30) % extents[which].blocks.len()];
                    assert!(read(tier, kept[which], run).as_deref() == Ok(extents[which].block(run)));
                }
            });
        }
        for writing in 1000..1060 {
            let copy = TierCopy { place: 16 + (writing % 20) as u32, writing };
            tier.write(&[Extent::new(writing).write(copy)]).unwrap();
            tier.discard(copy.place);
            rig.tend();
        }
    });
    assert_eq!(tier.state(), TierState::Ready);
}

#[derive(Clone, Debug)]
pub enum Step {
    Write(Vec<(u8, u64)>),
    /// A block, or a whole copy.
    Read(u8, Option<usize>),
    Discard(u8),
    Release(u8, usize),
    Tend,
    Reopen,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = 0..PLACES as u8;
    let step = prop_oneof![
        4 => prop::collection::vec((place.clone(), any::<u64>()), 1..=MAX_TIER_BATCH).prop_map(Step::Write),
        20 => (place.clone(), prop::option::weighted(0.9, any::<usize>())).prop_map(|(p, b)| Step::Read(p, b)),
        3 => place.clone().prop_map(Step::Discard),
        6 => (place, any::<usize>()).prop_map(|(p, b)| Step::Release(p, b)),
        2 => Just(Step::Tend),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// Any traffic reads what a map holds, and nothing else.
pub fn agrees_with_a_map(rig: &mut dyn Rig, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model: BTreeMap<u32, (TierCopy, Extent)> = BTreeMap::new();
    let mut writing = 0;
    for step in steps {
        match step {
            Step::Write(batch) => {
                let mut copies = HashMap::new();
                for (place, seed) in batch {
                    writing += 1;
                    let place = u32::from(place);
                    copies.insert(place, (TierCopy { place, writing }, Extent::new(seed)));
                }
                copies
                    .keys()
                    .filter(|place| model.contains_key(place))
                    .for_each(|place| rig.tier().discard(*place));
                let writes: Vec<_> = copies.values().map(|(copy, extent)| extent.write(*copy)).collect();
                rig.tier().write(&writes).unwrap();
                model.extend(copies);
            }
            Step::Read(place, block) => {
                let Some((copy, extent)) = model.get(&u32::from(place)) else { continue };
                match block.map(|block| block.checked_rem(extent.blocks.len())) {
                    Some(Some(block)) => {
                        let run = extent.blocks[block];
                        prop_assert_eq!(&read(rig.tier(), *copy, run).unwrap()[..], extent.block(run));
                        let other = TierCopy { writing: copy.writing + 1_000_000, ..*copy };
                        prop_assert_eq!(read(rig.tier(), other, run), Err(TierError::Damaged));
                    }
                    Some(None) => (),
                    None if extent.blocks.is_empty() => (),
                    None => assert_kept(rig.tier(), *copy, extent),
                }
            }
            Step::Discard(place) => {
                if model.remove(&u32::from(place)).is_some() {
                    rig.tier().discard(u32::from(place));
                }
            }
            Step::Release(place, block) => {
                let Some((copy, extent)) = model.get_mut(&u32::from(place)) else { continue };
                if extent.blocks.len() > 1 {
                    let run = extent.blocks.remove(block % extent.blocks.len());
                    rig.tier().release(&[(*copy, run)]);
                }
            }
            Step::Tend => rig.tend(),
            Step::Reopen => {
                let copies: Vec<_> =
                    model.values().map(|(copy, extent)| (*copy, extent.needed_bytes())).collect();
                rig.reopen(&copies);
            }
        }
    }
    rig.tend();
    for (copy, extent) in model.values() {
        assert_kept(rig.tier(), *copy, extent);
    }
    Ok(())
}
