//! Cgroups, as directories of plain files. What the kernel makes of it is tried in a guest (`tests/tests/actuator.rs`).

#![allow(clippy::expect_used)]

use std::{fs, path::Path};

use tempfile::TempDir;
use tmem_actuator::{ActuatorError, Address, Guest, Seen};

const MIB: u64 = 1 << 20;

fn cgroup(current: u64, high: &str, max: &str) -> (TempDir, Guest) {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "memory.current", &format!("{}\n", current * MIB));
    write(directory.path(), "memory.high", high);
    write(directory.path(), "memory.max", max);
    write(directory.path(), "memory.reclaim", "");
    write(
        directory.path(),
        "memory.stat",
        "anon 1\ninactive_file 8388608\nworkingset_refault_anon 77\npgmajfault 99\n",
    );
    write(
        directory.path(),
        "memory.pressure",
        "some avg10=1.50 avg60=0.10 avg300=0.00 total=9\nfull avg10=9.00 total=1\n",
    );
    let guest = Guest::new(Address::Cgroup(directory.path().into()));
    (directory, guest)
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("a file");
}

fn read(directory: &TempDir, name: &str) -> String {
    fs::read_to_string(directory.path().join(name)).expect("a file")
}

fn available(seen: &Seen) -> u64 {
    seen.report.and_then(|report| report.available_bytes).expect("what is available") / MIB
}

#[tokio::test]
async fn a_cgroup_without_a_limit_has_what_it_uses() {
    let (directory, mut guest) = cgroup(100, "max\n", "max\n");
    let seen = guest.look().await.expect("a cgroup");
    assert_eq!((seen.size_bytes, available(&seen), seen.swap_ins), (100 * MIB, 8, Some(77)));
    assert!(seen.max_bytes > 1 << 30, "the host's memory: {seen:?}");
    let pressure = seen.report.and_then(|report| report.pressure).expect("pressure");
    assert!((pressure - 0.015).abs() < 1e-9);
    // From the host, a cgroup without pressure is none with a wrong one.
    fs::remove_file(directory.path().join("memory.pressure")).expect("no file");
    write(directory.path(), "memory.stat", "pswpin 5\nworkingset_refault_anon 77\n");
    let seen = guest.look().await.expect("a cgroup");
    assert_eq!((seen.swap_ins, available(&seen), seen.report.and_then(|r| r.pressure)), (Some(5), 0, None));
}

#[tokio::test]
async fn a_cgroup_with_a_limit_has_that() {
    let (_directory, mut guest) = cgroup(100, "157286400\n", "536870912\n");
    let seen = guest.look().await.expect("a cgroup");
    assert_eq!((seen.size_bytes, seen.max_bytes, available(&seen)), (150 * MIB, 512 * MIB, 58));
    let (_directory, mut guest) = cgroup(100, "52428800\n", "536870912\n");
    let seen = guest.look().await.expect("a cgroup");
    assert_eq!((seen.size_bytes, available(&seen)), (100 * MIB, 8), "it has not come down to it yet");
}

#[tokio::test]
async fn the_least_maximum_above_counts() {
    let (directory, _) = cgroup(100, "max\n", "268435456\n");
    let below = directory.path().join("below");
    fs::create_dir(&below).expect("a directory");
    for name in ["memory.current", "memory.stat"] {
        fs::copy(directory.path().join(name), below.join(name)).expect("a file");
    }
    write(&below, "memory.high", "max");
    write(&below, "memory.max", "max");
    let seen = Guest::new(Address::Cgroup(below)).look().await.expect("a cgroup");
    assert_eq!(seen.max_bytes, 256 * MIB);
}

#[tokio::test]
async fn a_target_is_reclaimed_and_then_the_limit() {
    let (directory, mut guest) = cgroup(100, "max\n", "536870912\n");
    guest.set(92 * MIB).await.expect("told");
    assert_eq!(read(&directory, "memory.reclaim"), (8 * MIB).to_string());
    assert_eq!(read(&directory, "memory.high"), (92 * MIB).to_string());
    // In steps, so that a later target need not wait long.
    guest.set(10 * MIB).await.expect("told");
    assert_eq!(read(&directory, "memory.reclaim"), (16 * MIB).to_string());
    assert_eq!(read(&directory, "memory.high"), (10 * MIB).to_string());
    guest.set(200 * MIB).await.expect("told");
    assert_eq!(read(&directory, "memory.high"), (200 * MIB).to_string());
    assert_eq!(read(&directory, "memory.reclaim"), (16 * MIB).to_string(), "nothing to reclaim");
    for all in [512 * MIB, u64::MAX] {
        guest.set(all).await.expect("told");
        assert_eq!(read(&directory, "memory.high"), "max");
    }
    // Kernels before 5.19 have no `memory.reclaim`.
    fs::remove_file(directory.path().join("memory.reclaim")).expect("no file");
    guest.set(50 * MIB).await.expect("told");
    assert_eq!(read(&directory, "memory.high"), (50 * MIB).to_string());
}

#[tokio::test]
async fn what_is_no_cgroup_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut guest = Guest::new(Address::Cgroup(directory.path().into()));
    let error = guest.look().await.expect_err("no cgroup");
    let text = error.to_string();
    assert!(matches!(error, ActuatorError::File { .. }), "{text}");
    assert!(text.contains("memory.max") && text.contains("version 2") && !text.contains('\n'), "{text}");
    assert!(matches!(guest.set(1).await, Err(ActuatorError::File { .. })));
    for (current, high) in [("many", "max"), ("99999999999999999999999", "max"), ("-1", "max"), ("7", "some")]
    {
        let (directory, mut guest) = cgroup(1, high, "max");
        write(directory.path(), "memory.current", current);
        let error = guest.look().await.expect_err("nonsense");
        assert!(matches!(error, ActuatorError::Garbage { .. }), "{error}");
    }
}

/// A file that nobody ever writes to, and one that never ends.
#[tokio::test]
async fn no_file_keeps_anybody_waiting() {
    let (directory, mut guest) = cgroup(1, "max", "max");
    let path = directory.path().join("memory.current");
    for target in ["/dev/zero", "/dev/full"] {
        fs::remove_file(&path).expect("no file");
        std::os::unix::fs::symlink(target, &path).expect("a link");
        assert!(matches!(guest.look().await, Err(ActuatorError::Garbage { .. })), "{target}");
    }
}
