//! Signals that are held back for a moment: none is lost, whatever comes next, or if nothing does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod guest;

use std::time::{Duration, Instant};

use guest::*;
use tmem_transport::PollLimit;
use tmem_vhost::{VhostFrontend, VhostOptions};
use vhost::VhostBackend;

const LONG: Duration = Duration::from_secs(20);

fn rig(event_idx: bool) -> (tempfile::TempDir, VhostFrontend, Guest) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let options = VhostOptions { poll_limit: PollLimit::from_us(1000), ..VhostOptions::new(&socket) };
    let frontend = VhostFrontend::start(disk(&store(), "signals"), options).unwrap();
    let guest = Guest::connect_with(&socket, 1, event_idx).unwrap();
    (directory, frontend, guest)
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Writes one page again and again and waits for none of them, as a guest that swaps out.
fn offer_writes(guest: &mut Guest, count: u32) {
    for _ in 0..count {
        guest.offer(0, 0);
        spin(Duration::from_micros(3));
    }
}

/// Sleeps until all is done that was offered, as a driver does.
fn sleep_until_done(guest: &Guest, event_idx: bool, what: &str) {
    loop {
        if event_idx {
            guest.want_call(0);
        }
        if guest.wait(0, Duration::ZERO) {
            return;
        }
        assert!(guest.wait_for_call(0, LONG), "{what}");
    }
}

#[test]
fn a_guest_that_sleeps_after_its_writes_is_called_though_nothing_follows() {
    for event_idx in [true, false] {
        let (_directory, _frontend, mut guest) = rig(event_idx);
        guest.prepare(0, WRITE, 0, &pages(1, 1), 0);
        for round in 0..1000 {
            offer_writes(&mut guest, 1 + round % 20);
            sleep_until_done(&guest, event_idx, &format!("round {round}, event index {event_idx}"));
        }
    }
}

#[test]
fn a_read_after_writes_is_answered_with_all_of_them_signalled() {
    let (_directory, _frontend, mut guest) = rig(true);
    for round in 0..300u64 {
        guest.prepare(0, WRITE, 8 * round, &pages(round, 1), 0);
        offer_writes(&mut guest, 10);
        sleep_until_done(&guest, true, &format!("round {round}, writes"));
        guest.prepare(0, READ, 8 * round, &[], 4096);
        guest.want_call(0);
        guest.offer(0, 0);
        assert!(guest.wait_for_call(0, LONG), "round {round}");
        assert!(guest.wait(0, Duration::ZERO));
        assert_eq!(guest.answer(0, 4096).data, pages(round, 1));
    }
}

#[test]
fn what_is_held_is_signalled_before_the_ring_stops() {
    let (_directory, _frontend, mut guest) = rig(false);
    guest.prepare(0, WRITE, 0, &pages(1, 1), 0);
    let mut calls = 0;
    for round in 0..200 {
        // Holding is worth it...
        offer_writes(&mut guest, 50);
        assert!(guest.wait(0, LONG));
        std::thread::sleep(Duration::from_millis(2));
        while guest.wait_for_call(0, Duration::ZERO) {}
        // ...so this one's signal is held.
        guest.offer(0, 0);
        spin(Duration::from_micros(round % 40));
        let (next, used) = (guest.used_index(0), guest.frontend.get_vring_base(0).unwrap() as u16);
        let is_used = guest.wait(0, Duration::ZERO);
        assert_eq!(used, guest.used_index(0), "round {round}, {next} before");
        if is_used {
            assert!(guest.wait_for_call(0, Duration::ZERO), "round {round}: nobody was told of it");
            calls += 1;
        }
        guest.configure(0, used);
        assert!(guest.wait(0, LONG), "round {round}");
    }
    assert!(calls > 0, "no ring stopped after it had served the request");
}
