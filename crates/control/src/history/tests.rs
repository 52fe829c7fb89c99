use proptest::prelude::*;

use super::*;
use crate::{BalanceReport, status::tests::sample};

const HOST: WholeHost = WholeHost { total_bytes: 8 << 30, available_bytes: 3 << 30 };

fn at(look: u64) -> Duration {
    LOOK_EVERY * u32::try_from(look).unwrap()
}

/// A status with these clients, and guests of the balancer.
fn status(clients: &[(&str, u64)], guests: &[(&str, u64)]) -> Status {
    let mut status = sample();
    let template = status.clients[0].clone();
    let client = |(name, counts): &(&str, u64)| ClientStatus {
        name: (*name).to_owned(),
        gets: *counts,
        puts: 2 * counts,
        refused_puts: counts / 10,
        ..template.clone()
    };
    status.clients = clients.iter().map(client).collect();
    let guest = |(name, size_bytes): &(&str, u64)| BalancedGuest {
        name: (*name).to_owned(),
        size_bytes: *size_bytes,
        target_bytes: size_bytes / 2,
        ..BalancedGuest::default()
    };
    status.balance =
        Some(BalanceReport { guests: guests.iter().map(guest).collect(), ..BalanceReport::default() });
    status
}

fn values(line: &Line) -> Vec<Vec<f32>> {
    line.pieces.iter().map(|piece| piece.iter().map(|reading| reading.value).collect()).collect()
}

#[test]
fn rates_are_what_happened_since_the_look_before() {
    let mut history = History::default();
    for (look, counts) in [(0, 1_000), (1, 1_050), (2, 1_050), (4, 1_150)] {
        history.record(at(look), &status(&[("vm", counts)], &[]), HOST);
    }
    let line = |reading| values(&history.guest(Span::Hour, "vm", reading, 100).unwrap());
    assert_eq!(line(GuestPoint::SwapIns), [[10.0, 0.0, 10.0]], "there is none before the second look");
    assert_eq!(line(GuestPoint::SwapOuts), [[20.0, 0.0, 20.0]]);
    assert_eq!(history.guest_now("vm", GuestPoint::SwapIns), Some(10.0));
    assert_eq!(history.host_now(HostPoint::SwapOuts), Some(20.0));
    assert_eq!(history.guest_now("vm", GuestPoint::Size), None, "no balancer looks after it");
    assert_eq!(history.refused_within("vm", 1), 10);
    assert_eq!(history.refused_within("vm", 60), 15);
    assert_eq!(history.refused_within("who", 60), 0);
}

/// A disk that was removed and made again counts from nothing; no rate is ever below zero.
#[test]
fn counts_that_fall_are_another_clients() {
    let mut history = History::default();
    for (look, counts) in [(0, 1_000), (1, 50), (2, 100)] {
        history.record(at(look), &status(&[("vm", counts)], &[]), HOST);
    }
    let ins = history.guest(Span::Hour, "vm", GuestPoint::SwapIns, 100).unwrap();
    assert_eq!(values(&ins), [[10.0, 10.0]]);
}

#[test]
fn a_guest_that_was_away_and_a_daemon_that_slept_leave_gaps() {
    let mut history = History::default();
    for look in [0, 1] {
        history.record(at(look), &status(&[], &[("vm", 100), ("stays", 7)]), HOST);
    }
    history.record(at(2), &status(&[], &[("stays", 7)]), HOST);
    for look in [3, 4, 5, 50] {
        history.record(at(look), &status(&[], &[("vm", 300), ("stays", 7)]), HOST);
    }
    let size = history.guest(Span::Hour, "vm", GuestPoint::Size, 100).unwrap();
    assert_eq!(values(&size), [vec![100.0, 100.0], vec![300.0, 300.0, 300.0], vec![300.0]]);
    let stays = history.guest(Span::Hour, "stays", GuestPoint::Target, 100).unwrap();
    assert_eq!(values(&stays), [vec![3.0; 6], vec![3.0]]);
    let ago: Vec<_> = size.pieces.iter().flatten().map(|reading| reading.ago).collect();
    assert_eq!(ago, [50, 49, 47, 46, 45, 0].map(at));
    assert!(history.guest(Span::Hour, "who", GuestPoint::Size, 100).is_none());
    assert_eq!(history.guest(Span::Day, "vm", GuestPoint::Size, 100), Some(Line::default()));
}

