use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};
use tmem_control::HostMemory;

use super::*;
use crate::top::{
    look::Look,
    view::{Sort, samples::*},
};

/// What people and programs call their guests.
const ODD_NAMES: [&str; 9] = [
    "",
    " ",
    "\u{1b}[2J\u{1b}[31m",
    "two\nlines\r",
    "\u{202e}backwards\u{2066}",
    "東京都庁東京都庁東京都庁東京都庁東京都庁東京都庁",
    "e\u{301}\u{301}\u{301}\u{301}",
    "👩‍👩‍👧‍👦 family",
    "a-name-that-is-much-longer-than-any-terminal-is-wide-a-name-that-is-much-longer-than-any-terminal-is-wide",
];

/// All that there can be, with these names.
fn full(names: &[&str]) -> View {
    let first = look(names.iter().map(|name| client(name, 100)).collect());
    let mut view = View::new(first.clone(), SECOND);
    for (seconds, counter) in [(1, 300), (2, 340), (3, 1_500)] {
        let mut next = look(names.iter().map(|name| client(name, counter)).collect());
        next.at = first.at + seconds * SECOND;
        next.host = first.host;
        let mut guests: Vec<_> = names.iter().map(|name| balanced(name)).collect();
        guests.push(balanced("only-balanced"));
        guests[0].trouble = Some("no \u{1b}[5mballoon\nat all".to_owned());
        next.status.balance = Some(report(guests));
        next.status.tiers = vec![tier("/var/lib/tmem/tier\u{7}"); 3];
        next.status.worker_deaths = 2;
        view.take(Ok(next));
    }
    view
}

