//! What is not tmem's stays as it is, and mistakes are named with the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{
    fs::{self, File},
    os::unix::{
        fs::{FileExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use support::{open, options};
use tmem_store::{Tier, TierState};
use tmem_tier::{FileTier, FileTierError, MIN_TIER_BYTES, TierOptions};

const SIZE_BYTES: u64 = 4 << 20;

fn refusal(path: &Path, size_bytes: Option<u64>) -> FileTierError {
    let error = FileTier::new(TierOptions::new(path, size_bytes)).expect_err("a refusal");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error
}

#[test]
fn mistakes_in_the_options_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let error = FileTier::new(TierOptions::new("tier", Some(SIZE_BYTES))).expect_err("a refusal");
    assert!(matches!(error, FileTierError::Relative { .. }), "{error}");
    assert!(matches!(refusal(&path, Some(MIN_TIER_BYTES - 1)), FileTierError::TooSmall { .. }));
    assert!(matches!(refusal(&path, None), FileTierError::SizeNeeded { .. }));
    assert!(!path.exists());
    File::create(&path).unwrap();
    assert!(matches!(refusal(&path, None), FileTierError::SizeNeeded { .. }));
    assert!(matches!(refusal(directory.path(), Some(SIZE_BYTES)), FileTierError::WrongKind { .. }));
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(matches!(refusal(&socket, Some(SIZE_BYTES)), FileTierError::WrongKind { .. }));
    let null = refusal(Path::new("/dev/null"), Some(SIZE_BYTES));
    assert!(matches!(null, FileTierError::WrongKind { .. }), "{null}");
}

#[test]
fn somebody_elses_file_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    let mut late = vec![0; 3 << 20];
    late[700_000] = 1;
    let mut at_the_end = vec![0; 3 << 20];
    at_the_end[(3 << 20) - 10] = 1;
    let short = b"precious".to_vec();
    for contents in
        [short, vec![0xff; 5000], late, at_the_end, vec![0; 4095].into_iter().chain([1]).collect()]
    {
        fs::write(&path, &contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = refusal(&path, Some(SIZE_BYTES));
        assert!(matches!(error, FileTierError::Foreign { .. }), "{error}");
        assert!(fs::read(&path).unwrap() == contents);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

#[test]
fn a_file_of_zeroes_is_nobodys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    for len in [0, 100, 4096, 5000, 3 << 20] {
        fs::write(&path, vec![0; len]).unwrap();
        assert_eq!(open(&options(&path, SIZE_BYTES)).state(), TierState::Ready, "{len} zeroes");
    }
}

#[test]
fn a_header_that_is_not_whole_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    drop(open(&options(&path, SIZE_BYTES)));
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for (at, what) in [(8, "of another release"), (20, "damaged")] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        let before = fs::read(&path).unwrap();
        let error = refusal(&path, Some(SIZE_BYTES));
        assert!(error.to_string().contains(what), "{error}");
        assert!(matches!(error, FileTierError::Unreadable { .. }), "{error}");
        assert!(fs::read(&path).unwrap() == before);
        file.write_all_at(&byte, at).unwrap();
    }
    open(&options(&path, SIZE_BYTES));
}

#[test]
fn one_tier_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tier");
    let tier = open(&options(&path, SIZE_BYTES));
    let error = refusal(&path, Some(SIZE_BYTES));
    assert!(matches!(error, FileTierError::InUse { .. }), "{error}");
    drop(tier);
    open(&options(&path, SIZE_BYTES));

    let mut other = Command::new("flock")
        .args([path.to_str().unwrap(), "sh", "-c", "echo locked; read wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 7];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut line).unwrap();
    let error = refusal(&path, Some(SIZE_BYTES));
    assert!(matches!(error, FileTierError::InUse { .. }), "{error}");
    // Its end is waited for.
    drop(other.stdin.take());
    open(&options(&path, SIZE_BYTES));
    other.wait().unwrap();
}

#[test]
fn a_file_beyond_the_processs_limit_is_refused() {
    // In a process of its own: the limit is the whole process's.
    if std::env::var_os("TMEM_TEST_LIMITED").is_some() {
        let error = refusal(Path::new("/tmp/tmem-test-never-made"), Some(1 << 30));
        assert!(matches!(error, FileTierError::OverFileSizeLimit { .. }), "{error}");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let script =
        "ulimit -f 10240; exec \"$0\" --exact a_file_beyond_the_processs_limit_is_refused --nocapture";
    let output = Command::new("bash")
        .args(["-c", script, test.to_str().unwrap()])
        .env("TMEM_TEST_LIMITED", "yes")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert!(!Path::new("/tmp/tmem-test-never-made").exists());
}

#[test]
fn a_file_system_without_direct_io_is_refused() {
    // proc has files, and no direct I/O.
    let error = refusal(Path::new("/proc/self/comm"), Some(SIZE_BYTES));
    assert!(matches!(error, FileTierError::NoDirectIo { .. }), "{error}");
}
