//! What the daemon was like during the last hour and the last day, for the dashboard's charts.
//!
//! Whoever owns the history looks every [`LOOK_EVERY`] and has it [record](History::record) what was seen. Points of the last hour are kept as
//! they are; of each two minutes a mean is kept for a day. All of it is in memory, bounded, and lost with the process.
//!
//! A guest is what the balancer looks after, a client, or both, under one name. At most [`MAX_GUESTS`] have a history; one that comes when that many
//! are there has none until another has left. One that left keeps its place until it is needed or an hour has passed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{BalancedGuest, ClientStatus, Status, WholeHost};

mod points;

use points::{GUEST_READINGS, HOST_READINGS, mean, no_reading};
pub(crate) use points::{GuestPoint, HostPoint, Line, Reading};

/// From one look to the next.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Guests that have a history, at most.
pub(crate) const MAX_GUESTS: usize = 64;
/// Points of the last hour.
const FINE_POINTS: usize = 720;
/// Points of the last day.
const COARSE_POINTS: usize = 720;
/// Looks that one point of the last day is the mean of: two minutes.
const FINE_PER_COARSE: usize = 24;

/// How far back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// The last hour, a point every five seconds.
    #[default]
    Hour,
    /// The last day, a point every two minutes.
    Day,
}

/// The history of the host, the pool and the guests.
#[derive(Debug, Default)]
pub(crate) struct History {
    looks: u64,
    fine: Times,
    coarse: Times,
    host: Track<HOST_READINGS>,
    guests: Vec<Tracked>,
    /// Of every client at the last look, so that a rate needs no second one.
    counts: BTreeMap<String, Counts>,
}

/// When its points were taken.
#[derive(Debug, Default)]
struct Times(VecDeque<Duration>);

/// The points of one thing. The last one is of the last look; one that came later has fewer than others.
#[derive(Debug)]
struct Track<const N: usize> {
    fine: VecDeque<[f32; N]>,
    coarse: VecDeque<[f32; N]>,
}

#[derive(Debug)]
struct Tracked {
    name: String,
    track: Track<GUEST_READINGS>,
    /// For how many looks it has not been there.
    missed: usize,
}

/// What a client had done at a look.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    swap_ins: u64,
    swap_outs: u64,
    refused: u64,
}

/// Of the counts, how much a second since the last look.
#[derive(Clone, Copy, Debug)]
struct Rates {
    swap_ins: f32,
    swap_outs: f32,
    refused: f32,
}

impl History {
    /// Takes down what is seen now. `at` is the time on a clock that only goes forward, and is the owner's.
    pub(crate) fn record(&mut self, at: Duration, status: &Status, host: WholeHost) {
        let last = self.fine.0.back().copied();
        let elapsed = last.map(|last| at.saturating_sub(last)).filter(|elapsed| !elapsed.is_zero());
        let counts: BTreeMap<_, _> =
            status.clients.iter().map(|client| (client.name.clone(), Counts::of(client))).collect();
        let rates: BTreeMap<&str, Rates> = counts
            .iter()
            .map(|(name, now)| (name.as_str(), now.rates(self.counts.get(name), elapsed)))
            .collect();
        self.looks += 1;
        self.fine.push(at, FINE_POINTS);
        let is_coarse = self.looks.is_multiple_of(FINE_PER_COARSE as u64);
        if is_coarse {
            self.coarse.push(at, COARSE_POINTS);
        }
        self.host.push(host_point(status, host, rates.values()), is_coarse);
        let mut present = present(status);
        for tracked in &mut self.guests {
            let seen = present.remove(tracked.name.as_str());
            tracked.missed = if seen.is_some() { 0 } else { tracked.missed + 1 };
            let rates = rates.get(tracked.name.as_str());
            tracked.track.push(seen.map_or_else(no_reading, |guest| guest_point(guest, rates)), is_coarse);
        }
        self.guests.retain(|tracked| tracked.missed < FINE_POINTS);
        for (name, guest) in present {
            if self.guests.len() >= MAX_GUESTS && !self.forget_longest_gone() {
                break;
            }
            let mut track = Track::default();
            track.push(guest_point(guest, rates.get(name)), is_coarse);
            self.guests.push(Tracked { name: name.to_owned(), track, missed: 0 });
        }
        self.counts = counts;
    }

    /// How often it has been recorded: another number, another picture.
    pub(crate) fn looks(&self) -> u64 {
        self.looks
    }

