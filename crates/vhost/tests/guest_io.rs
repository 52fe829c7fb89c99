//! A guest's requests over the real socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod guest;

use std::time::{Duration, Instant};

use guest::*;
use tmem_transport::PollLimit;
use tmem_vhost::{VhostFrontend, VhostOptions};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

struct Rig {
    directory: tempfile::TempDir,
    frontend: VhostFrontend,
    limit: PollLimit,
}

impl Rig {
    fn new(poll_us: u32) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let limit = PollLimit::from_us(poll_us);
        let options =
            VhostOptions { poll_limit: limit.clone(), ..VhostOptions::new(directory.path().join("s")) };
        let frontend = VhostFrontend::start(disk(&store(), "test-disk"), options).unwrap();
        Rig { directory, frontend, limit }
    }

    fn guest(&self, queues: usize) -> Guest {
        Guest::connect(&self.directory.path().join("s"), queues).unwrap()
    }
}

#[test]
fn every_request_on_every_queue() {
    let rig = Rig::new(1000);
    let mut guest = rig.guest(4);
    for queue in 0..4 {
        let sector = queue as u64 * 1000 * 8;
        let data = pages(queue as u64, 30);
        assert_eq!(guest.read(queue, sector, 8192), [0; 8192]);
        guest.write(queue, sector, &data);
        assert_eq!(guest.read(queue, sector, data.len() as u32), data);
        assert_eq!(guest.request(queue, FLUSH, 0, &[], 0).status, OK);

        let discard = [Guest::range(sector, 8, 0), Guest::range(sector + 16, 16, 0)].concat();
        assert_eq!(guest.request(queue, DISCARD, 0, &discard, 0).status, OK);
        let zero = Guest::range(sector + 80, 8, 1);
        assert_eq!(guest.request(queue, WRITE_ZEROES, 0, &zero, 0).status, OK);
        let mut expected = data.clone();
        expected[..4096].fill(0);
        expected[2 * 4096..4 * 4096].fill(0);
        expected[10 * 4096..11 * 4096].fill(0);
        assert_eq!(guest.read(queue, sector, data.len() as u32), expected);

        let id = guest.request(queue, GET_ID, 0, &[], 20);
        assert_eq!((id.status, id.used_len), (OK, 21));
        assert_eq!(id.data, b"test-disk\0\0\0\0\0\0\0\0\0\0\0");
    }
    let counts = rig.frontend.counts();
    assert_eq!((counts.bad_requests, counts.failed_requests, counts.broken_queues), (0, 0, 0));
    assert_eq!(counts.requests, 4 * 8);
}

