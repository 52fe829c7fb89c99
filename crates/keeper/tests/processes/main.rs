//! The real keeper, in a process of its own, with workers that do what the test says. Each test also counts the keeper's allocations: after its
//! start there must be none.
//!
//! All processes are this one program: with `KEEPER_TEST` in its environment it is a keeper or one of its workers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod counted;
mod manager;
mod puppet;
mod stage;

use std::{
    fs,
    io::Read,
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use libtest_mimic::{Arguments, Trial};
use stage::{Stage, with_program};

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
        ("one_that_stands_by_follows_one_that_dies", follows_a_death),
        ("one_that_stands_by_and_dies_leaves_the_place_to_another", dies_standing_by),
        ("a_spare_one_follows_a_death_at_once_and_is_followed_by_another", spare_follows),
        ("a_spare_one_is_of_the_program_that_serves", spare_of_the_same_program),
        ("a_program_that_takes_over_ends_the_spare_one_of_that_before", spare_of_another_program),
        ("another_spare_one_comes_when_another_is_wanted_and_none_when_none_is", other_spare),
        ("spare_ones_that_end_by_themselves_come_less_and_less_often", spare_fails),
        ("spare_ones_do_not_get_around_the_limit_of_deaths", spare_held),
        ("a_spare_one_that_is_still_starting_is_waited_for", spare_starts),
        ("a_spare_one_goes_when_the_worker_is_told_to", spare_at_the_end),
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
        ("a_keeper_that_is_killed_is_followed_by_one_that_finds_everything", keeper_killed),
        ("a_guest_that_was_just_saying_something_is_let_go_with_the_keeper", keeper_killed_in_between),
        ("a_service_manager_that_is_busy_is_told_later", busy_manager),
        ("a_service_manager_is_left_with_nothing", nothing_left),
        ("sockets_are_made_and_go_as_they_should", sockets),
        ("files_that_are_not_its_own_are_left_alone", others_files),
        ("the_tier_is_all_that_is_opened", tier),
        ("a_tier_that_does_not_answer_keeps_nobody_waiting", hung_tier),
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
    assert_eq!(worker.asks("upgrading"), "1");
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
    assert_eq!(worker.asks("upgrading"), "0");
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

/// A spare worker that stands by for `worker`.
fn spare_of(stage: &Stage, worker: &mut puppet::Puppet) -> puppet::Puppet {
    let mut spare = stage.worker();
    assert_eq!(spare.asks("hello"), "1", "another one serves");
    assert_eq!(spare.asks("list"), "a");
    assert_eq!(worker.asks("spare"), "none");
    spare.tells("take");
    stage::eventually(|| worker.asks("spare") == "stands by");
    spare
}

fn spare_follows() {
    let mut stage = Stage::new(0);
    let mut worker = stage.serving();
    for deaths in 1..6 {
        worker.asks("want-spare 2");
        let mut spare = spare_of(&stage, &mut worker);
        assert_eq!(stage.wakeups(), 0, "while one stands by");
        worker.dies("abort");
        assert_eq!(spare.answer(), deaths.to_string());
        assert_eq!(spare.asks("list"), "a");
        assert_eq!(stage.children(), 1, "none before it serves and says that it wants one");
        spare.asks("ready");
        worker = spare;
    }
    assert_eq!(stage.wakeups(), 0, "none is wanted");
    assert_eq!(stage.children(), 1);
    stage.serves(&mut worker);
}

fn spare_of_the_same_program() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    stage.replace(&with_program("second"));
    worker.asks("want-spare 2");
    let mut spare = spare_of(&stage, &mut worker);
    assert_eq!(spare.program, "first");
    worker.dies("abort");
    assert_eq!(spare.answer(), "1");
    spare.asks("ready");
    // What it must not do while it stands by.
    spare.asks("want-spare 2");
    let mut next = stage.worker();
    for call in ["keep b", "release a", "ready", "upgrade", "close 1", "attach 1", "want-spare 3", "spare"] {
        assert!(next.asks(call).contains("not permitted"), "{call}");
    }
    stage.serves(&mut spare);
}

