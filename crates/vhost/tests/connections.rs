//! Who may connect, and what happens to those who misbehave on the socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod guest;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::*;
use tmem_transport::SocketError;
use tmem_vhost::{VhostError, VhostFrontend, VhostOptions};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

fn rig() -> (tempfile::TempDir, PathBuf, VhostFrontend) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let frontend = VhostFrontend::start(disk(&store(), "disk"), VhostOptions::new(&socket)).unwrap();
    (directory, socket, frontend)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads until the other side closes. Fails if it does not.
fn closes(mut stream: &UnixStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("still open: {error}"),
        }
    }
}

fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let words = [code, flags, payload.len() as u32].map(u32::to_ne_bytes);
    [words.concat().as_slice(), payload].concat()
}

fn reply(mut stream: &UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut header = [0; 12];
    stream.read_exact(&mut header).unwrap();
    let bytes = u32::from_ne_bytes(header[8..].try_into().unwrap());
    let mut payload = vec![0; bytes as usize];
    stream.read_exact(&mut payload).unwrap();
    payload
}

#[test]
fn one_guest_after_another() {
    let (_directory, socket, frontend) = rig();
    assert!(!frontend.is_connected());
    for round in 0..5 {
        let mut guest = Guest::connect(&socket, 2).unwrap();
        until("connected", || frontend.is_connected());
        if round > 0 {
            assert_eq!(guest.read(1, 0, 4096), pages(round - 1, 1), "the disk outlives the connection");
        }
        guest.write(0, 0, &pages(round, 1));

        let second = UnixStream::connect(&socket).unwrap();
        closes(&second);
        assert_eq!(guest.read(0, 0, 4096), pages(round, 1), "the first guest is not disturbed");
        drop(guest);
        until("the guest is gone", || !frontend.is_connected());
    }
    let counts = frontend.counts();
    assert_eq!((counts.connections, counts.refused_connections, counts.protocol_errors), (5, 5, 0));
    frontend.stop();
    assert!(!socket.exists());
}

/// Five tries: a busy machine may let the second guest wait for too long once.
#[test]
fn a_guest_that_comes_just_before_the_one_before_it_leaves_is_served() {
    let (_directory, socket, _frontend) = rig();
    let served = (0..5u32).any(|_| {
        let first = Guest::connect(&socket, 2).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                drop(first);
            });
            let second = Guest::connect(&socket, 2);
            second.is_ok_and(|mut guest| guest.read(0, 0, 4096) == [0; 4096])
        })
    });
    assert!(served);
}

#[test]
fn stop_ends_a_connection() {
    let (_directory, socket, frontend) = rig();
    let mut guest = Guest::connect(&socket, 4).unwrap();
    guest.write(0, 0, &pages(0, 1));
    frontend.stop();
    assert!(!socket.exists());
    guest.prepare(0, FLUSH, 0, &[], 0);
    guest.offer(0, 0);
    assert!(!guest.wait(0, Duration::from_millis(50)), "served after stop");
}

#[test]
fn a_guest_that_dies_amid_requests_can_come_back() {
    let (_directory, socket, frontend) = rig();
    for _ in 0..20 {
        let mut guest = Guest::connect(&socket, 1).unwrap();
        guest.prepare(0, READ, 0, &[], 65536);
        for _ in 0..QUEUE_SIZE {
            guest.offer(0, 0);
        }
        drop(guest);
        until("the guest is gone", || !frontend.is_connected());
    }
    let mut guest = Guest::connect(&socket, 1).unwrap();
    guest.write(0, 0, &pages(0, 1));
}

