//! The real keeper, in a process of its own, with workers that do what the test says. Each test also counts the keeper's allocations: after its
//! start there must be none.
//!
//! All processes are this one program: with `KEEPER_TEST` in its environment it is a keeper or one of its workers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod counted;
mod errands;
mod keeper_deaths;
mod manager;
mod puppet;
mod spares;
mod stage;
mod talk;
mod upgrades;

use std::{io::Read, os::unix::net::UnixStream, time::Duration};

use libtest_mimic::{Arguments, Trial};
use stage::{Stage, with_program};
use talk::{is_answered, message};

fn main() {
    if std::env::var_os(tmem_keeper::SOCKET_VARIABLE).is_some() {
        return puppet::work();
    }
    if std::env::var_os(stage::DIRECTORY).is_some() {
        return stage::keep();
    }
    let tests: &[(&str, fn())] = &[
        ("the_exit_code_of_a_failed_start_is_passed_on", failed_start),
        ("a_dead_worker_is_followed_by_one_that_finds_everything", followed),
        ("five_deaths_in_a_minute_are_enough_until_somebody_looks", held),
        ("a_program_that_refuses_leaves_the_old_one_alone", refuses),
        ("a_program_that_cannot_be_run_leaves_the_old_one_alone", cannot_be_run),
        ("a_program_that_takes_over_takes_everything", takes_over),
        (
            "a_program_that_fails_after_it_took_over_is_followed_by_the_one_before_it",
            upgrades::fails_after_taking,
        ),
        ("a_program_that_never_serves_is_followed_by_the_one_before_it", upgrades::never_serves),
        (
            "a_program_that_follows_a_death_and_fails_is_followed_by_the_one_before_it",
            upgrades::fails_after_a_death,
        ),
        ("a_first_worker_that_never_serves_is_a_failed_start", upgrades::first_never_serves),
        ("a_worker_that_never_serves_is_killed_and_counts", upgrades::later_never_serves),
        ("one_that_stands_by_follows_one_that_dies", follows_a_death),
        ("one_that_stands_by_and_dies_leaves_the_place_to_another", dies_standing_by),
        ("a_spare_one_follows_a_death_at_once_and_is_followed_by_another", spares::spare_follows),
        ("a_spare_one_is_of_the_program_that_serves", spares::spare_of_the_same_program),
        ("a_program_that_takes_over_ends_the_spare_one_of_that_before", spares::spare_of_another_program),
        ("another_spare_one_comes_when_another_is_wanted_and_none_when_none_is", spares::other_spare),
        ("spare_ones_that_end_by_themselves_come_less_and_less_often", spares::spare_fails),
        ("spare_ones_do_not_get_around_the_limit_of_deaths", spares::spare_held),
        ("a_spare_one_that_is_still_starting_is_waited_for", spares::spare_starts),
        ("a_spare_one_goes_when_the_worker_is_told_to", spares::spare_at_the_end),
        ("sighup_during_the_start_is_no_failure", sighup_at_start),
        ("sigterm_ends_the_worker_first", sigterm),
        ("sigterm_while_nobody_serves_ends_the_keeper", sigterm_while_held),
        ("nothing_is_started_while_the_worker_ends", no_start_while_ending),
        ("a_worker_that_closes_its_socket_does_not_keep_the_keeper_awake", closes_socket),
        ("what_a_worker_must_not_say_is_refused", nonsense),
        ("a_worker_that_reads_no_answers_is_killed", reads_nothing),
        ("a_guest_whose_worker_died_before_it_knew_is_there_for_the_next", died_adopting),
        ("a_guest_that_waits_is_taken_by_the_keeper", taken_by_the_keeper),
        ("a_log_that_nobody_reads_is_not_waited_for", unread_log),
        ("a_keeper_that_is_killed_is_followed_by_one_that_finds_everything", keeper_deaths::keeper_killed),
        (
            "a_guest_that_was_just_saying_something_is_let_go_with_the_keeper",
            keeper_deaths::keeper_killed_in_between,
        ),
        ("a_service_manager_that_is_busy_is_told_later", keeper_deaths::busy_manager),
        ("a_service_manager_is_left_with_nothing", keeper_deaths::nothing_left),
        ("sockets_are_made_and_go_as_they_should", errands::sockets),
        ("files_that_are_not_its_own_are_left_alone", errands::others_files),
        ("the_tier_is_all_that_is_opened", errands::tier),
        ("a_tier_that_does_not_answer_keeps_nobody_waiting", errands::hung_tier),
        ("guests_talk_while_workers_come_and_go", guests_talk),
    ];
    let trials = tests.iter().map(|(name, test)| {
        let test = *test;
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn failed_start() {
    let mut stage = Stage::new(5);
    stage.worker().dies("exit 7");
    assert_eq!(stage.ends(), 7);

    let mut stage = Stage::with(5, b"no program at all");
    assert_eq!(stage.ends(), 127);
    assert!(stage.log().contains("cannot run the program"), "{}", stage.log());
}

fn followed() {
    let mut stage = Stage::new(5);
    let mut worker = stage.worker();
    assert_eq!(worker.asks("hello"), "0");
    assert_eq!(worker.asks("take"), "0");
    worker.asks("keep a");
    let guest = stage.guest(&mut worker, "disk");
    worker.asks("ready");
    worker.dies("abort");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("hello"), "0");
    assert_eq!(worker.asks("take"), "1");
    assert_eq!(worker.asks("list"), "a disk=1");
    worker.asks("attach 1");
    assert!(stage::is_connected(&guest));
    worker.asks("release a");
    worker.asks("close 1");
    assert_eq!(worker.asks("list"), "");
    assert!(!stage::is_connected(&guest));
    // Ended in order.
    worker.asks("ready");
    worker.dies("exit 0");
    assert_eq!(stage.ends(), 0);
}

fn held() {
    let mut stage = Stage::new(5);
    let mut worker = stage.worker();
    worker.asks("keep a");
    let guest = stage.guest(&mut worker, "disk");
    worker.asks("ready");
    worker.dies("abort");
    for _ in 1..5 {
        stage.worker().dies("exit 1");
    }
    stage.logs("send SIGHUP to process");
    assert_eq!(stage.children(), 0);
    assert_eq!(stage.wakeups(), 0, "nothing to do");
    assert!(stage::is_connected(&guest));
    // One that leaves now is not there for the next, and wakes nobody for ever.
    drop(guest);
    stage.replace(&with_program("second"));
    stage.signal(libc::SIGHUP);
    let mut worker = stage.worker();
    assert_eq!(worker.program, "second");
    assert_eq!(worker.asks("take"), "5");
    assert_eq!(worker.asks("list"), "a");
    stage.serves(&mut worker);
}

fn refuses() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    stage.replace(&with_program("second"));
    worker.asks("upgrade");
    assert_eq!(worker.asks("upgrading"), "under way");
    assert!(worker.asks("upgrade").contains("busy"), "one at a time");
    let mut next = stage.worker();
    assert_eq!(next.program, "second");
    assert_eq!(next.asks("hello"), "1");
    for call in ["keep b", "release a", "ready", "upgrade", "close 1", "attach 1"] {
        assert!(next.asks(call).contains("not permitted"), "{call}");
    }
    assert_eq!(next.asks("list"), "a");
    next.dies("exit 3");
    stage.logs("did not take over: it exited with 3");
    assert_eq!(worker.asks("upgrading"), "failed");
    worker.dies("abort");
    let mut worker = stage.worker();
    assert_eq!(worker.program, "first", "the same version goes on");
    assert_eq!(worker.asks("take"), "1", "the one that refused did not count");
    stage.serves(&mut worker);
}

fn cannot_be_run() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    stage.replace(b"no program at all");
    stage.signal(libc::SIGHUP);
    stage.logs("did not take over: it exited with 127");
    stage.remove_program();
    assert!(worker.asks("upgrade").contains("No such file"));
    stage.signal(libc::SIGHUP);
    stage.logs("cannot start the program on disk: No such file");
    stage.serves(&mut worker);
}

