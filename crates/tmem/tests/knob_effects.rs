//! Each knob of a real daemon does what it says, not only says what it was set to.
#![allow(clippy::expect_used)] // a failed step is a failed test

mod common;

use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::FileExt},
    thread::sleep,
    time::Duration,
};

use common::{
    Daemon, eventually,
    nbd::{Disk, noise, prose},
};
use serde_json::Value;

/// The knobs of a daemon with a disk `vm1`, and the tests of this file that show their effects.
const TESTED: [(&str, fn()); 16] = [
    ("pool-size", a_smaller_pool_size_refuses_what_comes_after),
    ("reserve", a_reserve_is_left_to_the_host),
    ("pool-ceiling", a_ceiling_holds_a_pool_of_size_auto),
    ("reaction-ms", the_host_is_looked_at_as_often_as_asked_for),
    ("poll-us", threads_poll_as_long_as_they_may),
    ("max-compressed", pages_that_do_not_compress_well_enough_are_refused),
    ("recompress", recompression_can_be_off),
    ("recompress-age", younger_pages_are_left_alone),
    ("recompress-level", a_higher_level_saves_more),
    ("background-cpu", background_work_takes_as_much_as_it_may),
    ("tier-mode", full_extents_are_copied_at_once_if_told_so),
    ("write-back-age", old_pages_go_to_the_tier_if_told_so),
    ("zero-on-flush", forgotten_pages_are_overwritten_if_told_so),
    ("log-level", the_log_says_as_much_as_asked_for),
    ("vm1.cap", a_cap_holds),
    ("vm1.weight", a_heavier_client_may_grow_longer),
];

#[test]
fn no_knob_is_without_a_test_of_its_effect() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let knobs: Value = serde_json::from_str(&daemon.run(&["get", "--json"]).ok()).expect("JSON");
    let names = knobs["knobs"].as_array().expect("a list").iter().map(|knob| knob["name"].as_str());
    assert!(names.eq(TESTED.map(|(name, _)| Some(name))));
}

/// A daemon with plenty of room and a tier all the same.
fn with_a_tier() -> (Daemon, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("directory");
    let tier = home.path().join("tier").display().to_string();
    let arguments = ["--pool-size", "64M", "--tier", &tier, "--tier-size", "64M", "--recompress-age", "1"];
    (Daemon::start_with(&arguments), home)
}

fn of_tier(daemon: &Daemon, name: &str) -> u64 {
    daemon.status()["tiers"][0][name].as_u64().expect(name)
}

fn set(daemon: &Daemon, change: &str) {
    daemon.run(&["set", change]).ok();
}

fn limit(daemon: &Daemon) -> u64 {
    daemon.status()["pool"]["limit_bytes"].as_u64().expect("limit")
}

/// A number of the first client.
fn of_client(daemon: &Daemon, name: &str) -> u64 {
    daemon.status()["clients"][0][name].as_u64().expect(name)
}

fn write_all(disk: &mut Disk, pages: std::ops::Range<u64>, page: fn(u64) -> Vec<u8>) {
    pages.for_each(|i| disk.write(i, &page(i)).expect("write"));
}

#[test]
fn a_smaller_pool_size_refuses_what_comes_after() {
    let daemon = Daemon::start();
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    write_all(&mut disk, 1..2000, noise);
    set(&daemon, "pool-size=4M");
    assert_eq!(limit(&daemon), 4 << 20);
    // What an extent that is being filled has room for needs no more memory.
    let refused_at = (2000..2100).find(|i| disk.write(*i, &noise(*i)).is_err()).expect("a refusal");
    assert_eq!(disk.read(1).expect("what is stored stays"), noise(1));
    set(&daemon, "pool-size=64M");
    disk.write(refused_at, &noise(refused_at)).expect("write");
}

#[test]
fn a_reserve_is_left_to_the_host() {
    let daemon = Daemon::start_with(&[]);
    eventually("a pool that takes what the host can spare", || limit(&daemon) > 64 << 20);
    let meminfo = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let kib: u64 = meminfo.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("MemTotal");
    set(&daemon, &format!("reserve={}", kib * 1024 - 4096));
    eventually("a pool that leaves all to the host", || limit(&daemon) == 1 << 20);
    set(&daemon, "reserve=auto");
    eventually("a pool that takes what the host can spare", || limit(&daemon) > 64 << 20);
}

#[test]
fn a_ceiling_holds_a_pool_of_size_auto() {
    let daemon = Daemon::start_with(&["--pool-ceiling", "32M"]);
    assert_eq!(limit(&daemon), 32 << 20);
    set(&daemon, "pool-ceiling=8M");
    eventually("a lower ceiling", || limit(&daemon) == 8 << 20);
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    assert!((1..4000).any(|i| disk.write(i, &noise(i)).is_err()), "it holds");
    set(&daemon, "pool-ceiling=none");
    eventually("a pool without one", || limit(&daemon) > 64 << 20);
    write_all(&mut disk, 1..4000, noise);
}

