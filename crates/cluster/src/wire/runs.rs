//! Stretches of an extent: which of its bytes are needed, or are dead.

use tmem_store::TIER_EXTENT_BYTES;

use super::fields::Fields;

/// Runs begin and end at multiples of this, in bytes: blocks do.
pub const RUN_UNIT_BYTES: usize = 8;

/// The most runs of an extent: the shortest block takes three units, and so does the shortest gap.
pub const MAX_RUNS: usize = (TIER_EXTENT_BYTES / RUN_UNIT_BYTES).div_ceil(6);

/// What a run takes, in bytes.
pub(super) const RUN_BYTES: usize = 4;

const EXTENT_UNITS: u32 = (TIER_EXTENT_BYTES / RUN_UNIT_BYTES) as u32;

/// Bytes of an extent that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins, in units of 8 bytes.
    pub start: u16,
    /// How long it is, in units of 8 bytes. Not 0.
    pub units: u16,
}

impl Run {
    /// Where it begins in the extent, in bytes.
    pub fn start_bytes(self) -> usize {
        usize::from(self.start) * RUN_UNIT_BYTES
    }

    /// How long it is, in bytes.
    pub fn bytes(self) -> usize {
        usize::from(self.units) * RUN_UNIT_BYTES
    }

    fn end(self) -> u32 {
        u32::from(self.start) + u32::from(self.units)
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend(self.start.to_le_bytes());
        out.extend(self.units.to_le_bytes());
    }
}

/// A list of runs as it came: in order, with gaps between them, within the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs<'a> {
    bytes: &'a [u8],
}

impl<'a> Runs<'a> {
    /// Reads a list. `Err`: what is wrong with it.
    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<Self, &'static str> {
        let count = usize::from(fields.u16().ok_or("no end")?);
        if count > MAX_RUNS {
            return Err("more runs than an extent has");
        }
        let runs = Runs { bytes: fields.bytes(count * RUN_BYTES).ok_or("no end")? };
        let is_valid = runs.iter().try_fold(None, |end, run| {
            (run.units > 0 && end.is_none_or(|end| u32::from(run.start) > end) && run.end() <= EXTENT_UNITS)
                .then_some(Some(run.end()))
        });
        is_valid.map(|_| runs).ok_or("runs that are no runs of an extent")
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Run> + Clone + 'a {
        self.bytes.chunks_exact(RUN_BYTES).map(|bytes| Run {
            start: u16::from_le_bytes([bytes[0], bytes[1]]),
            units: u16::from_le_bytes([bytes[2], bytes[3]]),
        })
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.bytes.len() / RUN_BYTES
    }

    /// How many bytes of the extent they are.
    pub fn total_bytes(self) -> usize {
        self.iter().map(Run::bytes).sum()
    }
}
