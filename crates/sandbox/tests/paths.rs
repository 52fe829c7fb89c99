//! Files, sockets and signals: what a confined process reaches, and what it does not.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{PermissionsExt, symlink},
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::PathBuf,
};

use common::{call, confined, is_root, refused};
use libc::{EACCES, ENOENT, EPERM};
use tempfile::TempDir;
use tmem_sandbox::{Capabilities, Capability, Confinement, PathAccess, PathWall, User};

/// A directory with one of each: to read, to write, and out of reach.
struct Places {
    _home: TempDir,
    readable: PathBuf,
    writable: PathBuf,
    outside: PathBuf,
}

impl Places {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let place = home.path().join(name);
            fs::create_dir(&place).unwrap();
            fs::write(place.join("file"), name).unwrap();
            place
        };
        let [readable, writable, outside] = ["readable", "writable", "outside"].map(make);
        Self { _home: home, readable, writable, outside }
    }

    fn confinement(&self) -> Confinement {
        Confinement {
            paths: vec![
                (self.readable.clone(), PathAccess::Read),
                (self.writable.clone(), PathAccess::Write),
            ],
            ..Confinement::default()
        }
    }
}

#[test]
fn files_are_reached_as_far_as_was_said() {
    let places = Places::new();
    let open = File::open(places.outside.join("file")).unwrap();
    confined(&places.confinement(), |confined| {
        if confined.paths == PathWall::Absent {
            return;
        }
        let file = |place: &PathBuf| place.join("file");
        let write = |path: PathBuf| OpenOptions::new().write(true).open(path);
        for place in [&places.readable, &places.writable] {
            fs::read(file(place)).unwrap();
            assert_eq!(fs::read_dir(place).unwrap().count(), 1);
        }
        assert_eq!(refused(write(file(&places.readable))), Some(EACCES));
        assert_eq!(refused(fs::write(places.readable.join("new"), "")), Some(EACCES));

        fs::write(file(&places.writable), "written").unwrap();
        assert_eq!(refused(fs::write(places.writable.join("new"), "")), Some(EACCES));

        assert_eq!(refused(fs::read(file(&places.outside))), Some(EACCES));
        assert_eq!(refused(fs::read_dir(&places.outside)), Some(EACCES));
        assert_eq!(refused(fs::read("/etc/passwd")), Some(EACCES));
        assert_eq!(refused(write("/dev/null".into())), Some(EACCES));
        assert_eq!(refused(fs::read("/proc/self/status")), Some(EACCES));
        assert_eq!(refused(fs::read("/no/such/file")), Some(ENOENT));
        // What was open stays open.
        assert_eq!(std::io::read_to_string(&open).unwrap(), "outside");
    });
}

#[test]
fn paths_that_are_not_there_are_said() {
    let places = Places::new();
    let missing = places.writable.join("later");
    let mut confinement = places.confinement();
    confinement.paths =
        vec![(missing.clone(), PathAccess::Write), (places.readable.join("file"), PathAccess::Read)];
    confined(&confinement, |confined| {
        assert_eq!(confined.missing, [missing]);
        fs::read(places.readable.join("file")).unwrap();
    });
}

/// Nothing is made or removed, not even where it may write, and whether or not the kernel has Landlock.
#[test]
fn files_stay_as_they_are_called() {
    let places = Places::new();
    confined(&places.confinement(), |_| {
        let (file, new) = (places.writable.join("file"), places.writable.join("new"));
        let attempts: [(&str, io::Result<()>); 7] = [
            ("remove", fs::remove_file(&file)),
            ("rename", fs::rename(&file, &new)),
            ("link", fs::hard_link(&file, &new)),
            ("symlink", symlink("/", &new)),
            ("directory", fs::create_dir(&new)),
            ("mode", fs::set_permissions(&file, fs::Permissions::from_mode(0o666))),
            ("socket", UnixListener::bind(&new).map(drop)),
        ];
        for (what, attempt) in attempts {
            assert_eq!(refused(attempt), Some(EPERM), "{what}");
        }
        assert_eq!(fs::read_dir(&places.writable).unwrap().count(), 1);
    });
}