#[test]
fn wrong_requests_get_an_error_and_the_next_one_works() {
    let rig = Rig::new(0);
    let mut guest = rig.guest(1);
    let end = (64 << 20) / 512;
    let block = pages(1, 1);
    let long = vec![0; 65 * 16];
    // Name, type, sector, data for the device, bytes from the device, status.
    type Case<'a> = (&'a str, u32, u64, &'a [u8], u32, u8);
    let cases: &[Case<'_>] = &[
        ("read at the end", READ, end, &[], 4096, IOERR),
        ("read across the end", READ, end - 8, &[], 8192, IOERR),
        ("write far beyond the end", WRITE, u64::MAX / 512, &block, 0, IOERR),
        ("sector that overflows", READ, u64::MAX, &[], 4096, IOERR),
        ("unaligned sector", READ, 1, &[], 4096, IOERR),
        ("part of a sector", READ, 0, &[], 100, IOERR),
        ("part of a block", READ, 0, &[], 512, IOERR),
        ("read of nothing", READ, 0, &[], 0, IOERR),
        ("read with data to write", READ, 0, &block, 4096, IOERR),
        ("write with data to read", WRITE, 0, &block, 4096, IOERR),
        ("write of nothing", WRITE, 0, &[], 0, IOERR),
        ("flush with data", FLUSH, 0, &block, 0, IOERR),
        ("short id", GET_ID, 0, &[], 19, IOERR),
        ("discard of nothing", DISCARD, 0, &[], 0, IOERR),
        ("half a range", DISCARD, 0, &[0; 24], 0, IOERR),
        ("too many ranges", DISCARD, 0, &long, 0, IOERR),
        ("discard with a flag", DISCARD, 0, &Guest::range(0, 8, 1), 0, UNSUPP),
        ("write zeroes with a bad flag", WRITE_ZEROES, 0, &Guest::range(0, 8, 2), 0, UNSUPP),
        ("range beyond the end", WRITE_ZEROES, 0, &Guest::range(end, 8, 0), 0, IOERR),
        ("range that overflows", DISCARD, 0, &Guest::range(u64::MAX, 8, 0), 0, IOERR),
        ("range too long", DISCARD, 0, &Guest::range(0, u32::MAX, 0), 0, IOERR),
        ("unknown type", 99, 0, &[], 4096, UNSUPP),
        ("secure erase", 14, 0, &Guest::range(0, 8, 0), 0, UNSUPP),
    ];
    for (name, kind, sector, out, in_bytes, status) in cases {
        let answer = guest.request(0, *kind, *sector, out, *in_bytes);
        assert_eq!((answer.status, answer.used_len), (*status, 1), "{name}");
        guest.write(0, 80, &block);
        assert_eq!(guest.read(0, 80, 4096), block, "after {name}");
    }
    let counts = rig.frontend.counts();
    assert_eq!(counts.bad_requests + counts.failed_requests, cases.len() as u64);
}

#[test]
fn configuration_space_over_the_socket() {
    let rig = Rig::new(0);
    let mut guest = rig.guest(1);
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, bytes) = guest.frontend.get_config(0, 60, flags, &[0; 60]).unwrap();
    assert_eq!(bytes[..8], ((64u64 << 20) / 512).to_le_bytes());
    assert_eq!(bytes[34], 4);
    let (_, bytes) = guest.frontend.get_config(34, 2, flags, &[0; 2]).unwrap();
    assert_eq!(bytes, [4, 0]);
}

/// The device turns kicks off and on all the time here. A lost one would leave a request waiting.
#[test]
fn no_kick_is_lost() {
    for event_idx in [true, false] {
        for poll_us in [0, 30, 1000] {
            let rig = Rig::new(poll_us);
            let socket = rig.directory.path().join("s");
            let mut guest = Guest::connect_with(&socket, 1, event_idx).unwrap();
            guest.prepare(0, READ, 0, &[], 4096);
            for round in 0..3000u32 {
                guest.offer(0, 0);
                let answered = guest.wait(0, Duration::from_secs(20));
                assert!(answered, "round {round}, event index {event_idx}, poll limit {poll_us} us");
                // Pauses around the polling window, where the thread is just about to sleep.
                let pause = Duration::from_nanos(u64::from(round.wrapping_mul(7919) % 120_000));
                let start = Instant::now();
                while round % 3 == 0 && start.elapsed() < pause {
                    std::hint::spin_loop();
                }
            }
            assert_eq!(rig.frontend.counts().requests, 3000);
        }
    }
}

#[test]
fn a_sleeping_guest_is_called() {
    let rig = Rig::new(50);
    let mut guest = rig.guest(1);
    guest.prepare(0, READ, 0, &[], 4096);
    for round in 0..500 {
        guest.want_call(0);
        guest.offer(0, 0);
        assert!(guest.wait_for_call(0, Duration::from_secs(20)), "round {round}");
        assert!(guest.wait(0, Duration::ZERO));
    }
}

#[test]
fn a_full_ring_is_served_in_order() {
    let rig = Rig::new(100);
    let mut guest = rig.guest(1);
    guest.prepare(0, FLUSH, 0, &[], 0);
    for _ in 0..50 {
        for _ in 0..QUEUE_SIZE {
            guest.offer(0, 0);
        }
        assert!(guest.wait(0, Duration::from_secs(20)));
    }
    assert_eq!(rig.frontend.counts().requests, 50 * u64::from(QUEUE_SIZE));
}

