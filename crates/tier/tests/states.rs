//! Disks that are missing, full, read-only, failing or hang: nothing that was written is lost, the state is told, and the tier comes back
//! by itself. As root, on real devices and file systems.
#![allow(clippy::unwrap_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use support::{
    disks::{FailingDisk, LoopDevice, Mount, eventually, mount_for_myself, run},
    extent, open, options, read, write_one,
};
use tmem_store::{MAX_TIER_BATCH, Tier, TierCopy, TierError, TierKey, TierState, TierWrite};
use tmem_tier::{FileTier, FileTierError, TierOptions};

fn copy(place: u32, writing: u64) -> TierCopy {
    TierCopy { place, writing }
}

fn write(tier: &FileTier, copy: TierCopy) -> Result<(), TierError> {
    tier.write(&[TierWrite::whole(copy, &extent(copy.writing))])
}

fn assert_kept(tier: &FileTier, copy: TierCopy) {
    for start in [0, 50_000, 127_000] {
        assert_eq!(
            read(tier, copy, start, 4000).unwrap(),
            extent(copy.writing)[start..start + 4000],
            "{copy:?}"
        );
    }
}

fn assert_refused(tier: &FileTier, copy: TierCopy, state: TierState) {
    let refused = write(tier, copy);
    let Err(TierError::Unavailable(text)) = refused else { panic!("{refused:?} instead of {state:?}") };
    assert_eq!(tier.state(), state, "{text}");
    assert!(text.contains(tier.name()) && text.contains(state.as_str()), "{text}");
    assert!(tier.trouble().is_some());
}

fn wait_until_ready(tier: &FileTier) {
    eventually("the tier is ready", || {
        tier.probe();
        tier.state() == TierState::Ready
    });
    assert_eq!(tier.trouble(), None);
}

fn open_device(path: &Path) -> FileTier {
    let tier = FileTier::new(TierOptions::new(path, None)).unwrap();
    tier.use_key(&TierKey([7; 32]));
    tier
}

#[test]
fn a_missing_file_is_made_when_its_directory_appears() {
    let directory = tempfile::tempdir().unwrap();
    let later = directory.path().join("later");
    let tier = open(&options(&later.join("tier"), 4 << 20));
    assert_refused(&tier, copy(0, 1), TierState::Missing);
    assert_eq!(tier.places(), 31, "it will have them");
    assert!(matches!(read(&tier, copy(0, 1), 0, 10), Err(TierError::Unavailable(_))));
    fs::create_dir(&later).unwrap();
    // With nothing but writes.
    eventually("a write goes through", || write(&tier, copy(0, 1)).is_ok());
    assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
    assert_kept(&tier, copy(0, 1));
}

#[test]
fn a_missing_device_is_used_when_it_appears_unless_it_is_somebody_elses() {
    let directory = tempfile::tempdir().unwrap();
    let device = LoopDevice::new(directory.path(), 8 << 20);
    let link = Path::new("/dev").join(format!("tmem-test-{}", std::process::id()));
    let tier = open_device(&link);
    assert_eq!(tier.places(), 0);
    assert_refused(&tier, copy(0, 1), TierState::Missing);
    tier.probe();
    assert!(!link.exists(), "nothing is made below /dev");

    fs::write(directory.path().join("image"), vec![b'x'; 8 << 20]).unwrap();
    symlink(&device.path, &link).unwrap();
    let unlink = Unlink(&link);
    eventually("it is found", || {
        tier.probe();
        tier.state() == TierState::Failing
    });
    assert!(tier.trouble().unwrap().contains("not tmem's"), "{:?}", tier.trouble());
    assert!(fs::read(directory.path().join("image")).unwrap().iter().all(|&byte| byte == b'x'));

    run("blkdiscard", &["--force", "--zeroout", device.name()]);
    wait_until_ready(&tier);
    assert_eq!(tier.places(), 62);
    write_one(&tier, copy(61, 1), 1);
    assert_kept(&tier, copy(61, 1));
    drop(unlink);
}