fn spare_of_another_program() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("want-spare 2");
    let spare = spare_of(&stage, &mut worker);
    // One that fails leaves both alone.
    stage.replace(&with_program("second"));
    worker.asks("upgrade");
    let mut next = stage.worker();
    assert_eq!(worker.asks("upgrading"), "1");
    assert_eq!(next.asks("hello"), "1");
    next.dies("exit 3");
    stage.logs("did not take over: it exited with 3");
    assert_eq!((worker.asks("upgrading"), worker.asks("spare")), ("0".into(), "stands by".into()));
    stage.signal(libc::SIGHUP);
    let mut next = stage.worker();
    assert_eq!(next.asks("take"), "0", "an upgrade is no death");
    worker.ends();
    spare.ends();
    next.asks("ready");
    next.asks("want-spare 2");
    let mut spare = spare_of(&stage, &mut next);
    assert_eq!(spare.program, "second");
    // With the worker gone the spare one serves, and the program on disk takes over from that.
    next.asks("upgrade");
    let mut third = stage.worker();
    next.dies("abort");
    assert_eq!(spare.answer(), "1");
    assert_eq!(third.asks("take"), "1");
    spare.ends();
    stage.serves(&mut third);
}

fn other_spare() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("want-spare 2");
    let spare = spare_of(&stage, &mut worker);
    worker.asks("want-spare 2");
    worker.asks("want-spare 4");
    spare.ends();
    let spare = spare_of(&stage, &mut worker);
    worker.asks("want-spare 0");
    spare.ends();
    assert_eq!(worker.asks("spare"), "none");
    assert!(!stage.log().contains("no spare worker stands by"), "{}", stage.log());
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!((stage.wakeups(), stage.children()), (0, 1));
    worker.dies("abort");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "1");
    stage.serves(&mut worker);
}

fn spare_fails() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("want-spare 2");
    let mut waits = Vec::new();
    for _ in 0..4 {
        let before = std::time::Instant::now();
        stage.worker().dies("exit 3");
        waits.push(before.elapsed());
    }
    // By their pauses alone, which nothing can shorten.
    assert!(waits[1] >= Duration::from_secs(1) && waits[3] >= Duration::from_secs(4), "{waits:?}");
    stage.logs("no spare worker stands by: it exited with 3");
    assert_eq!(worker.asks("take"), "0", "no worker has died");
    worker.dies("abort");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "1");
    stage.serves(&mut worker);
}

fn spare_held() {
    let mut stage = Stage::new(3);
    let mut worker = stage.serving();
    for _ in 0..2 {
        worker.asks("want-spare 2");
        let mut spare = spare_of(&stage, &mut worker);
        worker.dies("abort");
        spare.answer();
        spare.asks("ready");
        worker = spare;
    }
    worker.asks("want-spare 2");
    let spare = spare_of(&stage, &mut worker);
    worker.dies("abort");
    stage.logs("send SIGHUP to process");
    spare.ends();
    stage::eventually(|| stage.children() == 0);
    assert_eq!(stage.wakeups(), 0);
    stage.signal(libc::SIGHUP);
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "3");
    stage.serves(&mut worker);
}

fn spare_starts() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("want-spare 2");
    let mut spare = stage.worker();
    worker.dies("abort");
    stage.logs("died: it was killed by signal");
    assert_eq!(stage.wakeups(), 0);
    assert_eq!(stage.children(), 1);
    assert_eq!(spare.asks("hello"), "0", "nobody else serves by now");
    assert_eq!(spare.asks("take"), "1");
    spare.asks("ready");
    spare.asks("want-spare 2");
    // The same with one that fails.
    let next = stage.worker();
    spare.dies("abort");
    next.dies("exit 1");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "2");
    stage.serves(&mut worker);
}

fn spare_at_the_end() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("want-spare 2");
    let spare = spare_of(&stage, &mut worker);
    worker.asks("on-sigterm 5");
    stage.signal(libc::SIGTERM);
    spare.ends();
    worker.ends();
    assert_eq!(stage.ends(), 5);
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