fn lines(view: &mut View, width: u16, height: u16) -> Vec<String> {
    let now = Now { at: view.look.at, unix_ms: 1_012_000 };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn a_wide_terminal_shows_all_of_it() {
    let mut view = full(&["vm1", "vm2"]);
    let shown = lines(&mut view, 120, 30);
    assert_eq!(shown[0], "tmem 0.1.0, 2 workers died, up 1h01m, 3 guests");
    assert_eq!(
        shown[1],
        "pool ██████████▒▒▒▒▒▒▒▒▒▒░░░░░░░░░░░░░░░░░░░░ 1.0G used, 2.0G held of 4.0G, ratio 3.00, 3.0G uncompressed"
    );
    assert_eq!(
        shown[2],
        "host █████████████████████████▒▒▒▒▒░░░░░░░░░░ 12.0G used, 2.0G of it the pool, 4.0G available of 16.0G"
    );
    assert_eq!(shown[3], r"tier /var/lib/tmem/tier\u{7}: ready, 1.0G used of 8.0G, 262144 pages");
    assert_eq!(shown[5], "and 1 more tiers");
    assert_eq!(shown[6], "balancer reuse: 3 guests, 8.0G to give");
    assert_eq!(
        shown[7],
        "GUEST         STATE     MEMORY TARGET   POOL  RATIO  IN/s OUT/s REFUSED/s   TIER WAITING"
    );
    assert_eq!(
        shown[8],
        "only-balanced no disk     1.0G   768M      -      -     -     -         -      -   12.5%"
    );
    assert_eq!(
        shown[9],
        "vm1           trouble     1.0G   768M   1.5G   2.50  1160  1160      1160     0B   12.5%"
    );
    view.select(0);
    view.select(1);
    let shown = lines(&mut view, 120, 30);
    let below: Vec<_> = shown.iter().skip_while(|line| !line.starts_with("vm1: ")).collect();
    assert_eq!(
        below[0],
        r"vm1: swap-ins/s 1160, at most 1160; 256M to 2.0G; no \u{1b}[5mballoon\nat all; vhost-user-blk /run/x.sock"
    );
    assert!(below[1..5].iter().any(|line| line.ends_with('█')), "{below:?}");
    assert_eq!(below[5], "last decisions");
    assert_eq!(below[6], "  12s ago only-balanced 1.0G → 768M: idle: probed downward");
    assert_eq!(below.last().unwrap().as_str(), "q quit  ↑↓ select  s sort: name  p pause  ? help");
}

#[test]
fn a_small_terminal_keeps_what_matters() {
    let shown = lines(&mut full(&["vm1", "vm2"]), 40, 12);
    assert_eq!(shown[0], "tmem 0.1.0, 2 workers died, up 1h01m, 3…");
    assert_eq!(shown[1], "pool ██▒▒░░░░ 1.0G/2.0G/4.0G, ratio 3.00");
    assert!(shown.contains(&"GUEST      STATE     MEMORY   POOL  IN/s".to_owned()), "{shown:?}");
    assert!(shown.contains(&"vm1        trouble     1.0G   1.5G  1160".to_owned()), "{shown:?}");
}

#[test]
fn names_do_nothing_to_a_terminal_of_any_size() {
    let mut view = full(&ODD_NAMES);
    let sizes = [(200, 50), (80, 24), (40, 12), (20, 8), (9, 5), (3, 3), (1, 1), (300, 4), (2, 100)];
    for (width, height) in sizes {
        for _ in 0..=Sort::Refused as usize {
            view.sort_by_next();
            view.select(1);
            for help in [false, true] {
                view.help = help;
                let shown = lines(&mut view, width, height).join("\n");
                let obeyed =
                    |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{2066}' | '\u{301}');
                assert!(!shown.contains(obeyed), "{width}x{height}:\n{shown:?}");
            }
        }
    }
}

#[test]
fn the_selected_guest_is_in_sight_among_many() {
    let names: Vec<_> = (0..200).map(|number| format!("vm{number:03}")).collect();
    let mut view = full(&names.iter().map(String::as_str).collect::<Vec<_>>());
    view.select(0);
    for (steps, name) in [(150, "vm149"), (-20, "vm129"), (-1, "vm128")] {
        view.select(steps);
        assert!(lines(&mut view, 80, 24).iter().any(|line| line.starts_with(name)), "{name}");
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_said_first() {
    let mut view = full(&["vm1"]);
    view.take(Err("cannot connect to /run\u{1b}[2J".to_owned()));
    view.look.at += 7 * SECOND;
    let shown = lines(&mut view, 120, 24);
    let expected =
        "tmem 0.1.0, no answer since 7 s, 2 workers died, up 1h01m, 2 guests, cannot connect to /run";
    assert_eq!(shown[0], format!("{expected}{}", r"\u{1b}[2J"));
    assert!(shown.iter().any(|line| line.starts_with("vm1 ")), "the last picture stays");
    view.paused = true;
    assert!(lines(&mut view, 40, 12)[0].starts_with("tmem 0.1.0, no answer since 7 s, paused"));
}

#[test]
fn numbers_that_make_no_sense_are_shown_all_the_same() {
    let mut view = full(&["vm1"]);
    let pool = &mut view.look.status.pool;
    (pool.limit_bytes, pool.used_bytes, pool.held_bytes, pool.logical_bytes) = (0, u64::MAX, 1, u64::MAX);
    view.look.host =
        Some(HostMemory { total_bytes: 1, available_bytes: u64::MAX, stalled: Some(Duration::MAX) });
    let balance = view.look.status.balance.as_mut().unwrap();
    balance.decisions[0].unix_ms = u64::MAX;
    balance.guests[0].pressure = Some(f64::NAN);
    for pressure in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        view.guests[0].balanced.as_mut().unwrap().pressure = Some(pressure);
        for (width, height) in [(200, 50), (40, 12)] {
            lines(&mut view, width, height);
        }
    }
    let host = Look { host: None, ..view.look.clone() };
    view.take(Ok(host));
    assert!(!lines(&mut view, 200, 50).iter().any(|line| line.starts_with("host")));
}
