//! A real daemon with a tier: pages beyond its memory, a disk that is not there at first, and mistakes.
#![allow(clippy::expect_used)] // a failed step is a failed test

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use common::{
    Daemon, eventually,
    nbd::{Disk, noise},
    tmem,
};

const PAGES: u64 = 5000;

fn serve(tier: &Path, more: &[&str]) -> Daemon {
    let tier = tier.display().to_string();
    let arguments = [&["--pool-size", "6M", "--tier", &tier, "--tier-size", "64M"], more].concat();
    Daemon::start_with(&arguments)
}

fn of_tier(daemon: &Daemon, name: &str) -> u64 {
    daemon.status()["tiers"][0][name].as_u64().expect(name)
}

fn state(daemon: &Daemon) -> String {
    daemon.status()["tiers"][0]["state"].as_str().expect("a state").to_owned()
}

#[test]
fn r1_pages_beyond_memory_are_in_the_tier_and_come_back() {
    let home = tempfile::tempdir().expect("directory");
    let tier = home.path().join("tier");
    let mut daemon = serve(&tier, &[]);
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    (1..PAGES).for_each(|i| disk.write(i, &noise(i)).expect("write"));
    let status = daemon.status();
    let (pool, client) = (&status["pool"], &status["clients"][0]);
    assert!(pool["held_bytes"].as_u64() <= pool["limit_bytes"].as_u64(), "{pool}");
    assert_eq!(client["refused_puts"], 0);
    assert!(client["tiered_pages"].as_u64() > Some(3000), "{client}");
    assert_eq!(state(&daemon), "ready");
    let text = daemon.run(&["status"]).ok();
    let shown = format!("tier {}: ready, ", tier.display());
    assert!(text.contains(&shown) && text.contains("used of 6") && text.contains("TIERED"), "{text}");

    // Nothing of it can be read there, nor by others.
    let stored = fs::read(&tier).expect("the tier");
    let looked_for = &noise(7)[..64];
    assert!(stored.len() > 10 << 20 && !stored.windows(64).any(|window| window == looked_for));
    assert_eq!(fs::metadata(&tier).expect("tier").permissions().mode() & 0o777, 0o600);

    (1..PAGES).for_each(|i| assert_eq!(disk.read(i).expect("read"), noise(i), "page {i}"));
    drop(disk);
    daemon.run(&["disk", "rm", "vm1"]).ok();
    assert_eq!((of_tier(&daemon, "used_bytes"), of_tier(&daemon, "stored_pages")), (0, 0));
    daemon.signal(libc::SIGTERM);
    assert!(daemon.wait().success());
    let left: u64 = fs::read(&tier).expect("tier")[4096..].iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(left, 0, "something is left in the tier");
}

#[test]
fn r2_a_tier_that_is_missing_is_used_when_it_comes() {
    let home = tempfile::tempdir().expect("directory");
    let place = home.path().join("mounted");
    let daemon = serve(&place.join("tier"), &[]);
    assert_eq!(state(&daemon), "missing");
    let mut disk = Disk::add(&daemon, "vm1", "64M", &[]);
    let accepted: Vec<u64> = (1..3000).filter(|i| disk.write(*i, &noise(*i)).is_ok()).collect();
    assert!((1000..1500).contains(&accepted.len()), "{} pages in 6M", accepted.len());
    let text = daemon.run(&["status"]).ok();
    assert!(text.contains(": missing ("), "{text}");

    fs::create_dir(&place).expect("directory");
    eventually("a tier that is ready", || state(&daemon) == "ready");
    eventually("a page that is taken", || disk.write(3000, &noise(3000)).is_ok());
    (3000..5000).for_each(|i| disk.write(i, &noise(i)).expect("write"));
    accepted.iter().for_each(|i| assert_eq!(disk.read(*i).expect("read"), noise(*i), "page {i}"));
}

#[test]
fn mistakes_are_named_with_the_way_out() {
    let home = tempfile::tempdir().expect("directory");
    let path = |name: &str| home.path().join(name).display().to_string();
    fs::write(path("letter"), vec![b'x'; 1 << 20]).expect("a file");
    let run = path("run");
    for (arguments, mentions) in [
        (vec!["--tier-size", "1G"], vec!["tier-size", "tier is not"]),
        (vec!["--tier", "tier", "--tier-size", "1G"], vec!["relative"]),
        (vec!["--tier", &path("new")], vec!["tier-size"]),
        (vec!["--tier", &path("new"), "--tier-size", "1M"], vec!["new"]),
        (vec!["--tier", &path("letter"), "--tier-size", "1G"], vec!["letter"]),
        (vec!["--tier", &path(""), "--tier-size", "1G"], vec!["directory"]),
    ] {
        let output = tmem(&["serve", "--http", "off", "--pool-size", "8M", "--runtime-dir", &run])
            .args(&arguments)
            .output()
            .expect("tmem");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(mentions.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("tmem: ")).count(), 1, "{said}");
    }
    assert_eq!(fs::read(path("letter")).expect("the file"), vec![b'x'; 1 << 20]);
}

#[test]
fn two_daemons_do_not_share_a_tier() {
    let home = tempfile::tempdir().expect("directory");
    let tier = home.path().join("tier");
    let _first = serve(&tier, &[]);
    let run = home.path().join("run").display().to_string();
    let arguments =
        ["serve", "--http", "off", "--pool-size", "8M", "--runtime-dir", &run, "--tier-size", "64M"];
    let output = tmem(&arguments).arg("--tier").arg(&tier).output().expect("tmem");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&tier.display().to_string()) && said.contains("in use"), "{said}");
}
