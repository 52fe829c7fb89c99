//! Spare workers: they stand by to follow one that dies.

use std::time::Duration;

use crate::{
    puppet,
    stage::{self, Stage, with_program},
};

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

pub fn spare_follows() {
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

pub fn spare_of_the_same_program() {
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

pub fn spare_of_another_program() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    worker.asks("want-spare 2");
    let spare = spare_of(&stage, &mut worker);
    // One that fails leaves both alone.
    stage.replace(&with_program("second"));
    worker.asks("upgrade");
    let mut next = stage.worker();
    assert_eq!(worker.asks("upgrading"), "under way");
    assert_eq!(next.asks("hello"), "1");
    next.dies("exit 3");
    stage.logs("did not take over: it exited with 3");
    assert_eq!((worker.asks("upgrading"), worker.asks("spare")), ("failed".into(), "stands by".into()));
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

pub fn other_spare() {
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

pub fn spare_fails() {
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

pub fn spare_held() {
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

pub fn spare_starts() {
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

pub fn spare_at_the_end() {
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