fn takes_over() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let guest = stage.guest(&mut worker, "disk");
    stage.replace(&with_program("second"));
    stage.signal(libc::SIGHUP);
    let mut next = stage.worker();
    assert_eq!(next.asks("hello"), "1");
    assert_eq!(next.asks("take"), "0", "an upgrade is no death");
    worker.ends();
    assert_eq!(next.asks("list"), "a disk=1");
    next.asks("attach 1");
    assert!(stage::is_connected(&guest));
    next.asks("ready");
    next.dies("abort");
    let mut after = stage.worker();
    assert_eq!(after.program, "second");
    stage.serves(&mut after);
}

fn follows_a_death() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("upgrade");
    let mut next = stage.worker();
    assert_eq!(next.asks("hello"), "1");
    worker.dies("abort");
    stage.logs("died: it was killed by signal");
    assert_eq!(stage.wakeups(), 0, "while one stands by");
    assert_eq!(next.asks("take"), "1");
    next.asks("ready");
    assert_eq!(stage.wakeups(), 0, "while it serves");
    stage.serves(&mut next);
}

fn dies_standing_by() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("upgrade");
    let next = stage.worker();
    worker.dies("abort");
    stage.logs("died: it was killed by signal");
    next.dies("exit 1");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "1");
    stage.serves(&mut worker);
}