    /// When it was recorded first, as far as it is remembered, and last.
    pub(crate) fn reach(&self, span: Span) -> Option<(Duration, Duration)> {
        let last = self.fine.0.back()?;
        let times = if span == Span::Day { &self.coarse } else { &self.fine };
        let first = times.0.front().or_else(|| self.fine.0.front())?;
        Some((*first, *last))
    }

    /// A reading of the host and the pool over time, as at most so many points.
    pub(crate) fn host(&self, span: Span, reading: HostPoint, points: usize) -> Line {
        self.line(span, &self.host, reading.index(), points)
    }

    /// A reading of a guest over time, as at most so many points. `None`: it has no history.
    pub(crate) fn guest(&self, span: Span, name: &str, reading: GuestPoint, points: usize) -> Option<Line> {
        Some(self.line(span, &self.tracked(name)?.track, reading.index(), points))
    }

    /// Whether a guest has a history.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.tracked(name).is_some()
    }

    /// A reading of the host and the pool at the last look.
    pub(crate) fn host_now(&self, reading: HostPoint) -> Option<f32> {
        points::known(*self.host.fine.back()?.get(reading.index())?)
    }

    /// A reading of a guest at the last look.
    pub(crate) fn guest_now(&self, name: &str, reading: GuestPoint) -> Option<f32> {
        points::known(*self.tracked(name)?.track.fine.back()?.get(reading.index())?)
    }

    /// Puts of a guest that were refused within the last so many looks.
    pub(crate) fn refused_within(&self, name: &str, looks: usize) -> u64 {
        let Some(tracked) = self.tracked(name) else { return 0 };
        let times: Vec<_> = self.fine.0.iter().rev().take(looks + 1).collect();
        let points = tracked.track.fine.iter().rev();
        let refused = points.zip(times.windows(2)).map(|(point, times)| {
            let seconds = times[0].saturating_sub(*times[1]).as_secs_f64();
            points::known(point[GuestPoint::Refused.index()]).map_or(0.0, |rate| f64::from(rate) * seconds)
        });
        refused.sum::<f64>().round() as u64
    }

    fn tracked(&self, name: &str) -> Option<&Tracked> {
        self.guests.iter().find(|tracked| tracked.name == name)
    }

    fn line<const N: usize>(&self, span: Span, track: &Track<N>, index: usize, points: usize) -> Line {
        let Some(now) = self.fine.0.back() else { return Line::default() };
        let (times, values, every) = match span {
            Span::Hour => (&self.fine, &track.fine, LOOK_EVERY),
            Span::Day => (&self.coarse, &track.coarse, LOOK_EVERY * FINE_PER_COARSE as u32),
        };
        let unseen = times.0.len().saturating_sub(values.len());
        let readings = times.0.iter().skip(unseen).zip(values).map(|(at, point)| Reading {
            ago: now.saturating_sub(*at),
            value: point.get(index).copied().unwrap_or(f32::NAN),
        });
        Line::new(readings, every, points)
    }

    /// Makes room for a guest that came. False: all are there.
    fn forget_longest_gone(&mut self) -> bool {
        let gone = self.guests.iter().enumerate().filter(|(_, tracked)| tracked.missed > 0);
        let Some((at, _)) = gone.max_by_key(|(_, tracked)| tracked.missed) else { return false };
        self.guests.swap_remove(at);
        true
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let tracked =
            |tracked: &Tracked| size_of::<Tracked>() + tracked.name.capacity() + tracked.track.bytes();
        let times = (self.fine.0.capacity() + self.coarse.0.capacity()) * size_of::<Duration>();
        times + self.host.bytes() + self.guests.iter().map(tracked).sum::<usize>()
    }
}

impl Times {
    fn push(&mut self, at: Duration, most: usize) {
        push(&mut self.0, at, most);
    }
}

impl<const N: usize> Track<N> {
    fn push(&mut self, point: [f32; N], is_coarse: bool) {
        push(&mut self.fine, point, FINE_POINTS);
        if is_coarse {
            let last = self.fine.iter().rev().take(FINE_PER_COARSE);
            let point = mean(last);
            push(&mut self.coarse, point, COARSE_POINTS);
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        (self.fine.capacity() + self.coarse.capacity()) * size_of::<[f32; N]>()
    }
}

impl<const N: usize> Default for Track<N> {
    fn default() -> Self {
        Self { fine: VecDeque::new(), coarse: VecDeque::new() }
    }
}

/// The oldest one goes when there are so many.
fn push<T>(ring: &mut VecDeque<T>, value: T, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(value);
}

impl Counts {
    fn of(client: &ClientStatus) -> Self {
        Self { swap_ins: client.gets, swap_outs: client.puts, refused: client.refused_puts }
    }

