//! Requests over a real socket, held against a plain array.

mod client;

use client::{Answer, Client, SIZE, Served, request};
use proptest::prelude::*;
use tmem_nbd::Headers;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;
const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;

fn headers() -> impl Strategy<Value = Headers> {
    prop_oneof![Just(Headers::Simple), Just(Headers::Structured), Just(Headers::Extended)]
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 59) as u8
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Requests go out in bursts, so that the server finds several at once, cut anywhere.
    #[test]
    fn r1_an_export_is_what_an_array_is(
        headers in headers(),
        bursts in proptest::collection::vec(
            proptest::collection::vec((0..5u8, 0..SIZE + 5000, 0..70_000u64, any::<u64>()), 1..12), 1..8),
    ) {
        let served = Served::new();
        let mut client = served.open(headers);
        let mut model = vec![0u8; SIZE as usize];
        for burst in bursts {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (number, (kind, offset, len, seed)) in burst.into_iter().enumerate() {
                let fits = offset + len <= SIZE;
                let range = if fits { offset as usize..(offset + len) as usize } else { 0..0 };
                let failed = |error| if fits { 0 } else { error };
                let (command, flags, payload, error) = match kind {
                    0 | 1 => (READ, 0, vec![], failed(EINVAL)),
                    2 => {
                        let payload = noise(len as usize, seed);
                        if fits { model[range.clone()].copy_from_slice(&payload); }
                        (WRITE, if headers == Headers::Extended { 32 } else { FUA }, payload, failed(ENOSPC))
                    }
                    3 => {
                        model[range.clone()].fill(0);
                        (WRITE_ZEROES, if seed % 2 == 0 { NO_HOLE } else { 0 }, vec![], failed(ENOSPC))
                    }
                    _ => {
                        let (first, end) = (range.start.next_multiple_of(4096), range.end / 4096 * 4096);
                        if first < end { model[first..end].fill(0); }
                        (TRIM, 0, vec![], failed(EINVAL))
                    }
                };
                let cookie = 1000 + number as u64;
                bytes.extend(request(headers, command, flags, cookie, offset, len, &payload));
                let data = if command == READ && fits { model[range].to_vec() } else { vec![] };
                let read = (command == READ).then_some((offset, len));
                expected.push((cookie, read, Answer { error, data, extents: vec![] }));
            }
            let mut writer = client.stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || std::io::Write::write_all(&mut writer, &bytes).unwrap());
                for (cookie, read, answer) in expected {
                    assert_eq!(client.answer(read), (cookie, answer));
                }
            });
        }
        let Answer { data, .. } = client.ask(READ, 0, 0, SIZE, &[]);
        prop_assert!(data == model);
    }
}

#[test]
fn long_reads_and_writes_go_through_small_buffers() {
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        let served = Served::new();
        let mut client = served.open(headers);
        let bytes = noise(SIZE as usize - 100, 7);
        assert_eq!(client.ask(WRITE, 0, 50, bytes.len() as u64, &bytes).error, 0);
        let answer = client.ask(READ, 0, 50, bytes.len() as u64, &[]);
        assert!(answer.error == 0 && answer.data == bytes, "{headers:?}");
        if headers != Headers::Simple {
            assert_eq!(client.ask(READ, DF, 0, 1 << 20, &[]).error, EOVERFLOW);
            assert_eq!(client.ask(READ, DF, 0, 64 << 10, &[]).data.len(), 64 << 10);
        }
    }
}

#[test]
fn block_status_tells_holes_zeroes_and_data_apart() {
    for headers in [Headers::Structured, Headers::Extended] {
        let served = Served::new();
        let mut client = served.open(headers);
        assert_eq!(client.ask(WRITE, 0, 8192 + 100, 10, b"0123456789").error, 0);
        assert_eq!(client.ask(WRITE_ZEROES, NO_HOLE, 12288, 8192, &[]).error, 0);
        let all = client.ask(BLOCK_STATUS, 0, 0, SIZE, &[]).extents;
        assert_eq!(all, [(8192, 3), (4096, 0), (8192, 2), (SIZE - 20480, 3)]);
        assert_eq!(client.ask(BLOCK_STATUS, REQ_ONE, 8193, 1000, &[]).extents, [(1000, 0)]);
        assert_eq!(client.ask(BLOCK_STATUS, 0, 0, 0, &[]).error, EINVAL);
        assert_eq!(client.ask(BLOCK_STATUS, 0, SIZE, 1, &[]).error, EINVAL);
    }
}

#[test]
fn more_extents_than_an_answer_takes_are_told_in_turns() {
    let served = Served::new();
    let mut client = served.open(Headers::Extended);
    for page in (0..SIZE / 4096).step_by(2) {
        assert_eq!(client.ask(WRITE, 0, page * 4096, 1, &[1]).error, 0);
    }
    let extents = client.ask(BLOCK_STATUS, 0, 0, SIZE, &[]).extents;
    assert_eq!(extents.iter().map(|extent| extent.0).sum::<u64>(), SIZE);
    assert!(extents.iter().enumerate().all(|(i, extent)| *extent == (4096, if i % 2 == 0 { 0 } else { 3 })));
}