fn sighup_at_start() {
    let mut stage = Stage::new(5);
    let worker = stage.worker();
    stage.signal(libc::SIGHUP);
    let mut next = stage.worker();
    assert_eq!(next.asks("hello"), "1");
    assert_eq!(next.asks("take"), "0");
    worker.ends();
    stage.serves(&mut next);
}

fn sigterm() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("upgrade");
    let next = stage.worker();
    worker.asks("on-sigterm 5");
    stage.signal(libc::SIGTERM);
    next.ends();
    worker.ends();
    assert_eq!(stage.ends(), 5);

    // One that could not yet end in order.
    let mut stage = Stage::new(5);
    let worker = stage.worker();
    stage.signal(libc::SIGINT);
    worker.ends();
    assert_eq!(stage.ends(), 0);
}

fn sigterm_while_held() {
    let mut stage = Stage::new(1);
    stage.serving().dies("abort");
    stage.logs("send SIGHUP to process");
    stage.signal(libc::SIGTERM);
    assert_eq!(stage.ends(), 1);
}

fn no_start_while_ending() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("upgrade");
    let mut next = stage.worker();
    next.asks("hello");
    worker.asks("on-sigterm wait");
    // Its word and the signal come at the same time.
    stage.signal(libc::SIGSTOP);
    next.tells("take");
    std::thread::sleep(Duration::from_millis(100));
    stage.signal(libc::SIGTERM);
    stage.signal(libc::SIGCONT);
    worker.hears_sigterm_or_dies();
    if let Some(mut worker) = worker.if_alive() {
        stage.signal(libc::SIGHUP);
        next.ends();
        assert!(worker.asks("upgrade").contains("busy"));
        assert_eq!(stage.children(), 1);
        worker.dies("exit 0");
        assert_eq!(stage.ends(), 0);
    } else {
        assert_eq!(stage.ends(), 1);
    }
}

fn closes_socket() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("upgrade");
    let mut next = stage.worker();
    for worker in [&mut worker, &mut next] {
        worker.asks("close-socket");
    }
    assert!(stage.wakeups() <= 2, "only to hear of it");
    assert_eq!(stage.wakeups(), 0);
    next.dies("exit 0");
    worker.dies("abort");
    let mut worker = stage.worker();
    stage.serves(&mut worker);
}

