//! Extents without what nobody needs: runs, and their bytes.

use std::borrow::Cow;

use tmem_cluster::wire::{RUN_UNIT_BYTES, Run};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

const EXTENT_UNITS: u16 = (TIER_EXTENT_BYTES / RUN_UNIT_BYTES) as u16;

/// A copy as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    pub(super) copy: TierCopy,
    pub(super) runs: Vec<Run>,
    /// Those of the runs, one behind the other.
    pub(super) bytes: Cow<'a, [u8]>,
}

impl<'a> Packed<'a> {
    /// All of an extent.
    pub(super) fn whole(copy: TierCopy, extent: &'a [u8]) -> Self {
        Self { copy, runs: vec![Run { start: 0, units: EXTENT_UNITS }], bytes: Cow::Borrowed(extent) }
    }

    /// These runs of an extent.
    pub(super) fn of(copy: TierCopy, extent: &'a [u8], runs: Vec<Run>) -> Self {
        let bytes = match runs[..] {
            [run] => Cow::Borrowed(bytes_of(extent, run)),
            _ => Cow::Owned(runs.iter().flat_map(|run| bytes_of(extent, *run)).copied().collect()),
        };
        Self { copy, runs, bytes }
    }
}

fn bytes_of(extent: &[u8], run: Run) -> &[u8] {
    extent.get(run.start_bytes()..run.start_bytes() + run.bytes()).unwrap_or_default()
}

/// Runs of bytes, given by start and length, as the wire has them: in order, those that touch made one.
pub(super) fn merged(stretches: impl Iterator<Item = (u32, u32)>) -> Vec<Run> {
    let unit = RUN_UNIT_BYTES as u32;
    let mut stretches: Vec<(u32, u32)> = stretches
        .filter(|(start, bytes)| *bytes > 0 && start + bytes <= TIER_EXTENT_BYTES as u32)
        .map(|(start, bytes)| (start / unit, (start + bytes).div_ceil(unit)))
        .collect();
    stretches.sort_unstable();
    let mut runs: Vec<Run> = Vec::with_capacity(stretches.len());
    for (start, end) in stretches {
        // An extent has 16384 units.
        let (start, end) = (start as u16, end as u16);
        match runs.last_mut() {
            Some(last) if start <= last.start + last.units => {
                last.units = last.units.max(end - last.start);
            }
            _ => runs.push(Run { start, units: end - start }),
        }
    }
    runs
}
