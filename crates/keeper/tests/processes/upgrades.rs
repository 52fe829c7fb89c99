//! Workers that come as far as to be the one that serves, and then do not.

use crate::{
    puppet::Puppet,
    stage::{Stage, with_program},
};

/// A worker of the first program serves, and one of the second has taken over from it, but is not ready.
fn taken_over(stage: &Stage) -> Puppet {
    let mut worker = stage.serving();
    assert_eq!(worker.asks("upgrading"), "none");
    stage.replace(&with_program("second"));
    worker.asks("upgrade");
    assert_eq!(worker.asks("upgrading"), "under way");
    let mut next = stage.worker();
    assert_eq!(next.program, "second");
    assert_eq!(next.asks("hello"), "1");
    assert_eq!(next.asks("take"), "0");
    worker.ends();
    assert_eq!(next.asks("upgrading"), "under way", "until it serves");
    next
}

/// The first program goes on, and one that does better can follow it.
fn first_goes_on(stage: &mut Stage) {
    let mut worker = stage.worker();
    assert_eq!(worker.program, "first");
    assert_eq!(worker.asks("take"), "1", "a worker died");
    assert_eq!(worker.asks("list"), "a");
    worker.asks("ready");
    assert_eq!(worker.asks("upgrading"), "failed");
    worker.asks("upgrade");
    assert_eq!(worker.asks("upgrading"), "under way", "another try");
    let mut next = stage.worker();
    assert_eq!(next.asks("hello"), "1");
    assert_eq!(next.asks("take"), "1");
    worker.ends();
    next.asks("ready");
    assert_eq!(next.asks("upgrading"), "none");
    next.dies("abort");
    let mut after = stage.worker();
    assert_eq!(after.program, "second", "that one has served");
    stage.serves(&mut after);
}

pub fn fails_after_taking() {
    let mut stage = Stage::new(2);
    let next = taken_over(&stage);
    next.dies("exit 3");
    stage.logs("took over and ended before it served: it exited with 3; the program before it goes on");
    first_goes_on(&mut stage);
}

pub fn never_serves() {
    let mut stage = Stage::impatient();
    let next = taken_over(&stage);
    next.ends();
    stage.logs("does not serve 3s after its start and is killed");
    first_goes_on(&mut stage);
}

pub fn fails_after_a_death() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    stage.replace(&with_program("second"));
    worker.asks("upgrade");
    let mut next = stage.worker();
    assert_eq!(next.asks("hello"), "1");
    worker.dies("abort");
    stage.logs("died: it was killed by signal");
    assert_eq!(next.asks("take"), "1");
    next.dies("exit 3");
    let mut worker = stage.worker();
    assert_eq!(worker.program, "first");
    assert_eq!(worker.asks("take"), "2");
    stage.serves(&mut worker);
}

pub fn first_never_serves() {
    let mut stage = Stage::impatient();
    stage.worker().ends();
    assert_eq!(stage.ends(), 1);
    assert!(stage.log().contains("does not serve 3s after its start and is killed"), "{}", stage.log());
}

pub fn later_never_serves() {
    let mut stage = Stage::impatient();
    stage.serving().dies("abort");
    let mut silent = stage.worker();
    assert_eq!(silent.asks("take"), "1");
    silent.ends();
    let mut worker = stage.worker();
    assert_eq!(worker.asks("take"), "2", "both count");
    stage.serves(&mut worker);
}