fn sockets() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let at = stage.path("s");
    assert_eq!(worker.asks(&format!("bind 660 {}", at.display())), "made");
    assert_eq!(fs::metadata(&at).unwrap().mode() & 0o777, 0o660);
    UnixStream::connect(&at).unwrap();
    worker.dies("abort");
    assert!(UnixStream::connect(&at).is_err());

    let mut worker = stage.worker();
    worker.asks("take");
    assert_eq!(worker.asks(&format!("bind 600 {}", at.display())), "replaced");
    let again = worker.asks(&format!("bind 600 {}", at.display()));
    assert!(again.contains("in use"), "{again}");
    // What one worker made, another removes.
    worker.dies("abort");
    let mut worker = stage.worker();
    worker.asks("take");
    assert_eq!(worker.asks(&format!("unbind {}", at.display())), "");
    assert!(!at.exists());
    assert!(worker.asks(&format!("unbind {}", at.display())).contains("No such file"));
    // More of them than there may be at one time, and nothing is left of any.
    for round in 0..200 {
        let at = stage.path(&format!("s{round}"));
        assert_eq!(worker.asks(&format!("bind 600 {}", at.display())), "made");
        assert_eq!(worker.asks(&format!("unbind {}", at.display())), "");
        assert!(!at.exists());
    }
    assert!(worker.asks("bind-tcp 127.0.0.1:0").starts_with("127.0.0.1:"));
    assert!(worker.asks("bind-tcp 192.0.2.1:1").contains("assign"));
    stage.children_are(1);
    stage.serves(&mut worker);
}

fn others_files() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let at = stage.path("others");
    let bind = format!("bind 600 {}", at.display());
    let unbind = format!("unbind {}", at.display());
    fs::write(&at, "precious").unwrap();
    assert!(worker.asks(&bind).contains("non-socket"));
    assert!(worker.asks(&unbind).contains("No such file"));
    assert_eq!(fs::read(&at).unwrap(), b"precious");
    fs::remove_file(&at).unwrap();

    let live = UnixListener::bind(&at).unwrap();
    assert!(worker.asks(&bind).contains("in use"));
    assert!(worker.asks(&unbind).contains("No such file"));
    assert!(at.exists());
    // Nor where it once had its own.
    drop(live);
    assert_eq!(worker.asks(&bind), "replaced");
    fs::remove_file(&at).unwrap();
    let _live = UnixListener::bind(&at).unwrap();
    worker.asks(&unbind);
    UnixStream::connect(&at).unwrap();

    for path in ["", "/", ".", "no/such/directory/s", &"x".repeat(108)] {
        let said = worker.asks(&format!("bind 600 {path}"));
        assert!(said.contains("os error"), "{path}: {said}");
    }
    stage.serves(&mut worker);
}

fn tier() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let (make, look, direct) =
        (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, libc::O_PATH, libc::O_RDWR | libc::O_DIRECT);
    assert!(worker.asks(&format!("open-tier {look}")).contains("No such file"));
    worker.asks(&format!("open-tier {make}"));
    assert_eq!(fs::metadata(stage.path(stage::TIER)).unwrap().mode() & 0o777, 0o600);
    assert!(worker.asks(&format!("open-tier {make}")).contains("exists"));
    assert_eq!(worker.asks(&format!("open-tier {look}")), "false");
    assert_eq!(worker.asks(&format!("open-tier {direct}")), "true");
    for flags in [libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC | direct, libc::O_RDWR | libc::O_CREAT, -1] {
        let said = worker.asks(&format!("open-tier {flags}"));
        assert!(said.contains("not permitted"), "{flags}: {said}");
    }
    stage.serves(&mut worker);
}

/// A pipe that nobody writes to is as good as a disk that does not answer.
fn hung_tier() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        stage.path(stage::TIER),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let mut guest = stage.guest(&mut worker, "disk");
    worker.tells(&format!("open-tier {}", libc::O_RDONLY | libc::O_DIRECT));
    stage.children_are(2);
    // The keeper goes on meanwhile, and what it closes is closed: the process that waits has nothing of its.
    stage::says(&guest, &[[8, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0].as_slice(), &[0; 8]].concat(), 0);
    stage::says(&guest, &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 0);
    guest.read_exact(&mut [0; 20]).unwrap();
    stage::says(&guest, &[[5, 0, 0, 0, 1, 0, 0, 0, 0x88, 0x13, 0, 0].as_slice(), &[0; 5000]].concat(), 0);
    assert!(!stage::is_connected(&guest));
    assert!(worker.answer().contains("timed out"));
    let another = worker.asks(&format!("open-tier {}", libc::O_PATH));
    assert!(another.contains("timed out"), "one at a time: {another}");
    let at = stage.path("s");
    assert_eq!(worker.asks(&format!("bind 600 {}", at.display())), "made");
    // It does not outlive the keeper, nor does anything that it has hold the keeper's end up.
    stage.serves(&mut worker);
}

