//! The keeper's own death, with a service manager that holds what it held.

use std::{os::unix::net::UnixStream, time::Duration};

use crate::{
    puppet,
    stage::{self, Stage},
    talk::{is_answered, message},
};

pub fn keeper_killed() {
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

pub fn keeper_killed_in_between() {
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

pub fn busy_manager() {
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

pub fn nothing_left() {
    let mut stage = Stage::managed();
    let mut worker = stage.serving();
    let _guest = stage.guest(&mut worker, "disk");
    stage.serves(&mut worker);
    std::thread::sleep(Duration::from_millis(100));
    assert!(stage.manager.as_ref().unwrap().held().is_empty());
}