#[test]
fn garbage_closes_the_connection_and_nothing_else() {
    let (_directory, socket, frontend) = rig();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let garbage: &[(&str, Vec<u8>)] = &[
        ("zeroes", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        ("text", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("wrong version", message(1, 0, &[])),
        ("unknown request", message(77, 1, &[])),
        ("a reply", message(1, 5, &[])),
        ("body where none belongs", message(1, 1, &[0; 8])),
        ("table of no regions", message(5, 1, &words(&[0, 0]))),
        ("table without descriptors", message(5, 1, &[words(&[1, 0]), vec![0; 32]].concat())),
        ("ring that is not there", message(8, 1, &words(&[200, 16]))),
        ("ring of no entries", message(8, 1, &words(&[0, 0]))),
        ("ring address without memory", message(9, 1, &[0; 40])),
        ("kick without descriptor", message(12, 1, &words(&[0, 0]))),
        ("base of a ring that is not there", message(11, 1, &words(&[99, 0]))),
        ("configuration not agreed on", message(24, 1, &words(&[0, 8, 0]))),
        ("length beyond all", words(&[5, 1, u32::MAX])),
    ];
    for (index, (name, bytes)) in garbage.iter().enumerate() {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // The connection may be closed before everything is written.
        let _ = stream.write_all(bytes);
        closes(&stream);
        until(name, || frontend.counts().protocol_errors == index as u64 + 1);
        until("disconnected", || !frontend.is_connected());
    }
    // Half a message and silence is no error until the peer goes away.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&[1, 0, 0]).unwrap();
    until("connected", || frontend.is_connected());
    drop(stream);
    until("disconnected", || !frontend.is_connected());

    let mut guest = Guest::connect(&socket, 1).unwrap();
    guest.write(0, 0, &pages(0, 1));
}

#[test]
fn random_messages_never_end_the_frontend() {
    let (_directory, socket, frontend) = rig();
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // SAFETY: makes a new descriptor; the test keeps it open to its end.
    let memory = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: a valid descriptor.
    assert_eq!(unsafe { libc::ftruncate(memory, 1 << 20) }, 0);
    for _ in 0..300 {
        let stream = UnixStream::connect(&socket).unwrap();
        // Without protocol features most messages are refused at once.
        let start = [message(3, 1, &[]), message(2, 1, &(1u64 << 30).to_ne_bytes())].concat();
        let _ = (&stream).write_all(&start);
        for _ in 0..10 {
            let code = (random() % 45) as u32;
            let bytes: Vec<u8> = match random() % 3 {
                0 => [1u64, 0, 1 << 20, 0x1000, 0].map(u64::to_ne_bytes).concat(),
                1 => (random() % 4).to_ne_bytes().to_vec(),
                _ => (0..random() % 48).map(|_| random() as u8 & 3).collect(),
            };
            let request = message(code, 1 | (random() % 2 * 8) as u32, &bytes);
            let descriptors = if random() % 2 == 0 { vec![memory] } else { Vec::new() };
            if stream.send_with_fds(&[request.as_slice()], &descriptors).is_err() {
                break;
            }
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        closes(&stream);
        until("disconnected", || !frontend.is_connected());
    }
    let mut guest = Guest::connect(&socket, 1).unwrap();
    guest.write(0, 0, &pages(0, 1));
    assert_eq!(guest.read(0, 0, 4096), pages(0, 1));
}

/// As user-mode Linux does: one region named, room for two.
#[test]
fn a_memory_table_with_room_to_spare_is_taken() {
    let (_directory, socket, frontend) = rig();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&message(1, 1, &[])).unwrap();
    let features = u64::from_ne_bytes(reply(&stream).try_into().unwrap());
    assert!(features & (1 << 30) != 0);
    stream.write_all(&message(2, 1, &features.to_ne_bytes())).unwrap();
    // Protocol features: answers on demand, and the back-end's own channel.
    let protocol = (1u64 << 3) | (1 << 5);
    stream.write_all(&message(16, 1, &protocol.to_ne_bytes())).unwrap();

    let (_ours, theirs) = UnixStream::pair().unwrap();
    stream.send_with_fds(&[message(21, 9, &[]).as_slice()], &[theirs.as_raw_fd()]).unwrap();
    assert_eq!(reply(&stream), 0u64.to_ne_bytes());

    // SAFETY: makes a new descriptor; the test keeps it open to its end.
    let memory = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: a valid descriptor.
    assert_eq!(unsafe { libc::ftruncate(memory, 1 << 20) }, 0);
    let table = [1u64, 0, 1 << 20, 0x7000_0000, 0, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
    assert_eq!(table.len(), 8 + 2 * 32);
    stream.send_with_fds(&[message(5, 9, &table).as_slice()], &[memory]).unwrap();
    assert_eq!(reply(&stream), 0u64.to_ne_bytes(), "the table is accepted");
    until("connected", || frontend.is_connected());
    assert_eq!(frontend.counts().protocol_errors, 0);
    // The channel stays open: a peer that finds it closed gives the device up.
    _ours.set_nonblocking(true).unwrap();
    drop(theirs);
    let error = (&_ours).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn what_is_wrong_with_the_options_is_told() {
    let (_directory, socket, _frontend) = rig();
    let start = |options| VhostFrontend::start(disk(&store(), "disk"), options).err().expect("an error");
    let error = start(VhostOptions::new(&socket));
    assert!(matches!(error, VhostError::Socket(SocketError::InUse { .. })), "{error}");
    assert!(error.to_string().contains(socket.to_str().unwrap()));
    let error = start(VhostOptions { queues: 0, ..VhostOptions::new("/nowhere/s") });
    assert!(matches!(error, VhostError::Queues { .. }), "{error}");
    let error = start(VhostOptions::new("/nowhere/s"));
    assert!(matches!(error, VhostError::Socket(SocketError::NoDirectory { .. })), "{error}");
}