fn message(code: u32, payload: &[u8]) -> Vec<u8> {
    let words = [code, 1, payload.len() as u32].map(u32::to_ne_bytes);
    [words.concat().as_slice(), payload].concat()
}

/// The worker's library answers with zeroes what is to be answered. The keeper has all of that behind it when it has answered the worker.
fn is_answered(guest: &mut UnixStream, worker: &mut puppet::Puppet) {
    stage::says(guest, &message(1, b""), 0);
    let mut answer = [0; 12 + 8];
    guest.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], [1, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(worker.asks("upgrading"), "0");
}

fn keeper_killed() {
    let mut stage = Stage::managed();
    let mut worker = stage.worker();
    for call in ["hello", "take", "keep a", "keep b", "keep c", "keep a", "release b", "ready"] {
        worker.asks(call);
    }
    let mut guest = stage.guest(&mut worker, "disk");
    let leaving = stage.guest(&mut worker, "gone");
    drop(leaving);
    stage::says(&guest, &message(13, &0u64.to_ne_bytes()), 1);
    is_answered(&mut guest, &mut worker);
    for _ in 0..3 {
        stage.keeper_dies();
        worker.ends();
        stage.logs("goes on with 2 files and sockets and 1 guests");
        worker = stage.worker();
        assert_eq!(worker.asks("hello"), "0");
        assert_eq!(worker.asks("take"), "0");
        assert_eq!(worker.asks("list"), "a c disk=1");
        worker.asks("attach 1");
        is_answered(&mut guest, &mut worker);
    }
    // What the keeper before made, this one removes, and nothing else.
    let at = stage.path("s");
    assert_eq!(worker.asks(&format!("bind-and-keep 600 {}", at.display())), "made");
    stage.keeper_dies();
    worker.ends();
    let mut worker = stage.worker();
    worker.asks("take");
    UnixStream::connect(&at).unwrap();
    assert!(worker.asks("unbind /etc/passwd").contains("No such file"));
    assert_eq!(worker.asks(&format!("unbind {}", at.display())), "");
    assert!(!at.exists());
    worker.asks("release s");
    worker.asks("attach 1");
    is_answered(&mut guest, &mut worker);
    // One that cannot start is a death, and not the end of all that is held.
    stage.keeper_dies();
    worker.ends();
    stage.worker().dies("exit 1");
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "1");
    assert_eq!(worker.asks("list"), "a c disk=1");
    worker.asks("attach 1");
    is_answered(&mut guest, &mut worker);
    stage.serves(&mut worker);
    assert!(!stage::is_connected(&guest));
}

fn keeper_killed_in_between() {
    let mut stage = Stage::managed();
    let mut worker = stage.serving();
    let mut guest = stage.guest(&mut worker, "disk");
    let half = stage.guest(&mut worker, "half");
    let unread = stage.guest(&mut worker, "unread");
    is_answered(&mut guest, &mut worker);
    for quiet in [&half, &unread] {
        stage::says(quiet, &message(8, &[0; 8]), 0);
    }
    stage::says(&half, &message(8, &[0; 8])[..15], 0);
    // That is read when the one after it is answered.
    is_answered(&mut guest, &mut worker);
    stage.keeper_dies();
    worker.ends();
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "0");
    assert_eq!(worker.asks("list"), "a disk=1 unread=2");
    assert!(!stage::is_connected(&half));
    for attach in ["attach 1", "attach 2"] {
        worker.asks(attach);
    }
    is_answered(&mut guest, &mut worker);
    is_answered(&mut { unread }, &mut worker);
    stage.serves(&mut worker);
}

fn busy_manager() {
    let mut stage = Stage::managed();
    let mut worker = stage.serving();
    let busy = stage.manager.as_ref().unwrap().held();
    for number in 0..1200 {
        worker.asks(&format!("keep {number}"));
    }
    drop(busy);
    let start = std::time::Instant::now();
    while stage.manager.as_ref().unwrap().held().len() < 1201 {
        assert!(start.elapsed() < puppet::PATIENCE, "{}", stage.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(stage.wakeups(), 0, "all is told");
    stage.serves(&mut worker);
}

fn nothing_left() {
    let mut stage = Stage::managed();
    let mut worker = stage.serving();
    let _guest = stage.guest(&mut worker, "disk");
    stage.serves(&mut worker);
    std::thread::sleep(Duration::from_millis(100));
    assert!(stage.manager.as_ref().unwrap().held().is_empty());
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
