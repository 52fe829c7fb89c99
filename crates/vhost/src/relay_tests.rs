//! The relay between two sockets of the test.

use std::io::{Read, Write};
use std::time::Duration;

use super::*;

fn message(code: u32, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [code, 1, payload.len() as u32] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(payload);
    message
}

/// A memory table that names `named` regions and has room for `room`.
fn table(named: u32, room: usize) -> Vec<u8> {
    let mut payload = Vec::from(named.to_ne_bytes());
    payload.extend([0; 4]);
    payload.extend((0..room * REGION_BYTES).map(|byte| byte as u8));
    message(SET_MEM_TABLE, &payload)
}

/// The relay, and what the guest and the library would hold.
struct Bench {
    relay: Relay,
    guest: UnixStream,
    library: UnixStream,
}

impl Bench {
    fn new() -> Bench {
        let (guest, guest_side) = UnixStream::pair().unwrap();
        let (library, library_side) = UnixStream::pair().unwrap();
        for end in [&guest, &library] {
            end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Bench { relay: Relay::new(guest_side, library_side).unwrap(), guest, library }
    }

    /// As the frontend's thread does, until nothing more happens.
    fn run(&mut self) -> Result<Flow, RelayError> {
        loop {
            let mut polled = self.relay.poll_set();
            // SAFETY: a valid set of two.
            if unsafe { libc::poll(polled.as_mut_ptr(), 2, 0) } == 0 {
                return Ok(Flow::Open);
            }
            if self.relay.pass_on(&polled)? == Flow::Closed {
                return Ok(Flow::Closed);
            }
        }
    }

    fn library_gets(&mut self, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        self.library.read_exact(&mut got).unwrap();
        got
    }

    fn library_gets_nothing(&mut self) {
        self.library.set_nonblocking(true).unwrap();
        let error = self.library.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        self.library.set_nonblocking(false).unwrap();
    }
}

#[test]
fn messages_pass_unchanged_in_both_directions() {
    let mut bench = Bench::new();
    let request = message(24, b"some payload");
    bench.guest.write_all(&request).unwrap();
    bench.guest.write_all(&message(1, b"")).unwrap();
    assert_eq!(bench.run().unwrap(), Flow::Open);
    assert_eq!(bench.library_gets(request.len()), request);
    assert_eq!(bench.library_gets(HEADER_BYTES), message(1, b""));

    let reply = table(1, 2);
    bench.library.write_all(&reply).unwrap();
    bench.run().unwrap();
    let mut got = vec![0; reply.len()];
    bench.guest.read_exact(&mut got).unwrap();
    assert_eq!(got, reply, "only the guest's tables are cut");
}

#[test]
fn a_memory_table_is_cut_to_its_regions() {
    for (named, room) in [(1, 2), (1, 8), (2, 8), (0, 1)] {
        let mut bench = Bench::new();
        bench.guest.write_all(&table(named, room)).unwrap();
        bench.guest.write_all(&message(1, b"")).unwrap();
        bench.run().unwrap();
        let expected = table(named, named as usize);
        assert_eq!(bench.library_gets(expected.len()), expected);
        assert_eq!(bench.library_gets(HEADER_BYTES), message(1, b""), "the next message is whole");
    }
}

#[test]
fn a_memory_table_that_fits_or_is_too_short_is_left_alone() {
    for table in [table(2, 2), table(3, 1), table(u32::MAX, 1), message(SET_MEM_TABLE, &[1, 0])] {
        let mut bench = Bench::new();
        bench.guest.write_all(&table).unwrap();
        bench.run().unwrap();
        assert_eq!(bench.library_gets(table.len()), table);
    }
}

#[test]
fn descriptors_arrive_with_their_message() {
    let mut bench = Bench::new();
    let (sent, mut other_end) = UnixStream::pair().unwrap();
    let request = table(1, 2);
    // The descriptors come with the first part, the rest of the message later.
    bench.guest.send_with_fds(&[&request[..20]], &[sent.as_raw_fd()]).unwrap();
    drop(sent);
    bench.run().unwrap();
    bench.library_gets_nothing();
    bench.guest.write_all(&request[20..]).unwrap();
    bench.run().unwrap();

    let mut buffer = vec![0; HEADER_BYTES + TABLE_HEADER_BYTES + REGION_BYTES];
    let mut descriptors = Vec::new();
    assert_eq!(receive(&bench.library, &mut buffer, &mut descriptors).unwrap(), buffer.len());
    assert_eq!(descriptors.len(), 1);
    let mut received = UnixStream::from(descriptors.remove(0));
    received.write_all(b"x").unwrap();
    other_end.read_exact(&mut [0]).unwrap();
    // Nobody else holds it: dropped here, it is closed.
    drop(received);
    assert_eq!(other_end.read(&mut [0]).unwrap(), 0);
}

#[test]
fn half_a_message_is_not_passed_on() {
    let mut bench = Bench::new();
    let request = message(24, &[7; 100]);
    for (at, byte) in request.iter().enumerate() {
        bench.library_gets_nothing();
        bench.guest.write_all(&[*byte]).unwrap();
        assert_eq!(bench.run().unwrap(), Flow::Open, "after byte {at}");
    }
    assert_eq!(bench.library_gets(request.len()), request);

    bench.guest.write_all(&request[..50]).unwrap();
    bench.run().unwrap();
    bench.guest.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(bench.run(), Err(RelayError::Half)));
    bench.library_gets_nothing();
}