#[test]
fn the_host_is_looked_at_as_often_as_asked_for() {
    let daemon = Daemon::start_with(&["--pool-ceiling", "64M", "--reaction-ms", "3000"]);
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    write_all(&mut disk, 1..6000, noise); // with less in it a pool that does not change is looked at once a second
    set(&daemon, "reaction-ms=10");
    // Every three seconds this would take a quarter of an hour.
    let before = daemon.naps("sizing");
    eventually("many looks", || daemon.naps("sizing") > before + 300);
}

#[test]
fn threads_poll_as_long_as_they_may() {
    let daemon = Daemon::start_with(&["--pool-size", "64M", "--poll-us", "0"]);
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    let mut ask = || {
        disk.read(1).expect("read");
        sleep(Duration::from_millis(30));
    };
    (0..30).for_each(|_| ask());
    set(&daemon, "poll-us=1000000");
    // Polling away the gaps between reads takes some seconds for that, sleeping through them some minutes.
    let before = daemon.cpu_time();
    eventually("a thread that polls", || {
        ask();
        daemon.cpu_time() > before + Duration::from_millis(500)
    });
}

#[test]
fn pages_that_do_not_compress_well_enough_are_refused() {
    let daemon = Daemon::start();
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    for (percent, taken) in [("99", [false, true]), ("20", [false, false]), ("100", [true, true])] {
        set(&daemon, &format!("max-compressed={percent}"));
        let before = of_client(&daemon, "incompressible_puts");
        let pages = [noise(1), prose(1)];
        for (number, (page, taken)) in (1..).zip(pages.iter().zip(taken)) {
            assert_eq!(disk.write(number, page).is_ok(), taken, "{percent}%, page {number}");
            assert_eq!(disk.read(number).is_ok_and(|found| found == *page), taken);
        }
        let refused = taken.iter().filter(|taken| !**taken).count() as u64;
        assert_eq!(of_client(&daemon, "incompressible_puts") - before, refused, "{percent}%");
    }
    disk.write(9, &[7; 4096]).expect("a page of one value");
}

/// Pages that are cold as soon as they may be, in a daemon with these arguments.
fn idle(arguments: &[&str]) -> (Daemon, Disk) {
    let daemon = Daemon::start_with(&[&["--pool-size", "64M"], arguments].concat());
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    write_all(&mut disk, 1..3000, prose);
    (daemon, disk)
}

/// Several of the maintenance thread's looks, which come a second apart.
fn some_looks(daemon: &Daemon) {
    let before = daemon.naps("maintenance");
    eventually("looks", || daemon.naps("maintenance") > before + 4);
}

#[test]
fn recompression_can_be_off() {
    let (daemon, _disk) = idle(&["--recompress-age", "1", "--recompress", "off"]);
    some_looks(&daemon);
    assert_eq!(of_client(&daemon, "recompressed_pages"), 0);
    set(&daemon, "recompress=on");
    eventually("recompression", || of_client(&daemon, "recompressed_pages") > 2000);
}

#[test]
fn younger_pages_are_left_alone() {
    let (daemon, _disk) = idle(&["--recompress-age", "86400"]);
    some_looks(&daemon);
    assert_eq!(of_client(&daemon, "recompressed_pages"), 0);
    set(&daemon, "recompress-age=1");
    eventually("recompression", || of_client(&daemon, "recompressed_pages") > 2000);
}

#[test]
fn a_higher_level_saves_more() {
    let daemon =
        Daemon::start_with(&["--pool-size", "64M", "--recompress-age", "1", "--background-cpu", "100"]);
    let saved_by = |level: &str| {
        set(&daemon, &format!("recompress-level={level}"));
        let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
        write_all(&mut disk, 1..3000, prose);
        eventually("recompression", || of_client(&daemon, "recompressed_pages") > 2000);
        let saved =
            of_client(&daemon, "recompression_saved_bytes") / of_client(&daemon, "recompressed_pages");
        daemon.run(&["disk", "rm", "vm1", "--force"]).ok();
        saved
    };
    let (low, high) = (saved_by("1"), saved_by("19"));
    assert!(low < high, "{low} and {high} bytes a page");
}

#[test]
fn background_work_takes_as_much_as_it_may() {
    // A page takes this level about half a millisecond: 1% of a CPU would be busy for minutes.
    let (daemon, _disk) =
        idle(&["--recompress-age", "1", "--recompress-level", "12", "--background-cpu", "1"]);
    some_looks(&daemon);
    assert!(of_client(&daemon, "recompressed_pages") < 2500);
    set(&daemon, "background-cpu=100");
    eventually("recompression", || of_client(&daemon, "recompressed_pages") > 2500);
}

