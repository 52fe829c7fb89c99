//! Real etcd servers on loopback, nodes that ask them, a wire between the two that can be cut, and who signs certificates.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod authority;
pub mod etcd;
pub mod node;
pub mod users;
pub mod wire;

use std::{
    thread,
    time::{Duration, Instant},
};

/// Far more than anything takes, on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something is so, and says what was waited for when it does not become so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