#[test]
fn a_message_longer_than_any_is_refused() {
    let mut bench = Bench::new();
    let mut header = message(5, b"");
    header[SIZE_AT..].copy_from_slice(&4097u32.to_ne_bytes());
    bench.guest.write_all(&header).unwrap();
    assert!(matches!(bench.run(), Err(RelayError::TooLong { code: 5, bytes: 4097 })));
}

#[test]
fn too_many_descriptors_are_refused_and_closed() {
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    for (first, second) in [(40, 0), (20, 20)] {
        let mut bench = Bench::new();
        let (sent, other_end) = UnixStream::pair().unwrap();
        let request = message(5, &[0; 100]);
        bench.guest.send_with_fds(&[&request[..50]], &vec![sent.as_raw_fd(); first]).unwrap();
        if second > 0 {
            bench.guest.send_with_fds(&[&request[50..]], &vec![sent.as_raw_fd(); second]).unwrap();
        }
        assert!(matches!(bench.run(), Err(RelayError::Descriptors)));
        drop((bench, sent));
        assert_eq!((&other_end).read(&mut [0]).unwrap(), 0, "all copies are closed");
    }
    // Other tests open descriptors meanwhile, but not 40.
    let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(after < before + 40, "{before} descriptors before, {after} after");
}

#[test]
fn a_closed_end_closes_the_relay() {
    let mut bench = Bench::new();
    drop(bench.guest.try_clone().unwrap());
    bench.guest.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(bench.run().unwrap(), Flow::Closed);

    let mut bench = Bench::new();
    bench.library.write_all(&message(1, b"last words")).unwrap();
    bench.library.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(bench.run().unwrap(), Flow::Closed);
    let mut got = vec![0; HEADER_BYTES + 10];
    bench.guest.read_exact(&mut got).unwrap();
    assert_eq!(got, message(1, b"last words"));
}

#[test]
fn a_slow_reader_holds_the_writer_back() {
    let mut bench = Bench::new();
    bench.guest.set_nonblocking(true).unwrap();
    let request = message(24, &[1; 4000]);
    let mut written = 0usize;
    // The library does not read: the sockets' buffers fill, and the relay takes no more than one message.
    let mut refused = 0;
    while refused < 3 {
        match bench.guest.write(&request[written % request.len()..]) {
            Ok(bytes) => written += bytes,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                refused += 1;
            }
        }
        assert_eq!(bench.run().unwrap(), Flow::Open);
    }
    assert!(written < 16 << 20, "{written} bytes were taken");
    // Now it reads, and everything arrives.
    let mut read = 0;
    bench.library.set_nonblocking(true).unwrap();
    while read < written / request.len() * request.len() {
        match bench.library.read(&mut vec![0; 65536]) {
            Ok(bytes) => read += bytes,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        bench.run().unwrap();
    }
    // While the last message waits and the guest is gone, the relay ends instead of spinning.
    let mut written = 0;
    loop {
        match bench.guest.write(&request[written % request.len()..]) {
            Ok(bytes) => written += bytes,
            Err(_) if bench.relay.to_library.sends() => break,
            Err(_) => {}
        }
        bench.run().unwrap();
    }
    bench.guest.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(bench.run().unwrap(), Flow::Closed);
}