#[test]
fn nonsense_is_refused_and_the_conversation_goes_on() {
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        let served = Served::new();
        let mut client = served.open(headers);
        for (command, flags, offset, len, error) in [
            (READ, 0, SIZE - 1, 2, EINVAL),
            (READ, 0, u64::MAX, 1, EINVAL),
            (READ, 0, 0, 33 << 20, EINVAL),
            (READ, NO_HOLE, 0, 1, EINVAL),
            (TRIM, 0, SIZE, 1, EINVAL),
            (WRITE_ZEROES, 0, SIZE, 1, ENOSPC),
            (5, 0, 0, 1, EINVAL),
            (99, 0, 0, 1, EINVAL),
            (FLUSH, 1 << 14, 0, 0, EINVAL),
        ] {
            let answer = client.ask(command, flags, offset, len, &[]);
            assert_eq!(answer.error, error, "{headers:?}: {command} {flags} {offset} {len}");
        }
        assert_eq!(client.ask(WRITE, 0, SIZE, 3, b"abc").error, ENOSPC);
        assert_eq!(client.ask(WRITE, REQ_ONE, 0, 3, b"abc").error, EINVAL);
        assert_eq!(
            client.ask(READ, DF, 0, 1, &[]).error,
            if headers == Headers::Simple { EINVAL } else { 0 }
        );
        assert_eq!(client.ask(FLUSH, FUA, 0, 0, &[]).error, 0);
        assert_eq!(client.ask(READ, 0, 0, 0, &[]).data, []);
        assert_eq!(client.ask(READ, 0, 0, 4, &[]).data, [0; 4]);
        if headers == Headers::Extended {
            // A payload where none belongs is used up.
            assert_eq!(client.ask(TRIM, 32, 0, 5, b"hello").error, EINVAL);
            assert_eq!(client.ask(FLUSH, 0, 0, 0, &[]).error, 0);
        }
        assert!(served.export.counts().failed_requests >= 10);
    }
}

#[test]
fn what_is_no_request_ends_the_connection_and_no_other() {
    let served = Served::new();
    let mut good = served.open(Headers::Structured);
    for bytes in [
        vec![0xff; 28],
        request(Headers::Extended, READ, 0, 1, 0, 1, &[]),
        request(Headers::Structured, WRITE, 0, 1, 0, 33 << 20, &[]),
    ] {
        let mut bad = served.open(Headers::Structured);
        std::io::Write::write_all(&mut bad.stream, &bytes).unwrap();
        assert!(bad.is_over());
    }
    assert_eq!(good.ask(READ, 0, 0, 1, &[]).error, 0);
    assert_eq!(served.export.counts().protocol_errors, 3);
}

#[test]
fn disconnecting_lets_answers_through() {
    let served = Served::new();
    let mut client = served.open(Headers::Simple);
    client.send(READ, 0, 0, 4096, &[]);
    client.send(DISC, 0, 0, 0, &[]);
    assert_eq!(client.answer(Some((0, 4096))).1.data.len(), 4096);
    assert!(client.is_over());
}

/// All connections see what one wrote, and writers of one page do not lose each other's bytes.
#[test]
fn r1_connections_share_a_disk() {
    const LANES: u64 = 4;
    let served = Served::new();
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let mut client = served.open(Headers::Structured);
            scope.spawn(move || {
                for round in 0..200u64 {
                    let (at, value) = (round % 3 * 4096 + lane * 1000 + 1, (round % 250) as u8 + lane as u8);
                    assert_eq!(client.ask(WRITE, 0, at, 1000, &[value; 1000]).error, 0);
                    assert_eq!(client.ask(READ, 0, at, 1000, &[]).data, [value; 1000]);
                }
            });
        }
    });
    let mut client: Client<_> = served.open(Headers::Simple);
    let page = client.ask(READ, 0, 4096, 4096, &[]).data;
    for lane in 0..LANES as usize {
        assert!(page[lane * 1000 + 1..][..1000].iter().all(|byte| *byte == 199 + lane as u8));
    }
}

/// A full pool is an I/O error, not "no space": hypervisors stop a guest at that.
#[test]
fn r2_a_refused_write_is_an_io_error() {
    let store = tmem_store::Store::new(tmem_store::StoreOptions { limit_bytes: 1 << 20 }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let server = tmem_nbd::NbdServer::new(tmem_nbd::NbdOptions::default());
    let address = tmem_nbd::NbdAddress::Unix(path.clone());
    let _export = server.export(client::disk_in(&store, "d"), &address).unwrap();
    let mut client = Client::greeted(std::os::unix::net::UnixStream::connect(path).unwrap());
    client.open("d", Headers::Structured);
    let mut state = 3u64;
    let random: Vec<u8> = (0..SIZE)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    assert_eq!(client.ask(WRITE, 0, 0, SIZE, &random).error, EIO);
    assert_eq!(client.ask(READ, 0, 0, 4096, &[]).data, random[..4096], "what was accepted comes back");
}
