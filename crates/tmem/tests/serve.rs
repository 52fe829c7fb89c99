//! `tmem serve`: starting, owning its directory, ending.

mod common;

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixDatagram, UnixListener},
    },
    process::Stdio,
};

use common::{Daemon, Killed, Ran, run, tmem};

#[test]
fn starts_with_no_file_and_says_where_it_listens() {
    let daemon = Daemon::start();
    let admin = daemon.path("admin.sock");
    assert!(daemon.ready_line.contains(&admin), "{}", daemon.ready_line);
    assert!(
        daemon.ready_line.contains(&format!("http://{}/", daemon.http_address())),
        "{}",
        daemon.ready_line
    );
    assert!(daemon.ready_line.contains("pool limit 64.0M"), "{}", daemon.ready_line);
    let mode = fs::metadata(&admin).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(daemon.status()["pid"], daemon.pid());
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[test]
fn auto_is_what_the_host_can_spare() {
    let text = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let total = meminfo(&text, "MemTotal").expect("MemTotal");
    let daemon = Daemon::start_with(&[]);
    assert!(daemon.ready_line.contains("what the host can spare"), "{}", daemon.ready_line);
    let limit = || daemon.status()["pool"]["limit_bytes"].as_u64().expect("limit");
    // Whatever else happens on the host: no more than all but the reserve, 1/16 of it here, and not nothing.
    assert!(limit() > 1 << 20 && limit() <= total - (total / 16).min(4 << 30), "{} of {total}", limit());

    // A reserve that the host does not have by far leaves the least that a pool can be.
    let reserve = format!("--reserve={}", total - 4096);
    let daemon = Daemon::start_with(&[&reserve]);
    assert_eq!(daemon.status()["pool"]["limit_bytes"], 1 << 20);

    run(&["serve", "--reserve", "64T"]).fails(2, &["reserve 64T", "auto"]);
    run(&["serve", "--reserve", "most"]).fails(2, &["most"]);
}

#[test]
fn the_kernel_kills_others_first() {
    let chosen = |daemon: &Daemon| {
        [daemon.pid(), daemon.worker()].map(|process| {
            let path = format!("/proc/{process}/oom_score_adj");
            fs::read_to_string(path).expect("oom_score_adj").trim().to_owned()
        })
    };
    let own = "/proc/self/oom_score_adj";
    let may_lower = fs::write(own, "-1").and_then(|()| fs::write(own, "0")).is_ok();
    assert_eq!(chosen(&Daemon::start()), if may_lower { ["-1000", "-900"] } else { ["0", "0"] });
    // Daemons inherit what whoever starts them has, and leave it if that is not the default.
    fs::write(own, "100").expect("anybody may raise it");
    assert_eq!(chosen(&Daemon::start()), ["100", "100"]);
}

#[test]
fn sigterm_and_sigint_end_it_cleanly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut daemon = Daemon::start();
        let disk = daemon.add("vm1", "16M");
        let admin = daemon.path("admin.sock");
        assert!(fs::metadata(&disk).expect("disk socket").file_type().is_socket());
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{signal}");
        assert!(!fs::exists(&admin).expect("look") && !fs::exists(&disk).expect("look"), "{signal}");
    }
}

#[test]
fn a_second_daemon_in_the_same_directory_is_told_whose_it_is() {
    let daemon = Daemon::start();
    daemon.add("vm1", "16M");
    let before = daemon.state();
    daemon
        .run(&["serve", "--http", "off", "--pool-size", "64M"])
        .fails(1, &[&daemon.pid().to_string(), daemon.dir.to_str().expect("UTF-8"), "--runtime-dir"]);
    assert_eq!(daemon.state(), before);
}

#[test]
fn a_killed_daemon_is_in_nobodys_way() {
    let home = tempfile::tempdir().expect("directory");
    let dir = home.path().join("run");
    let mut first = Daemon::start_in(&dir, &["--pool-size", "64M"]);
    let disk = first.add("vm1", "16M");
    first.signal(libc::SIGKILL);
    first.wait();
    assert!(fs::exists(first.path("admin.sock")).expect("look"), "the stale socket is there");
    let second = Daemon::start_in(&dir, &["--pool-size", "64M"]);
    assert_eq!(second.status()["clients"].as_array().map(Vec::len), Some(0));
    assert_eq!(second.add("vm1", "16M"), disk, "its disk's stale socket is not in the way either");
}

#[test]
fn without_a_daemon_commands_say_how_to_start_one() {
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path().to_str().expect("UTF-8");
    for command in
        [&["status"][..], &["disk", "ls"], &["disk", "rm", "a"], &["guest-config", "a", "--vmm", "qemu"]]
    {
        let mut line = vec!["--runtime-dir", dir];
        line.extend(command);
        run(&line).fails(1, &[dir, "tmem serve"]);
    }
    // A socket nobody listens on any more is no daemon either.
    drop(UnixListener::bind(format!("{dir}/admin.sock")).expect("bind"));
    run(&["status", "--runtime-dir", dir]).fails(1, &[dir, "tmem serve"]);
}

#[test]
fn the_runtime_dir_is_taken_before_and_after_every_command() {
    let daemon = Daemon::start();
    let dir = daemon.dir.to_str().expect("UTF-8");
    for line in [
        &["--runtime-dir", dir, "status"][..],
        &["status", "--runtime-dir", dir],
        &["--runtime-dir", dir, "disk", "ls"],
        &["disk", "--runtime-dir", dir, "ls"],
        &["disk", "ls", "--runtime-dir", dir],
    ] {
        run(line).ok();
    }
}