struct Unlink<'a>(&'a Path);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[test]
fn a_device_is_used_by_one_program() {
    mount_for_myself();
    let directory = tempfile::tempdir().unwrap();
    let device = LoopDevice::new(directory.path(), 8 << 20);
    run("mkfs.ext4", &["-q", device.name()]);
    let before = fs::read(directory.path().join("image")).unwrap();
    let refused = FileTier::new(TierOptions::new(&device.path, None));
    assert!(matches!(refused, Err(FileTierError::Foreign { .. })), "{refused:?}");
    assert!(fs::read(directory.path().join("image")).unwrap() == before);
    let mounted = directory.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let mount = Mount::new(&[device.name()], &mounted);
    let refused = FileTier::new(TierOptions::new(&device.path, None));
    assert!(matches!(refused, Err(FileTierError::InUse { .. })), "{refused:?}");
    drop(mount);

    run("blkdiscard", &["--force", "--zeroout", device.name()]);
    let tier = open_device(&device.path);
    write_one(&tier, copy(5, 1), 1);
    let refused = FileTier::new(TierOptions::new(&device.path, None));
    assert!(matches!(refused, Err(FileTierError::InUse { .. })), "{refused:?}");
    tier.clear();
    drop(tier);
    // Again, with less of it.
    let tier = open(&options(&device.path, 4 << 20));
    assert_eq!(tier.places(), 31);
    assert_kept(&tier, copy(5, 1));
}

#[test]
fn a_device_that_becomes_read_only_gives_its_copies() {
    let directory = tempfile::tempdir().unwrap();
    let device = LoopDevice::new(directory.path(), 8 << 20);
    let tier = open_device(&device.path);
    write_one(&tier, copy(1, 1), 1);
    device.set_read_only(true);
    assert_refused(&tier, copy(2, 2), TierState::ReadOnly);
    assert_kept(&tier, copy(1, 1));
    device.set_read_only(false);
    wait_until_ready(&tier);
    write_one(&tier, copy(2, 3), 3);
    assert_kept(&tier, copy(2, 3));
    drop(tier);

    // It is so from the start.
    device.set_read_only(true);
    let tier = open_device(&device.path);
    assert_kept(&tier, copy(2, 3));
    assert_refused(&tier, copy(3, 4), TierState::ReadOnly);
    tier.probe();
    assert_eq!(tier.state(), TierState::ReadOnly);
    device.set_read_only(false);
    wait_until_ready(&tier);
    write_one(&tier, copy(3, 5), 5);
    assert_kept(&tier, copy(3, 5));
    assert_kept(&tier, copy(1, 1));
}

#[test]
fn a_read_only_file_system_gives_its_copies() {
    mount_for_myself();
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().to_str().unwrap();
    let options = options(&directory.path().join("tier"), 4 << 20);
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    drop(tier);
    let mount = Mount::new(&["--bind", name], directory.path());
    mount.remount("bind,ro");
    let tier = open(&options);
    assert_eq!(tier.state(), TierState::ReadOnly);
    assert_kept(&tier, copy(1, 1));
    assert_refused(&tier, copy(2, 2), TierState::ReadOnly);
    mount.remount("bind,rw");
    eventually("a write goes through", || write(&tier, copy(2, 3)).is_ok());
    assert_kept(&tier, copy(1, 1));
    assert_kept(&tier, copy(2, 3));
    drop(tier);

    // Nothing is there, and nothing can be made.
    fs::remove_file(&options.path).unwrap();
    mount.remount("bind,ro");
    let tier = open(&options);
    assert_refused(&tier, copy(0, 4), TierState::ReadOnly);
    assert!(matches!(read(&tier, copy(1, 1), 0, 10), Err(TierError::Unavailable(_))));
    mount.remount("bind,rw");
    wait_until_ready(&tier);
}

