//! Talks to a holding as a borrower does, through the bytes of the protocol, and knows what it should have.

use std::collections::BTreeMap;

use tmem_cluster::{
    lender::Holding,
    wire::{Encoder, FrameReader, Message, PutResult, RUN_UNIT_BYTES, Run},
};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

/// What an extent has, in units of 8 bytes.
pub const UNITS: usize = TIER_EXTENT_BYTES / RUN_UNIT_BYTES;

/// The 8 bytes of a unit: no other unit of any copy has the same.
pub fn unit(copy: TierCopy, unit: usize) -> [u8; RUN_UNIT_BYTES] {
    ((u64::from(copy.place) << 48) ^ (copy.writing << 16) ^ unit as u64).to_le_bytes()
}

/// The bytes of a stretch of an extent.
pub fn bytes(copy: TierCopy, start: usize, len: usize) -> Vec<u8> {
    let units = start / RUN_UNIT_BYTES..(start + len).div_ceil(RUN_UNIT_BYTES);
    let mut whole = Vec::with_capacity(units.len() * RUN_UNIT_BYTES);
    units.clone().for_each(|at| whole.extend_from_slice(&unit(copy, at)));
    whole[start - units.start * RUN_UNIT_BYTES..][..len].to_vec()
}

/// Does what the frame says.
fn carry_out(frame: &[u8], holding: &mut Holding) -> Vec<PutResult> {
    let mut reader = FrameReader::default();
    let frame = reader.next(&mut &frame[..]).unwrap().unwrap().unwrap();
    match Message::decode(frame).unwrap() {
        Message::Put(puts) => puts.iter().map(|put| holding.put(put.copy, put.runs, put.bytes)).collect(),
        Message::Flush(flushes) => {
            flushes.iter().for_each(|dead| holding.flush(dead));
            Vec::new()
        }
        other => panic!("{other:?}"),
    }
}

/// Puts a copy.
pub fn put(holding: &mut Holding, copy: TierCopy, runs: &[Run]) -> PutResult {
    let content: Vec<u8> = runs.iter().flat_map(|run| bytes(copy, run.start_bytes(), run.bytes())).collect();
    let mut frame = Vec::new();
    Encoder::new(&mut frame).put(1, &[(copy, runs, &content)]).unwrap();
    carry_out(&frame, holding)[0]
}

/// Flushes runs of a copy, or the whole.
pub fn flush(holding: &mut Holding, copy: TierCopy, runs: &[Run]) {
    let mut frame = Vec::new();
    Encoder::new(&mut frame).flush(1, &[(copy, runs)]).unwrap();
    carry_out(&frame, holding);
}

/// A copy as it should be: which of its units are live.
#[derive(Clone)]
pub struct Expected {
    pub writing: u64,
    pub live: Vec<bool>,
    pub until_ms: Option<u64>,
}

impl Expected {
    pub fn of(writing: u64, runs: &[Run]) -> Self {
        let mut expected = Self { writing, live: vec![false; UNITS], until_ms: None };
        expected.set(runs, true);
        expected
    }

    pub fn set(&mut self, runs: &[Run], is_live: bool) {
        for run in runs {
            self.live[usize::from(run.start)..][..usize::from(run.units)].fill(is_live);
        }
    }

    pub fn live_bytes(&self) -> usize {
        self.live.iter().filter(|live| **live).count() * RUN_UNIT_BYTES
    }

    /// Its runs.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for at in (0..UNITS).filter(|at| self.live[*at]) {
            match runs.last_mut() {
                Some(run) if usize::from(run.start) + usize::from(run.units) == at => run.units += 1,
                _ => runs.push(Run { start: at as u16, units: 1 }),
            }
        }
        runs
    }
}

/// All copies, by place.
pub type Model = BTreeMap<u32, Expected>;