    /// A client that was not there before began with nothing; so did one whose counts fell, because it is another of the same name.
    fn rates(&self, before: Option<&Self>, elapsed: Option<Duration>) -> Rates {
        let before = before.copied().unwrap_or_default();
        let rate = |now: u64, before: u64| {
            let done = now.checked_sub(before).unwrap_or(now);
            elapsed.map_or(f32::NAN, |elapsed| (done as f64 / elapsed.as_secs_f64()) as f32)
        };
        Rates {
            swap_ins: rate(self.swap_ins, before.swap_ins),
            swap_outs: rate(self.swap_outs, before.swap_outs),
            refused: rate(self.refused, before.refused),
        }
    }
}

/// What is known of a guest: at least one of them.
type Present<'a> = (Option<&'a ClientStatus>, Option<&'a BalancedGuest>);

fn present(status: &Status) -> BTreeMap<&str, Present<'_>> {
    let mut present: BTreeMap<&str, Present<'_>> = BTreeMap::new();
    for client in &status.clients {
        present.entry(&client.name).or_default().0 = Some(client);
    }
    for guest in status.balance.iter().flat_map(|balance| &balance.guests) {
        present.entry(&guest.name).or_default().1 = Some(guest);
    }
    present
}

fn guest_point((client, guest): Present<'_>, rates: Option<&Rates>) -> [f32; GUEST_READINGS] {
    let mut point = no_reading();
    let mut set = |reading: GuestPoint, value: Option<f32>| {
        point[reading.index()] = value.unwrap_or(f32::NAN);
    };
    set(GuestPoint::Size, guest.map(|guest| guest.size_bytes as f32));
    set(GuestPoint::Target, guest.map(|guest| guest.target_bytes as f32));
    set(GuestPoint::Used, client.map(|client| client.used_bytes as f32));
    set(GuestPoint::Logical, client.map(|client| client.logical_bytes as f32));
    set(GuestPoint::SwapIns, rates.map(|rates| rates.swap_ins));
    set(GuestPoint::SwapOuts, rates.map(|rates| rates.swap_outs));
    set(GuestPoint::Refused, rates.map(|rates| rates.refused));
    point
}

fn host_point<'a>(
    status: &Status,
    host: WholeHost,
    rates: impl Iterator<Item = &'a Rates> + Clone,
) -> [f32; HOST_READINGS] {
    let guests = status.balance.iter().flat_map(|balance| &balance.guests);
    let guests_bytes = guests.fold(0u64, |sum, guest| sum.saturating_add(guest.size_bytes));
    let tiered_bytes = status.tiers.iter().fold(0u64, |sum, tier| sum.saturating_add(tier.live_bytes));
    let used_bytes = host.total_bytes.saturating_sub(host.available_bytes);
    let pool_bytes = status.pool.held_bytes.min(used_bytes);
    // What a guest was given and has not touched yet takes nothing of the host.
    let guests_bytes = guests_bytes.min(used_bytes - pool_bytes);
    let mut point = no_reading();
    let mut set = |reading: HostPoint, value: f32| point[reading.index()] = value;
    set(HostPoint::Total, host.total_bytes as f32);
    set(HostPoint::Pool, pool_bytes as f32);
    set(HostPoint::Guests, guests_bytes as f32);
    set(HostPoint::Other, (used_bytes - pool_bytes - guests_bytes) as f32);
    set(HostPoint::Used, status.pool.used_bytes as f32);
    set(HostPoint::Logical, status.pool.logical_bytes as f32);
    set(HostPoint::Tiered, if status.tiers.is_empty() { f32::NAN } else { tiered_bytes as f32 });
    // The sum of nothing is nothing, also where no rate is known yet.
    set(HostPoint::SwapIns, rates.clone().map(|rates| rates.swap_ins).sum());
    set(HostPoint::SwapOuts, rates.clone().map(|rates| rates.swap_outs).sum());
    set(HostPoint::Refused, rates.map(|rates| rates.refused).sum());
    point
}

#[cfg(test)]
mod tests;
