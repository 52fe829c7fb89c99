//! `tmem bench store`: its report, its refusals, and that no zram device outlives it.

// A failed step is a failed test.
#![allow(clippy::expect_used)]

mod common;

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{Killed, eventually, run, send, tmem};
use serde_json::Value;
use tempfile::NamedTempFile;

const PAGE_BYTES: usize = 4096;
const CONTROL: &str = "/sys/class/zram-control/hot_add";

/// Code and tables of this test's own program, and some empty pages.
fn page_file(pages: usize) -> NamedTempFile {
    let mut bytes = fs::read(env::current_exe().expect("own path")).expect("own program");
    bytes.resize(pages * PAGE_BYTES - 10 * PAGE_BYTES, 0);
    bytes.resize(pages * PAGE_BYTES, 0);
    let file = NamedTempFile::new().expect("file");
    fs::write(file.path(), bytes).expect("write");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("permissions");
    file
}

fn store<'a>(file: &'a NamedTempFile, more: &[&'a str]) -> Vec<&'a str> {
    let path = file.path().to_str().expect("UTF-8");
    [&["bench", "store", "--pages", path][..], more].concat()
}

/// Runs it to its end; the progress that it may show on stderr does not matter.
fn report(command: &mut Command) -> (Value, String) {
    let Output { status, stdout, stderr } = command.output().expect("run");
    let said = String::from_utf8(stderr).expect("UTF-8");
    assert!(status.success(), "{said}");
    (serde_json::from_slice(&stdout).expect("JSON"), said)
}

fn assert_times(times: &Value) {
    // The clock's own time is subtracted: a fast operation may come out as none.
    assert!(times["mean"].as_f64() > Some(0.0) && times["p50"].as_f64() >= Some(0.0), "{times}");
    assert!(times["p50"].as_f64() <= times["p99"].as_f64(), "{times}");
}

fn assert_tmem(tmem: &Value, pages: u64) {
    for step in [
        "put_us",
        "get_us",
        "get_recompressed_us",
        "overwrite_us",
        "flush_us",
        "lz4_compress_us",
        "lz4_decompress_us",
    ] {
        assert_times(&tmem[step]);
    }
    for ratio in ["ratio", "ratio_without_dedup", "ratio_overwritten"] {
        assert!(tmem[ratio].as_f64() > Some(1.0), "{ratio}: {tmem}");
    }
    assert!(tmem["ratio_recompressed"].as_f64() >= tmem["ratio"].as_f64(), "{tmem}");
    for figure in [
        "overhead_percent",
        "metadata_bytes_per_page",
        "two_thread_speedup",
        "two_thread_speedup_lz4",
        "rss_before_bytes",
        "rss_peak_bytes",
        "rss_final_bytes",
        "clock_us",
    ] {
        assert!(tmem[figure].as_f64() > Some(0.0), "{figure}: {tmem}");
    }
    assert_eq!(tmem["pages"], pages);
    assert!(tmem["same_filled_pages"].as_u64() >= Some(10), "{tmem}");
    let flush = &tmem["after_flush"];
    assert_eq!(flush["left_pages"], pages - pages * 9 / 10);
    assert!(flush["held_bytes"].as_u64() <= flush["held_at_first_bytes"].as_u64(), "{flush}");
    assert!(flush["held_to_needed"].as_f64() > Some(0.0), "{flush}");
    assert!(flush["compact_seconds"].as_f64() >= Some(0.0), "{flush}");
}

#[test]
fn the_report_is_whole() {
    let file = page_file(600);
    for threads in ["1", "3"] {
        let line = store(&file, &["--json", "--rounds", "2", "--threads", threads]);
        let (report, _) = report(&mut tmem(&line));
        assert_tmem(&report["tmem"], 600);
        assert_eq!(report["tmem"]["threads"].to_string(), threads);
        assert_eq!(report.as_object().map(|report| report.len()), Some(2));
        assert_eq!(report.get("zram"), Some(&Value::Null));
    }
}

#[test]
fn a_single_page_is_enough() {
    let file = page_file(11);
    fs::OpenOptions::new()
        .write(true)
        .open(file.path())
        .and_then(|file| file.set_len(PAGE_BYTES as u64))
        .expect("cut");
    let output = tmem(&store(&file, &["--rounds", "1", "--threads", "2"])).output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 pages") && text.contains("get, p99 us"), "{text}");
}

#[test]
fn a_file_that_holds_no_pages_is_refused() {
    let file = NamedTempFile::new().expect("file");
    let path = file.path().to_str().expect("UTF-8");
    for bytes in [0, 1, 4095, 5000] {
        fs::write(file.path(), vec![1; bytes]).expect("write");
        run(&store(&file, &[])).fails(1, &[path, &format!("{bytes} bytes"), "bench/corpus"]);
    }
    run(&["bench", "store", "--pages", "/no/such/file"]).fails(1, &["/no/such/file", "bench/corpus"]);
    run(&["bench", "store", "--pages", "/"]).fails(1, &["/", "bench/corpus"]);
}

#[test]
fn nonsense_is_wrong_usage() {
    let file = page_file(20);
    for (more, mention) in [
        (["--threads", "0"], "--threads"),
        (["--threads", "100000"], "--threads"),
        (["--rounds", "0"], "--rounds"),
        (["--peer", "swap"], "--peer"),
    ] {
        run(&store(&file, &more)).fails(2, &[mention]);
    }
    run(&["bench", "store"]).fails(2, &["--pages"]);
}

fn zram_devices() -> BTreeSet<String> {
    let blocks = fs::read_dir("/sys/block").expect("/sys/block");
    let names = blocks.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("zram")).collect()
}