#[test]
fn a_day_is_means_of_two_minutes() {
    let mut history = History::default();
    for look in 0..48 {
        let size = if look < 24 { 100 } else { look };
        history.record(at(look), &status(&[], &[("vm", size)]), HOST);
    }
    let day = history.guest(Span::Day, "vm", GuestPoint::Size, 100).unwrap();
    assert_eq!(values(&day), [[100.0, (24..48).sum::<u64>() as f32 / 24.0]]);
    assert_eq!(day.pieces[0][0].ago, at(24));
    assert_eq!(history.reach(Span::Day), Some((at(23), at(47))));
}

#[test]
fn the_hosts_memory_adds_up_even_if_guests_have_more_than_there_is() {
    for guests in [0, 1 << 30, u64::MAX] {
        let mut history = History::default();
        let mut status = status(&[], &[("vm", guests), ("other", guests)]);
        status.pool.held_bytes = 1 << 30;
        history.record(at(0), &status, HOST);
        let now = |reading| history.host_now(reading).unwrap();
        let parts = now(HostPoint::Pool) + now(HostPoint::Guests) + now(HostPoint::Other);
        assert_eq!(parts, (5u64 << 30) as f32);
        assert_eq!(now(HostPoint::Guests), guests.saturating_mul(2).min(4 << 30) as f32);
    }
}

/// One that comes when all places are taken waits; when one has left, the place of who left first is free.
#[test]
fn so_many_guests_have_a_history_and_no_more() {
    let names: Vec<_> = (0..MAX_GUESTS + 1).map(|number| format!("vm{number:03}")).collect();
    let of = |names: &[String]| status(&[], &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    let mut history = History::default();
    history.record(at(0), &of(&names), HOST);
    let last = names.last().unwrap();
    assert_eq!(names.iter().filter(|name| history.knows(name)).count(), MAX_GUESTS);
    assert!(!history.knows(last));
    history.record(at(1), &of(&names[2..]), HOST);
    assert!(history.knows(last) && history.knows(&names[1]) != history.knows(&names[0]));
    for look in 2..2 + FINE_POINTS as u64 {
        history.record(at(look), &of(&names[2..]), HOST);
    }
    assert!(!history.knows(&names[0]) && !history.knows(&names[1]), "an hour is enough");
}

/// 20 MiB are what balancer and dashboard may take together; this is the history's part.
#[test]
fn a_full_history_takes_less_than_four_mebibytes() {
    let names: Vec<_> = (0..2 * MAX_GUESTS).map(|number| format!("vm{number:03}")).collect();
    let status = status(&[], &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
    let mut history = History::default();
    let looks = (FINE_PER_COARSE * (COARSE_POINTS + 2)) as u64;
    let mut largest = 0;
    for look in 0..looks {
        history.record(at(look), &status, HOST);
        largest = largest.max(history.bytes());
    }
    assert!((2 << 20..4 << 20).contains(&largest), "{largest}");
    assert_eq!(history.coarse.0.len(), COARSE_POINTS);
    assert_eq!((history.fine.0.len(), history.guests.len()), (FINE_POINTS, MAX_GUESTS));
    let all = history.host(Span::Day, HostPoint::Total, usize::MAX);
    assert_eq!(all.pieces.iter().map(Vec::len).sum::<usize>(), COARSE_POINTS);
}

proptest! {
    /// Averaging loses no time and no size: what is drawn lies between what was read, in as many points as were asked for or so.
    #[test]
    fn a_line_stays_within_its_readings(
        readings in proptest::collection::vec(proptest::option::weighted(0.9, 0u32..1_000_000), 0..800),
        most in 1usize..200,
    ) {
        let mut history = History::default();
        for (look, size) in readings.iter().enumerate() {
            let guests: Vec<_> = size.iter().map(|size| ("vm", u64::from(*size))).collect();
            history.record(at(look as u64), &status(&[], &guests), HOST);
        }
        let line = history.guest(Span::Hour, "vm", GuestPoint::Size, most).unwrap_or_default();
        let kept = &readings[readings.len().saturating_sub(FINE_POINTS)..];
        let known: Vec<_> = kept.iter().flatten().map(|size| *size as f32).collect();
        let gaps = kept.iter().filter(|size| size.is_none()).count();
        let drawn: Vec<_> = line.pieces.iter().flatten().collect();
        prop_assert!(drawn.len() <= most + gaps + 1, "{} of {most}, {gaps} gaps", drawn.len());
        prop_assert_eq!(drawn.is_empty(), known.is_empty());
        let (least, largest) = (known.iter().copied().fold(f32::MAX, f32::min), known.iter().copied().fold(0.0, f32::max));
        for reading in &drawn {
            prop_assert!((least..=largest).contains(&reading.value));
        }
        for pair in drawn.windows(2) {
            prop_assert!(pair[0].ago > pair[1].ago);
        }
    }
}
