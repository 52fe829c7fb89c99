//! What connections cost. One test, in a process of its own: it counts the process's descriptors, threads
//! and processor time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod guest;

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use guest::*;
use tmem_transport::PollLimit;
use tmem_vhost::{VhostFrontend, VhostOptions};

fn count(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Waits for it. A thread that has been joined is listed for a moment longer: the kernel wakes who waits for it first, and takes it
/// off the list afterwards.
fn only_these_threads_are_left(names: &[&str]) {
    let start = Instant::now();
    while vhost_threads().1 != names {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} are left", vhost_threads().1);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Processor time of all threads whose name starts with `vhost`, in clock ticks, and their names.
fn vhost_threads() -> (u64, Vec<String>) {
    let mut ticks = 0;
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((start, rest)) = stat.rsplit_once(") ") else { continue };
        let name = start.split_once('(').unwrap().1;
        if name.starts_with("vhost") || name == "vring_worker" {
            let fields: Vec<&str> = rest.split(' ').collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            names.push(name.to_owned());
        }
    }
    names.sort();
    (ticks, names)
}

#[test]
fn connections_leave_nothing_behind_and_idle_ones_cost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let options = VhostOptions { poll_limit: PollLimit::from_us(1000), ..VhostOptions::new(&socket) };
    let frontend = VhostFrontend::start(disk(&store(), "d"), options).unwrap();
    let gone = || {
        let start = Instant::now();
        while frontend.is_connected() {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (mut descriptors, mut threads) = (0, 0);
    for round in 0..200 {
        if round % 2 == 0 {
            let mut guest = Guest::connect(&socket, 2).unwrap();
            guest.write(0, 0, &pages(round, 1));
        } else {
            // Gone before it has said anything; the frontend may not even have noticed it come.
            drop(UnixStream::connect(&socket).unwrap());
            while frontend.counts().connections + frontend.counts().refused_connections != round + 1 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        gone();
        // The first connections may set things up for good.
        if round == 9 {
            only_these_threads_are_left(&["vhost-d"]);
            (descriptors, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
        }
    }
    only_these_threads_are_left(&["vhost-d"]);
    assert_eq!(count("/proc/self/fd"), descriptors, "descriptors");
    assert_eq!(count("/proc/self/task"), threads, "threads");

    let mut guest = Guest::connect(&socket, 4).unwrap();
    for queue in 0..4 {
        guest.write(queue, 0, &pages(1, 1));
    }
    let (_, names) = vhost_threads();
    assert_eq!(names, ["vhost-d", "vhost-d-ctl", "vhost-d-q0", "vhost-d-q1", "vhost-d-q2", "vhost-d-q3"]);
    std::thread::sleep(Duration::from_millis(50));
    let (before, _) = vhost_threads();
    std::thread::sleep(Duration::from_secs(1));
    let (after, _) = vhost_threads();
    // A tick is 10 ms. Without a request there is nothing to do at all.
    assert!(after - before <= 1, "{} ticks of processor time in an idle second", after - before);
    frontend.stop();
    only_these_threads_are_left(&[]);
}