/// All of zram in one test: two at the same time could not tell whose device is whose.
#[test]
fn zram_is_measured_and_its_device_removed() {
    let file = page_file(600);
    let line = store(&file, &["--json", "--peer", "zram", "--rounds", "2"]);
    let before = zram_devices();
    // Opening for reading does not add a device; reading would.
    if fs::File::open(CONTROL).is_err() {
        println!("no zram here: only that it is skipped is tested");
        assert_skipped(&mut tmem(&line));
        return;
    }
    let (report, said) = report(&mut tmem(&line));
    assert!(!said.contains("skipped"), "{said}");
    assert_tmem(&report["tmem"], 600);
    let zram = report["zram"].as_object().expect("zram");
    assert_times(&zram["put_us"]);
    assert_times(&zram["get_us"]);
    assert!(zram["ratio"].as_f64() > Some(1.0));
    assert_eq!(zram.len(), 3);
    assert_eq!(zram_devices(), before, "a device was left behind");

    for signal in [libc::SIGINT, libc::SIGTERM] {
        let line = store(&file, &["--peer", "zram", "--rounds", "100000"]);
        let child = tmem(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run");
        let mut child = Killed(Some(child));
        let child = child.0.as_mut().expect("child");
        eventually("the device is in use", || {
            zram_devices().difference(&before).any(|device| {
                fs::read_to_string(format!("/sys/block/{device}/mm_stat"))
                    .is_ok_and(|figures| !figures.trim_start().starts_with('0'))
            })
        });
        send(child.id(), signal);
        assert_eq!(child.wait().expect("wait").code(), Some(1));
        assert_eq!(zram_devices(), before, "a device was left behind by signal {signal}");
    }

    // Without the right to make a device the rest goes on. A copy: nobody else may reach where the binary lies.
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let copy = folder.path().join("tmem");
    fs::copy(Path::new(env!("CARGO_BIN_EXE_tmem")), &copy).expect("copy");
    const NOBODY: u32 = 65534;
    assert_skipped(Command::new(copy).args(&line).uid(NOBODY).gid(NOBODY));
    assert_eq!(zram_devices(), before);
}

fn assert_skipped(command: &mut Command) {
    let (report, said) = report(command);
    assert!(said.lines().any(|line| line.starts_with("zram: skipped: ")), "{said}");
    assert_eq!(report["zram"], Value::Null);
    assert!(report["tmem"]["ratio"].as_f64() > Some(1.0), "{report}");
}