#[test]
fn a_full_file_system_keeps_what_it_has() {
    mount_for_myself();
    let directory = tempfile::tempdir().unwrap();
    let device = LoopDevice::new(directory.path(), 32 << 20);
    run("mkfs.ext4", &["-q", "-O", "^has_journal", device.name()]);
    let mounted = directory.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let mount = Mount::new(&[device.name()], &mounted);
    let filler = mounted.join("filler");
    run("fallocate", &["-l", "16M", filler.to_str().unwrap()]);
    let tier = open(&options(&mounted.join("tier"), 1 << 30));
    let batch = |first: u32| (first..).take(MAX_TIER_BATCH).map(|place| copy(place, u64::from(place) + 1));
    let write_batch = |first| {
        let extents: Vec<_> = batch(first).map(|copy| extent(copy.writing)).collect();
        let copies: Vec<_> =
            batch(first).zip(&extents).map(|(copy, extent)| TierWrite::whole(copy, extent)).collect();
        tier.write(&copies)
    };
    let mut written = 0;
    while write_batch(written).is_ok() {
        written += MAX_TIER_BATCH as u32;
    }
    assert_eq!(tier.state(), TierState::Full, "{:?}", tier.trouble());
    assert!(written >= 32, "{written}");
    for place in 0..written {
        assert_kept(&tier, copy(place, u64::from(place) + 1));
    }
    // Without its name it keeps what it has, and no other takes its place.
    fs::remove_file(mounted.join("tier")).unwrap();
    for _ in 0..30 {
        tier.probe();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(tier.state(), TierState::Full, "it has been looked at again");
    assert!(!mounted.join("tier").exists());
    // Places that are not needed any more make room, be they as scattered as they like.
    let is_left = |place: u32| place < 60 && place.is_multiple_of(3);
    (0..written).filter(|&place| is_left(place)).for_each(|place| tier.discard(place));
    wait_until_ready(&tier);
    write_batch(written).unwrap();
    written += MAX_TIER_BATCH as u32;
    while write_batch(written).is_ok() {
        written += MAX_TIER_BATCH as u32;
    }
    assert_eq!(tier.state(), TierState::Full);
    fs::remove_file(filler).unwrap();
    wait_until_ready(&tier);
    write_batch(written).unwrap();
    for place in (0..written + MAX_TIER_BATCH as u32).filter(|&place| !is_left(place)) {
        assert_kept(&tier, copy(place, u64::from(place) + 1));
    }
    drop(tier);
    drop(mount);
}

#[test]
fn a_full_file_system_has_room_for_the_header_later() {
    mount_for_myself();
    let directory = tempfile::tempdir().unwrap();
    let mount = Mount::new(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"], directory.path());
    let filler = directory.path().join("filler");
    while fs::write(&filler, vec![1; fs::metadata(&filler).map_or(0, |m| m.len() as usize) + 4096]).is_ok() {}
    let tier = open(&options(&directory.path().join("tier"), 4 << 20));
    assert_refused(&tier, copy(0, 1), TierState::Full);
    mount.remount("size=8M");
    wait_until_ready(&tier);
    write_one(&tier, copy(0, 1), 1);
    assert_kept(&tier, copy(0, 1));
}

/// A disk that fails as it is told to, and a tier on it.
fn failing() -> (tempfile::TempDir, FailingDisk, TierOptions) {
    mount_for_myself();
    let directory = tempfile::tempdir().unwrap();
    let disk = FailingDisk::new(directory.path());
    let options = TierOptions {
        write_patience: Duration::from_millis(500),
        read_patience: Duration::from_millis(500),
        ..options(&disk.path, 8 << 20)
    };
    (directory, disk, options)
}

#[test]
fn a_disk_that_fails_to_write_loses_nothing_and_comes_back() {
    let (_directory, mut disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    let states = [
        ("EIO", TierState::Failing),
        ("ENOSPC", TierState::Full),
        ("EDQUOT", TierState::Full),
        ("EROFS", TierState::ReadOnly),
        ("ENODEV", TierState::Missing),
        ("ETIMEDOUT", TierState::Failing),
    ];
    for (writing, (error, state)) in (2..).zip(states) {
        disk.tell(&format!("writes {error}"));
        assert_refused(&tier, copy(2, 100 * writing), state.clone());
        assert_kept(&tier, copy(1, writing - 1));
        // It is not asked again and again.
        disk.tell("writes hold");
        assert_refused(&tier, copy(2, 100 * writing + 1), state);
        disk.tell("writes ok");
        wait_until_ready(&tier);
        write_one(&tier, copy(1, writing), writing);
        assert_kept(&tier, copy(1, writing));
    }
}

#[test]
fn a_disk_that_fails_to_read_comes_back() {
    let (_directory, mut disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    for error in ["EIO", "ENXIO"] {
        disk.tell(&format!("reads {error}"));
        assert!(matches!(read(&tier, copy(1, 1), 70_000, 3000), Err(TierError::Unavailable(_))));
        assert_ne!(tier.state(), TierState::Ready);
        assert_refused(&tier, copy(2, 2), tier.state());
        disk.tell("reads ok");
        // Reading does not wait for the state.
        assert_kept(&tier, copy(1, 1));
        tier.discard(1);
        wait_until_ready(&tier);
    }
    // A start finds it so, and goes on.
    drop(tier);
    disk.tell("reads EIO");
    let tier = open(&options);
    assert_refused(&tier, copy(2, 2), TierState::Failing);
    disk.tell("reads ok");
    wait_until_ready(&tier);
    assert_kept(&tier, copy(1, 1));
}

#[test]
fn a_write_that_hangs_ends_and_never_comes_down_on_a_later_one() {
    let (_directory, mut disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    disk.tell("writes hold");
    assert_refused(&tier, copy(2, 2), TierState::Failing);
    assert!(tier.trouble().unwrap().contains("does not answer"), "{:?}", tier.trouble());
    assert_kept(&tier, copy(1, 1));
    // It takes new writes; but the old one may still come down.
    disk.tell("writes ok");
    for _ in 0..30 {
        tier.probe();
        assert_refused(&tier, copy(2, 3), TierState::Failing);
        std::thread::sleep(Duration::from_millis(100));
    }
    disk.tell("release");
    wait_until_ready(&tier);
    write_one(&tier, copy(2, 4), 4);
    assert_kept(&tier, copy(2, 4));
    assert_kept(&tier, copy(1, 1));
}

#[test]
fn a_read_that_hangs_ends_and_others_go_on() {
    let (_directory, mut disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    disk.tell("reads hold");
    // More than there are lanes.
    std::thread::scope(|scope| {
        for thread in 0..40 {
            let tier = &tier;
            scope.spawn(move || {
                let read = read(tier, copy(1, 1), thread * 3000, 100);
                assert!(matches!(read, Err(TierError::Unavailable(_))), "{read:?}");
            });
        }
    });
    assert_eq!(tier.state(), TierState::Failing);
    assert!(matches!(read(&tier, copy(1, 1), 0, 100), Err(TierError::Unavailable(_))), "all lanes hang");
    disk.tell("reads ok");
    disk.tell("release");
    wait_until_ready(&tier);
    assert_kept(&tier, copy(1, 1));
}

#[test]
fn a_tier_ends_while_its_disk_hangs() {
    let (_directory, mut disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    disk.tell("writes hold");
    disk.tell("reads hold");
    assert_refused(&tier, copy(2, 2), TierState::Failing);
    assert!(read(&tier, copy(1, 1), 0, 100).is_err());
    tier.clear();
    drop(tier);
    // The lock stands as long as the kernel has something that could come down on what others write.
    disk.tell("reads ok");
    disk.tell("writes ok");
    let refused = FileTier::new(options);
    assert!(matches!(refused, Err(FileTierError::InUse { .. })), "{refused:?}");
    disk.tell("release");
}

#[test]
fn a_killed_process_has_the_lock_until_its_last_write_is_down() {
    const WHERE: &str = "TMEM_TEST_TIER";
    if let Some(path) = std::env::var_os(WHERE) {
        // The process that is killed.
        let tier = open(&options(Path::new(&path), 8 << 20));
        write_one(&tier, copy(1, 1), 1);
        println!("written");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        write_one(&tier, copy(2, 2), 2);
        return;
    }
    let (_directory, mut disk, options) = failing();
    let name = "a_killed_process_has_the_lock_until_its_last_write_is_down";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(WHERE, &options.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("written")));
    disk.tell("writes hold");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    disk.tell("await");
    child.kill().unwrap();
    let refused = FileTier::new(options.clone());
    assert!(matches!(refused, Err(FileTierError::InUse { .. })), "{refused:?}");
    disk.tell("writes ok");
    disk.tell("release");
    let tier = open(&options);
    child.wait().unwrap();
    assert_kept(&tier, copy(1, 1));
    write_one(&tier, copy(2, 3), 3);
    assert_kept(&tier, copy(2, 3));
}

#[test]
fn a_disk_that_vanished_is_not_made_again() {
    let (_directory, mut disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    disk.tell("exists no");
    disk.tell("reads EIO");
    disk.tell("writes EIO");
    assert!(write(&tier, copy(2, 2)).is_err());
    eventually("it is missing", || {
        tier.probe();
        tier.state() == TierState::Missing
    });
    disk.tell("exists yes");
    disk.tell("reads ok");
    disk.tell("writes ok");
    wait_until_ready(&tier);
    assert_kept(&tier, copy(1, 1));
}

#[test]
fn a_disk_whose_file_system_ends_is_failing() {
    let (_directory, disk, options) = failing();
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    drop(disk);
    assert!(matches!(read(&tier, copy(1, 1), 0, 100), Err(TierError::Unavailable(_))));
    assert!(write(&tier, copy(2, 2)).is_err());
    tier.probe();
    assert_ne!(tier.state(), TierState::Ready);
    assert!(tier.trouble().is_some());
}

#[test]
fn a_file_that_was_removed_goes_on_and_one_that_was_replaced_is_not_mixed_up() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(&directory.path().join("tier"), 4 << 20);
    let tier = open(&options);
    write_one(&tier, copy(1, 1), 1);
    fs::remove_file(&options.path).unwrap();
    write_one(&tier, copy(2, 2), 2);
    assert_kept(&tier, copy(1, 1));
    let other = open(&options);
    assert_eq!(read(&other, copy(1, 1), 0, 10), Err(TierError::Damaged));
    assert_kept(&tier, copy(2, 2));
    assert!(File::open(&options.path).is_ok());
}