/// Where it reads its own `/proc`, it can't read that of others, whoever it is.
#[test]
fn other_processes_are_out_of_reach() {
    let confinement =
        Confinement { paths: vec![("/proc".into(), PathAccess::Read)], ..Confinement::default() };
    let parent = std::process::id();
    confined(&confinement, |confined| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("Threads:\t1"), "{status}");
        fs::read("/proc/self/maps").unwrap();
        fs::read("/proc/meminfo").unwrap();
        assert!(OpenOptions::new().write(true).open("/proc/self/mem").is_err());
        if confined.paths != PathWall::Absent {
            for file in ["mem", "maps", "environ", "fd/0"] {
                let result = File::open(format!("/proc/{parent}/{file}"));
                assert_eq!(refused(result), Some(EACCES), "{file}");
            }
            assert_eq!(refused(fs::write("/proc/sys/kernel/core_pattern", "|/bin/sh")), Some(EACCES));
        }
        for signal in [0, libc::SIGKILL] {
            assert_eq!(call(libc::SYS_kill, [parent.into(), signal as u64, 0, 0, 0]), Some(EPERM));
            assert_eq!(
                call(libc::SYS_tgkill, [parent.into(), parent.into(), signal as u64, 0, 0]),
                Some(EPERM)
            );
        }
    });
}

#[test]
fn it_can_be_reached_by_tcp_and_reaches_nobody() {
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside.local_addr().unwrap();
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    confined(&Confinement::default(), |confined| {
        given.set_nonblocking(true).unwrap();
        assert_eq!(refused(given.accept()), Some(libc::EAGAIN));
        // Neither at an address of its choice nor by a name that others know.
        assert_eq!(refused(TcpListener::bind("127.0.0.1:0")), Some(EPERM));
        let name = SocketAddr::from_abstract_name("tmem-sandbox-inside").unwrap();
        assert_eq!(refused(UnixListener::bind_addr(&name)), Some(EPERM));
        // Landlock knows TCP since version 4.
        if matches!(confined.paths, PathWall::Partial(4..) | PathWall::Whole(_)) {
            assert_eq!(refused(TcpStream::connect(address)), Some(EACCES));
        }
    });
    outside.set_nonblocking(true).unwrap();
    assert_eq!(refused(outside.accept()), Some(libc::EAGAIN));
}

#[test]
fn abstract_sockets_are_reached_if_asked_for() {
    let name = format!("tmem-sandbox-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let _outside = UnixListener::bind_addr(&address).unwrap();
    for abstract_sockets in [false, true] {
        let confinement = Confinement { abstract_sockets, ..Confinement::default() };
        confined(&confinement, |confined| {
            // Landlock knows them since version 6.
            let can_forbid = matches!(confined.paths, PathWall::Partial(6..) | PathWall::Whole(_));
            let expected = (can_forbid && !abstract_sockets).then_some(EPERM);
            assert_eq!(refused(UnixStream::connect_addr(&address)), expected);
        });
    }
}

#[test]
fn other_hosts_are_connected_to_if_asked_for_and_ports_remain_closed() {
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside.local_addr().unwrap();
    let confinement = Confinement { tcp_connections: true, ..Confinement::default() };
    confined(&confinement, |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, b"x").unwrap();
        assert_eq!(refused(TcpListener::bind("127.0.0.1:0")), Some(EPERM));
    });
    let (mut stream, mut byte) = (outside.accept().unwrap().0, [0]);
    std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

/// A capability to open any file is one to open files at these paths.
#[test]
fn a_capability_to_open_files_ends_at_the_wall() {
    if !is_root() {
        return;
    }
    let places = Places::new();
    for place in [&places.writable, &places.outside] {
        fs::set_permissions(place, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(place.join("file"), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let mut confinement = places.confinement();
    confinement.user = Some(User::named("nobody").unwrap());
    confined(&confinement, |confined| {
        assert_eq!(confined.capabilities, Some(Capabilities::NONE));
        assert_eq!(refused(fs::read(places.writable.join("file"))), Some(EACCES));
    });
    confinement.capabilities = Capabilities::NONE.with(Capability::DacOverride);
    confined(&confinement, |confined| {
        assert_eq!(confined.capabilities, Some(confinement.capabilities));
        fs::write(places.writable.join("file"), "").unwrap();
        if confined.paths == PathWall::Absent {
            return;
        }
        assert_eq!(refused(fs::read(places.outside.join("file"))), Some(EACCES));
        assert_eq!(refused(fs::read("/etc/shadow")), Some(EACCES));
    });
}