/// Whether the pool's memory, as the kernel has it, has these bytes anywhere.
fn memory_has(daemon: &Daemon, bytes: &[u8]) -> bool {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("descriptors");
    let paths = files.map(|file| file.expect("a descriptor").path());
    let arenas =
        paths.filter(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("arena")));
    let mut arenas = arenas.map(|path| fs::File::open(path).expect("the arena's file")).peekable();
    assert!(arenas.peek().is_some(), "no arena");
    arenas.any(|arena| data_of(&arena).windows(bytes.len()).any(|window| window == bytes))
}

/// All of a sparse file but its holes.
fn data_of(file: &fs::File) -> Vec<u8> {
    let seek = |from, whence| {
        // SAFETY: touches no memory.
        u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), from as i64, whence) }).ok()
    };
    let (mut data, mut at) = (Vec::new(), 0);
    while let Some(start) = seek(at, libc::SEEK_DATA) {
        at = seek(start, libc::SEEK_HOLE).expect("an end");
        let mut part = vec![0; (at - start) as usize];
        file.read_exact_at(&mut part, start).expect("data");
        data.extend(part);
    }
    data
}

#[test]
fn forgotten_pages_are_overwritten_if_told_so() {
    let daemon = Daemon::start();
    let mut disk = Disk::add(&daemon, "vm1", "16M", &[]);
    write_all(&mut disk, 1..20, noise);
    let has = |page: u64| memory_has(&daemon, &noise(page)[64..512]);
    disk.trim(3, 1).expect("trim");
    assert!(has(3) && has(4));
    set(&daemon, "zero-on-flush=on");
    disk.trim(4, 1).expect("trim");
    disk.write(5, &noise(50)).expect("write");
    assert_eq!([3, 4, 5, 6, 50].map(has), [true, false, false, true, true]);
    set(&daemon, "zero-on-flush=off");
    disk.trim(6, 1).expect("trim");
    assert!(has(6));
}

#[test]
fn the_log_says_as_much_as_asked_for() {
    let (daemon, log) = Daemon::start_with_log(&["--pool-size", "64M", "--log-level", "error"]);
    daemon.add("vm1", "16M");
    daemon.run(&["freeze", "vm1"]).ok();
    set(&daemon, "log-level=info");
    daemon.run(&["thaw", "vm1"]).ok();
    set(&daemon, "log-level=warn");
    daemon.run(&["freeze", "vm1"]).ok();
    assert_eq!(fs::read_to_string(log).expect("log"), "tmem: info: client vm1: thawed\n");
}

#[test]
fn a_cap_holds() {
    let daemon = Daemon::start();
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    write_all(&mut disk, 1..600, noise);
    set(&daemon, "vm1.cap=2M");
    assert!(disk.write(600, &noise(600)).is_err());
    assert_eq!(disk.read(1).expect("what is stored stays"), noise(1));
    set(&daemon, "vm1.cap=4M");
    disk.write(600, &noise(600)).expect("write");
    set(&daemon, "vm1.cap=none");
    write_all(&mut disk, 600..2000, noise);
}

#[test]
fn a_heavier_client_may_grow_longer() {
    let daemon = Daemon::start_with(&["--pool-size", "32M"]);
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    Disk::add(&daemon, "vm2", "64M", &[]);
    let refused_at = (1..9000).find(|i| disk.write(*i, &noise(*i)).is_err()).expect("a refusal");
    set(&daemon, "vm1.weight=10000");
    disk.write(refused_at, &noise(refused_at)).expect("write");
    set(&daemon, "vm1.weight=1");
    // What was found ahead and is given back makes a little room.
    assert!((9000..9200).any(|i| disk.write(i, &noise(i)).is_err()));
}

#[test]
fn full_extents_are_copied_at_once_if_told_so() {
    let (daemon, _home) = with_a_tier();
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    write_all(&mut disk, 1..1000, noise);
    assert_eq!(of_tier(&daemon, "written_extents"), 0);
    set(&daemon, "tier-mode=write-through");
    eventually("copies of 999 pages", || of_tier(&daemon, "written_extents") >= 999 / 31);
    assert_eq!(of_client(&daemon, "tiered_pages"), 0, "they are in memory as well");
}

#[test]
fn old_pages_go_to_the_tier_if_told_so() {
    let (daemon, _home) = with_a_tier();
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    write_all(&mut disk, 1..1000, noise);
    eventually("pages that are cold", || of_client(&daemon, "recompression_kept_pages") > 900);
    assert_eq!(of_client(&daemon, "tiered_pages"), 0);
    set(&daemon, "write-back-age=1");
    eventually("pages in the tier", || of_client(&daemon, "tiered_pages") > 800);
    (1..1000).for_each(|i| assert_eq!(disk.read(i).expect("a page"), noise(i)));
}
