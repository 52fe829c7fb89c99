//! Extents without what nobody needs: runs, and their bytes.

use std::borrow::Cow;

use tmem_cluster::wire::{RUN_UNIT_BYTES, Run};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

use super::sealing::Seal;

/// A copy as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    pub(super) copy: TierCopy,
    pub(super) runs: Vec<Run>,
    /// Those of the runs, one behind the other.
    pub(super) bytes: Cow<'a, [u8]>,
}

impl<'a> Packed<'a> {
    /// These runs of an extent.
    pub(super) fn of(copy: TierCopy, extent: &'a [u8], runs: Vec<Run>) -> Self {
        let bytes = match runs[..] {
            [run] => Cow::Borrowed(bytes_of(extent, run)),
            _ => {
                let parts: Vec<&[u8]> = runs.iter().map(|run| bytes_of(extent, *run)).collect();
                Cow::Owned(parts.concat())
            }
        };
        Self { copy, runs, bytes }
    }

    /// The same with bytes of its own.
    pub(super) fn owned(self) -> Packed<'static> {
        Packed { copy: self.copy, runs: self.runs, bytes: Cow::Owned(self.bytes.into_owned()) }
    }

    /// Makes it what peers may have. False: it cannot be.
    pub(super) fn close(&mut self, seal: &Seal) -> bool {
        // What is sent as it is needs no copy.
        !seal.is_used()
            || all_runs(&self.runs, self.bytes.to_mut(), |run, bytes| {
                seal.close(self.copy, run.start_bytes(), bytes)
            })
    }
}

/// Whether it is so for each run and its bytes, which are one behind the other.
pub(super) fn all_runs(
    runs: &[Run],
    mut bytes: &mut [u8],
    mut is_so: impl FnMut(Run, &mut [u8]) -> bool,
) -> bool {
    runs.iter().all(|run| {
        let Some((of_run, rest)) = std::mem::take(&mut bytes).split_at_mut_checked(run.bytes()) else {
            return false;
        };
        bytes = rest;
        is_so(*run, of_run)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_touch_are_one_run_in_whatever_order_they_come() {
        let runs = merged([(80, 24), (0, 40), (40, 24), (131_064, 8), (0, 40)].into_iter());
        let expected = [(0, 8), (10, 3), (16_383, 1)].map(|(start, units)| Run { start, units });
        assert_eq!(runs, expected);
        assert_eq!(merged([(0, 0), (131_072, 8)].into_iter()), [], "what is in no extent is no run");
    }

    #[test]
    fn a_packed_extent_has_the_bytes_of_its_runs() {
        let extent: Vec<u8> = (0..TIER_EXTENT_BYTES).map(|at| (at / 8) as u8).collect();
        let copy = TierCopy { place: 1, writing: 1 };
        let packed = Packed::of(copy, &extent, merged([(8, 8), (32, 16)].into_iter()));
        assert_eq!(packed.bytes[..], [[1; 8], [4; 8], [5; 8]].concat());
        let whole = Packed::of(copy, &extent, merged([(0, TIER_EXTENT_BYTES as u32)].into_iter()));
        assert!(matches!(whole.bytes, Cow::Borrowed(_)));
        assert_eq!(whole.bytes[..], extent);
    }
}