#[test]
fn the_configuration_file_holds_and_flags_win() {
    let home = tempfile::tempdir().expect("directory");
    let socket = home.path().join("vm1.sock");
    let file = home.path().join("tmem.toml");
    let text = format!(
        "pool-size = \"48M\"\nhttp = \"off\"\nlog-level = \"warn\"\n[[disk]]\nname = \"vm1\"\nsize = \"32M\"\nvhost-user = {socket:?}\ncap = \"8M\"\n"
    );
    fs::write(&file, text).expect("write");
    let file = file.to_str().expect("UTF-8");
    let daemon = Daemon::start_with(&["--config", file, "--pool-size", "64M"]);
    let status = daemon.status();
    assert_eq!(status["pool"]["limit_bytes"], 64 << 20, "the flag wins");
    let client = &status["clients"][0];
    assert_eq!((client["name"].as_str(), client["cap_bytes"].as_u64()), (Some("vm1"), Some(8 << 20)));
    assert_eq!(client["disk"]["size_bytes"], 32 << 20);
}

#[test]
fn a_wrong_configuration_starts_nothing() {
    let home = tempfile::tempdir().expect("directory");
    let file = home.path().join("tmem.toml");
    let dir = home.path().join("run");
    let serve = || {
        Ran::new(
            tmem(&["serve", "--http", "off", "--log-level", "error", "--config"])
                .arg(&file)
                .arg("--runtime-dir")
                .arg(&dir),
        )
    };
    serve().fails(1, &["tmem.toml", "--config"]);
    for (text, mentions) in [
        ("pool-sise = \"4G\"", ["pool-sise", "line 1"]),
        ("pool-size = \"4X\"", ["4X", "line 1"]),
        ("pool-size = \"64T\"", ["64T", "auto"]),
        ("[[disk]]\nname = \"a\"\nsize = \"5000\"\nvhost-user = \"/a\"", ["disk a", "at least 1M"]),
    ] {
        fs::write(&file, text).expect("write");
        serve().fails(2, &mentions);
    }
    assert!(!dir.exists(), "nothing was made");

    // A disk that cannot be made stops the start, and leaves no sockets behind.
    let good = home.path().join("good.sock");
    fs::write(
        &file,
        format!(
            "[[disk]]\nname = \"good\"\nsize = \"2M\"\nvhost-user = {good:?}\n\
             [[disk]]\nname = \"bad\"\nsize = \"2M\"\nvhost-user = \"/nowhere/at/all/bad.sock\"\n"
        ),
    )
    .expect("write");
    serve().fails(1, &["disk bad", "/nowhere/at/all"]);
    assert!(!good.exists() && !dir.join("admin.sock").exists());
}

#[test]
fn nonsense_flags_are_wrong_usage() {
    let dir = tempfile::tempdir().expect("directory");
    let dir = dir.path().to_str().expect("UTF-8");
    for (flags, mentions) in [
        (&["--pool-size", "4X"][..], &["4X", "--pool-size"][..]),
        (&["--pool-size", "0"], &["--pool-size", "auto"]),
        (&["--pool-size", "1.5G"], &["1536M"]),
        (&["--pool-size", "8E"], &["8E", "this host has"]),
        (&["--http", "everywhere"], &["everywhere", "127.0.0.1:7780", "off"]),
        (&["--poll-us", "-1"], &["-1", "microseconds"]),
        (&["--poll-us", "soon"], &["soon", "microseconds"]),
        (&["--recompress", "maybe"], &["maybe", "on or off"]),
        (&["--recompress-age", "-1"], &["-1", "seconds"]),
        (&["--recompress-level", "20"], &["20", "1 to 19"]),
        (&["--background-cpu", "0"], &["percent", "1 to 100"]),
        (&["--log-level", "loud"], &["loud", "debug"]),
        (&["--nonsense"], &["--nonsense", "tmem serve --help"]),
    ] {
        let mut line = vec!["serve", "--runtime-dir", dir];
        line.extend(flags);
        run(&line).fails(2, mentions);
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().to_str().expect("UTF-8");
    run(&["serve", "--pool-size", "64M", "--runtime-dir", path, "--http", &address])
        .fails(1, &[&address, "--http off"]);
    assert!(!dir.path().join("admin.sock").exists());
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_ends() {
    let home = tempfile::tempdir().expect("directory");
    let target = home.path().join("notify");
    let socket = UnixDatagram::bind(&target).expect("bind");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("timeout");
    let child = tmem(&["serve", "--http", "off", "--pool-size", "64M", "--runtime-dir"])
        .arg(home.path().join("run"))
        .env("NOTIFY_SOCKET", &target)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("serve");
    let mut child = Killed(Some(child));
    let daemon = child.0.as_mut().expect("child");
    let receive = || loop {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("notification");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // What is held is its own business.
        if !text.starts_with("FDSTORE") {
            return text;
        }
    };
    let ready = receive();
    assert!(
        ready.starts_with("READY=1\nSTATUS=admin socket ") && ready.contains("pool limit 64.0M"),
        "{ready}"
    );
    common::send(daemon.id(), libc::SIGTERM);
    assert!(receive().starts_with("STOPPING=1\n"));
    assert_eq!(daemon.wait().expect("wait").code(), Some(0));
}

#[test]
fn without_any_runtime_dir_the_way_out_is_named() {
    // Root has /run/tmem; only another user needs XDG_RUNTIME_DIR.
    if fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).expect("proc") == 0 {
        run(&["status", "--runtime-dir", "/nowhere/tmem"]).fails(1, &["/nowhere/tmem/admin.sock"]);
    } else {
        Ran::new(tmem(&["status"]).env_remove("XDG_RUNTIME_DIR"))
            .fails(1, &["XDG_RUNTIME_DIR", "--runtime-dir"]);
    }
}
