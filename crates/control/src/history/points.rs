//! What is kept of one look, and how it becomes lines of a chart.

use std::time::Duration;

/// Readings of the host and the pool at one look.
pub(super) const HOST_READINGS: usize = 10;
/// Readings of a guest at one look: 28 bytes.
pub(super) const GUEST_READINGS: usize = 7;

/// What is read of the host and the pool. Sizes in bytes, rates in pages a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HostPoint {
    /// Memory of the host.
    Total,
    /// What the pool holds of it.
    Pool,
    /// What the balancer's guests have of it.
    Guests,
    /// What everybody else has.
    Other,
    /// What clients' pages take.
    Used,
    /// What they would take uncompressed.
    Logical,
    /// What is in tiers. Not known without one.
    Tiered,
    /// Gets of all clients.
    SwapIns,
    /// Puts of all clients.
    SwapOuts,
    /// Refused puts of all clients.
    Refused,
}

/// What is read of a guest. Sizes in bytes, rates in pages a second; those of the balancer, or of the store, are not known of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GuestPoint {
    /// The memory it has.
    Size,
    /// What it is to have.
    Target,
    /// What its pages take in the pool.
    Used,
    /// What they would take uncompressed.
    Logical,
    /// Gets.
    SwapIns,
    /// Puts.
    SwapOuts,
    /// Refused puts.
    Refused,
}

impl HostPoint {
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl GuestPoint {
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Nothing is known: NaN stands for that.
pub(super) fn no_reading<const N: usize>() -> [f32; N] {
    [f32::NAN; N]
}

/// The value, if it is known.
pub(super) fn known(value: f32) -> Option<f32> {
    Some(value).filter(|value| value.is_finite())
}

/// The mean of what is known of each reading.
pub(super) fn mean<'a, const N: usize>(points: impl Iterator<Item = &'a [f32; N]>) -> [f32; N] {
    let (mut sums, mut counts) = ([0f64; N], [0u32; N]);
    for point in points {
        for ((sum, count), value) in sums.iter_mut().zip(&mut counts).zip(point) {
            if let Some(value) = known(*value) {
                *sum += f64::from(value);
                *count += 1;
            }
        }
    }
    let mut mean = no_reading();
    for ((mean, sum), count) in mean.iter_mut().zip(sums).zip(counts) {
        if count > 0 {
            *mean = (sum / f64::from(count)) as f32;
        }
    }
    mean
}

/// One value and how long ago it was.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Reading {
    pub(crate) ago: Duration,
    /// NaN where it is not known.
    pub(crate) value: f32,
}

/// A reading over time, oldest first, in pieces: where nothing is known there is a gap, and no line through it.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Line {
    pub(crate) pieces: Vec<Vec<Reading>>,
}

impl Line {
    /// Of readings that are to be `every` so long, neighbours averaged until there are at most `most` points or so.
    pub(super) fn new(
        readings: impl ExactSizeIterator<Item = Reading>,
        every: Duration,
        most: usize,
    ) -> Self {
        let group = readings.len().div_ceil(most.max(1)).max(1);
        let mut line = Self::default();
        let mut piece = Vec::<Reading>::new();
        let mut before: Option<Reading> = None;
        let mut taken = Group::default();
        for reading in readings {
            // A thread may be late; three times as late is a time that nothing is known of.
            let is_gap = before.is_some_and(|before| before.ago.saturating_sub(reading.ago) > every * 3);
            if is_gap || !reading.value.is_finite() {
                piece.extend(taken.take());
                line.add(&mut piece);
            }
            if reading.value.is_finite() {
                taken.add(reading);
                if taken.count == group {
                    piece.extend(taken.take());
                }
            }
            before = Some(reading);
        }
        piece.extend(taken.take());
        line.add(&mut piece);
        line
    }

    fn add(&mut self, piece: &mut Vec<Reading>) {
        if !piece.is_empty() {
            self.pieces.push(std::mem::take(piece));
        }
    }

    /// The largest value.
    pub(crate) fn max(&self) -> f32 {
        self.pieces.iter().flatten().map(|reading| reading.value).fold(0.0, f32::max)
    }
}

/// Readings that become one.
#[derive(Default)]
struct Group {
    sum: f64,
    count: usize,
    ago: Duration,
}

impl Group {
    fn add(&mut self, reading: Reading) {
        self.sum += f64::from(reading.value);
        self.count += 1;
        // The latest: a line then ends where the picture does.
        self.ago = reading.ago;
    }

    fn take(&mut self) -> Option<Reading> {
        let Self { sum, count, ago } = std::mem::take(self);
        (count > 0).then(|| Reading { ago, value: (sum / count as f64) as f32 })
    }
}
