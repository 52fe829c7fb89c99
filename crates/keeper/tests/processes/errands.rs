//! What the keeper does with paths and addresses.

use std::{
    fs,
    io::Read,
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    time::Instant,
};

use crate::{
    puppet::PATIENCE,
    stage::{self, Stage},
};

pub fn sockets() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let at = stage.path("s");
    assert_eq!(worker.asks(&format!("bind 660 {}", at.display())), "made");
    assert_eq!(fs::metadata(&at).unwrap().mode() & 0o777, 0o660);
    UnixStream::connect(&at).unwrap();
    worker.dies("abort");
    // The errand's process may have yet to end, and the worker to close all that it had.
    let start = Instant::now();
    while UnixStream::connect(&at).is_ok() {
        assert!(start.elapsed() < PATIENCE, "somebody listens");
        std::thread::yield_now();
    }

    let mut worker = stage.worker();
    worker.asks("take");
    assert_eq!(worker.asks(&format!("bind 600 {}", at.display())), "replaced");
    let again = worker.asks(&format!("bind 600 {}", at.display()));
    assert!(again.contains("in use"), "{again}");
    // What one worker made, another removes.
    worker.dies("abort");
    let mut worker = stage.worker();
    worker.asks("take");
    assert_eq!(worker.asks(&format!("unbind {}", at.display())), "");
    assert!(!at.exists());
    assert!(worker.asks(&format!("unbind {}", at.display())).contains("No such file"));
    // More of them than there may be at one time, and nothing is left of any.
    for round in 0..200 {
        let at = stage.path(&format!("s{round}"));
        assert_eq!(worker.asks(&format!("bind 600 {}", at.display())), "made");
        assert_eq!(worker.asks(&format!("unbind {}", at.display())), "");
        assert!(!at.exists());
    }
    assert!(worker.asks("bind-tcp 127.0.0.1:0").starts_with("127.0.0.1:"));
    assert!(worker.asks("bind-tcp 192.0.2.1:1").contains("assign"));
    stage.children_are(1);
    stage.serves(&mut worker);
}

pub fn others_files() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let at = stage.path("others");
    let bind = format!("bind 600 {}", at.display());
    let unbind = format!("unbind {}", at.display());
    fs::write(&at, "precious").unwrap();
    assert!(worker.asks(&bind).contains("non-socket"));
    assert!(worker.asks(&unbind).contains("No such file"));
    assert_eq!(fs::read(&at).unwrap(), b"precious");
    fs::remove_file(&at).unwrap();

    let live = UnixListener::bind(&at).unwrap();
    assert!(worker.asks(&bind).contains("in use"));
    assert!(worker.asks(&unbind).contains("No such file"));
    assert!(at.exists());
    // Nor where it once had its own.
    drop(live);
    assert_eq!(worker.asks(&bind), "replaced");
    fs::remove_file(&at).unwrap();
    let _live = UnixListener::bind(&at).unwrap();
    worker.asks(&unbind);
    UnixStream::connect(&at).unwrap();

    for path in ["", "/", ".", "no/such/directory/s", &"x".repeat(108)] {
        let said = worker.asks(&format!("bind 600 {path}"));
        assert!(said.contains("os error"), "{path}: {said}");
    }
    stage.serves(&mut worker);
}

pub fn tier() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    let (make, look, direct) =
        (libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, libc::O_PATH, libc::O_RDWR | libc::O_DIRECT);
    assert!(worker.asks(&format!("open-tier {look}")).contains("No such file"));
    worker.asks(&format!("open-tier {make}"));
    assert_eq!(fs::metadata(stage.path(stage::TIER)).unwrap().mode() & 0o777, 0o600);
    assert!(worker.asks(&format!("open-tier {make}")).contains("exists"));
    assert_eq!(worker.asks(&format!("open-tier {look}")), "false");
    assert_eq!(worker.asks(&format!("open-tier {direct}")), "true");
    for flags in [libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC | direct, libc::O_RDWR | libc::O_CREAT, -1] {
        let said = worker.asks(&format!("open-tier {flags}"));
        assert!(said.contains("not permitted"), "{flags}: {said}");
    }
    stage.serves(&mut worker);
}

/// A pipe that nobody writes to is as good as a disk that does not answer.
pub fn hung_tier() {
    let mut stage = Stage::new(5);
    let mut worker = stage.serving();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        stage.path(stage::TIER),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let mut guest = stage.guest(&mut worker, "disk");
    worker.tells(&format!("open-tier {}", libc::O_RDONLY | libc::O_DIRECT));
    stage.children_are(2);
    // The keeper goes on meanwhile, and what it closes is closed: the process that waits has nothing of its.
    stage::says(&guest, &[[8, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0].as_slice(), &[0; 8]].concat(), 0);
    stage::says(&guest, &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 0);
    guest.read_exact(&mut [0; 20]).unwrap();
    stage::says(&guest, &[[5, 0, 0, 0, 1, 0, 0, 0, 0x88, 0x13, 0, 0].as_slice(), &[0; 5000]].concat(), 0);
    assert!(!stage::is_connected(&guest));
    assert!(worker.answer().contains("timed out"));
    let another = worker.asks(&format!("open-tier {}", libc::O_PATH));
    assert!(another.contains("timed out"), "one at a time: {another}");
    let at = stage.path("s");
    assert_eq!(worker.asks(&format!("bind 600 {}", at.display())), "made");
    // It does not outlive the keeper, nor does anything that it has hold the keeper's end up.
    stage.serves(&mut worker);
}