fn nonsense() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    for code in [0, 19, 63, 64, 65, 66, 67, 255] {
        assert_eq!(worker.asks(&format!("raw {code}")), "95", "operation not supported");
    }
    for code in [6, 8, 9, 15, 16, 17, 18] {
        assert_eq!(worker.asks(&format!("raw {code}")), "22", "no descriptors");
    }
    assert_eq!(worker.asks("raw 1 200"), "71", "protocol error: a worker that is newer than the keeper");
    assert!(worker.asks("attach 99").contains("No such file"));
    worker.asks("close 99");
    assert_eq!(worker.asks("list"), "a");
    stage.serves(&mut worker);
}

fn reads_nothing() {
    let mut stage = Stage::new(5);
    let worker = stage.serving();
    worker.tells("flood");
    worker.ends();
    stage.logs("does not read answers and is killed");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "1");
    stage.serves(&mut worker);
}

fn taken_by_the_keeper() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let at = stage.path("s");
    worker.tells(&format!("adopt-waiting disk {}", at.display()));
    assert_eq!(worker.answer(), "listens");
    let mut guest = UnixStream::connect(&at).unwrap();
    guest.set_read_timeout(Some(puppet::PATIENCE)).unwrap();
    assert_eq!(worker.answer(), "1");
    is_answered(&mut guest, &mut worker);
    worker.dies("abort");
    let mut worker = stage.worker();
    worker.asks("take");
    assert_eq!(worker.asks("list"), "a listener disk=1");
    worker.asks("attach 1");
    is_answered(&mut guest, &mut worker);
    stage.serves(&mut worker);
}

fn died_adopting() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let old = stage.guest(&mut worker, "disk");
    // All of it is in the socket when the keeper looks, and nobody is there to hear the answers.
    stage.signal(libc::SIGSTOP);
    worker.tells("adopt-and-abort disk");
    let guest = stage.connection();
    worker.ends();
    stage.signal(libc::SIGCONT);
    let mut worker = stage.worker();
    worker.asks("take");
    assert_eq!(worker.asks("list"), "a disk=2");
    assert!(!stage::is_connected(&old) && stage::is_connected(&guest));
    worker.asks("attach 2");
    stage.serves(&mut worker);
}

fn unread_log() {
    let mut stage = Stage::with_full_log();
    for _ in 0..3 {
        stage.serving().dies("abort");
    }
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "3");
    stage.serves(&mut worker);
}

/// Messages of all kinds, a guest that is turned away, and descriptors: nothing of it takes memory.
fn guests_talk() {
    let mut stage = Stage::new(0);
    let mut worker = stage.serving();
    let mut guest = stage.guest(&mut worker, "disk");
    for round in 1..4u32 {
        for _ in 0..100 {
            stage::says(&guest, &message(1, b""), 0);
            stage::says(&guest, &message(13, &0u64.to_ne_bytes()), 1);
            stage::says(&guest, &message(8, &[0; 8]), 0);
            // The worker's library answers with zeroes what is to be answered.
            let mut answer = [0; 12 + 8];
            guest.read_exact(&mut answer).unwrap();
            assert_eq!(answer[..8], [1, 0, 0, 0, 5, 0, 0, 0]);
        }
        let bad = stage.guest(&mut worker, "bad");
        stage::says(&bad, &message(5, &[0; 5000]), 0);
        assert!(!stage::is_connected(&bad));
        stage.logs("more than 4096");
        let full = stage.guest(&mut worker, "full");
        for _ in 0..510 {
            stage::says(&full, &message(37, &[0; 40]), 1);
        }
        assert!(!stage::is_connected(&full));
        worker.dies("abort");
        worker = stage.worker();
        assert_eq!(worker.asks("take"), round.to_string());
        assert_eq!(worker.asks("list"), "a disk=1");
        worker.asks("attach 1");
    }
    stage.serves(&mut worker);
}