/// GET_VRING_BASE must not wait for the polling window, and nothing is served after its answer.
#[test]
fn a_stopped_ring_stands_still() {
    let rig = Rig::new(5_000_000);
    let mut guest = rig.guest(2);
    guest.write(0, 0, &pages(1, 1));
    guest.write(1, 800, &pages(2, 1));
    for round in 0..20 {
        let start = Instant::now();
        let base = guest.frontend.get_vring_base(0).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "waited {:?}", start.elapsed());
        assert_eq!(base, u32::from(guest.used_index(0)), "round {round}");
        guest.prepare(0, READ, 0, &[], 4096);
        guest.offer(0, 0);
        assert!(!guest.wait(0, Duration::from_millis(20)), "a stopped ring was served");
        assert_eq!(guest.read(1, 800, 4096), pages(2, 1), "the other queue goes on");
        // Started again where it stood, it serves what came meanwhile, kick or no kick.
        guest.configure(0, base as u16);
        assert!(guest.wait(0, Duration::from_secs(20)));
        assert_eq!(guest.answer(0, 4096).data, pages(1, 1));
    }
    rig.limit.set_us(0);
}

#[test]
fn a_stopped_ring_stands_still_under_load() {
    let rig = Rig::new(1000);
    let mut guest = rig.guest(1);
    guest.prepare(0, READ, 0, &[], 65536);
    for round in 0..50 {
        for _ in 0..QUEUE_SIZE {
            guest.offer(0, 0);
        }
        let base = guest.frontend.get_vring_base(0).unwrap() as u16;
        assert_eq!(base, guest.used_index(0), "round {round}");
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(base, guest.used_index(0), "round {round}: served after the answer");
        guest.configure(0, base);
        assert!(guest.wait(0, Duration::from_secs(20)));
    }
}

#[test]
fn disabling_a_ring_stops_it_and_enabling_wakes_it() {
    let rig = Rig::new(1000);
    let mut guest = rig.guest(1);
    guest.prepare(0, FLUSH, 0, &[], 0);
    for _ in 0..20 {
        guest.frontend.set_vring_enable(0, false).unwrap();
        guest.offer(0, 0);
        assert!(!guest.wait(0, Duration::from_millis(5)));
        guest.frontend.set_vring_enable(0, true).unwrap();
        assert!(guest.wait(0, Duration::from_secs(20)));
    }
}

#[test]
fn memory_may_be_replaced_while_the_rings_run() {
    let rig = Rig::new(1_000_000);
    let mut guest = rig.guest(2);
    for round in 0..50 {
        guest.write(0, 8 * round, &pages(round, 1));
        guest.share_memory();
        assert_eq!(guest.read(1, 8 * round, 4096), pages(round, 1));
    }
    rig.limit.set_us(0);
}

#[test]
fn a_ring_that_makes_no_sense_is_left_alone_until_it_is_reset() {
    for case in 0..2 {
        let rig = Rig::new(100);
        let mut guest = rig.guest(2);
        guest.always_kick = true;
        guest.write(0, 0, &pages(3, 1));
        if case == 0 {
            // More requests than entries.
            let next = guest.used_index(0).wrapping_add(QUEUE_SIZE + 1);
            guest.set_available(0, next);
            guest.kick_if_wanted(0);
        } else {
            // A head beyond the table.
            guest.offer(0, QUEUE_SIZE);
        }
        let start = Instant::now();
        while rig.frontend.counts().broken_queues == 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!guest.wait(0, Duration::from_millis(20)));
        guest.prepare(0, FLUSH, 0, &[], 0);
        guest.offer(0, 0);
        assert!(!guest.wait(0, Duration::from_millis(20)), "a broken queue was served");
        assert_eq!(guest.read(1, 0, 4096), pages(3, 1), "the other queue goes on");
        guest.frontend.get_vring_base(0).unwrap();
        guest.start_queue(0);
        assert_eq!(guest.read(0, 0, 4096), pages(3, 1), "a new ring works");
        assert_eq!(rig.frontend.counts().broken_queues, 1);
    }
}
