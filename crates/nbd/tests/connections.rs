//! Who may connect, how, and what happens when a disk goes.

mod client;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
};

use client::{Client, SIZE, Served, disk, disk_in, info, meta};
use tmem_nbd::{
    Exports, Headers, Link, NbdAddress, NbdError, NbdOptions, NbdServer, Security, Start, Wait, serve_link,
};
use tmem_store::{Store, StoreOptions};
use tmem_transport::SocketError;

const ACK: u32 = 1;
const UNSUP: u32 = 1 << 31 | 1;
const POLICY: u32 = 1 << 31 | 2;
const INVALID: u32 = 1 << 31 | 3;
const UNKNOWN: u32 = 1 << 31 | 6;
const EXT_REQD: u32 = 1 << 31 | 10;

#[test]
fn several_disks_share_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let address = NbdAddress::Unix(path.clone());
    let server = NbdServer::new(NbdOptions::default());
    let one = server.export(disk("one"), &address).unwrap();
    let two = server.export(disk("two"), &address).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(server.export(disk("one"), &address), Err(NbdError::NameTaken { .. })));
    let connect = || Client::greeted(UnixStream::connect(&path).unwrap());
    let names: Vec<_> = connect().option(3, &[]).unwrap().into_iter().map(|(_, data)| data).collect();
    assert_eq!(names, [b"\0\0\0\x03one".to_vec(), b"\0\0\0\x03two".to_vec(), vec![]]);
    // Neither is the default.
    assert_eq!(connect().option_kind(7, &info("", &[])), UNKNOWN);
    let mut guest = connect();
    guest.open("two", Headers::Structured);
    assert_eq!((one.connections(), two.connections()), (0, 1));
    one.stop();
    assert_eq!(guest.ask(3, 0, 0, 0, &[]).error, 0, "the other disk's connection stays");
    connect().open("", Headers::Simple);
    two.stop();
    assert!(guest.is_over());
    assert!(!path.exists());
}

#[test]
fn nobody_is_let_in_before_all_disks_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let address = NbdAddress::Unix(path.clone());
    let server = NbdServer::new(NbdOptions::default());
    let closed = server.close();
    let _one = server.export(disk("one"), &address).unwrap();
    let mut early = UnixStream::connect(&path).unwrap();
    early.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    assert_eq!(early.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    early.set_read_timeout(None).unwrap();
    let _two = server.export(disk("two"), &address).unwrap();
    drop(closed);
    Client::greeted(early).open("two", Headers::Structured);
    // One that goes while nobody is let in does not wait for that.
    let _closed = server.close();
    drop(_one);
    drop(_two);
}

#[test]
fn a_disk_that_stops_gives_its_memory_back_at_once() {
    let store = Store::new(StoreOptions { limit_bytes: 16 << 20 }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let server = NbdServer::new(NbdOptions::default());
    let export = server.export(disk_in(&store, "d"), &NbdAddress::Unix(path.clone())).unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| Client::greeted(UnixStream::connect(&path).unwrap())).collect();
    for client in &mut clients[1..] {
        client.open("d", Headers::Extended);
        assert_eq!(client.ask(1, 32, 0, 5, b"bytes").error, 0);
    }
    // Some are in the middle of something.
    clients[2].stream.write_all(&[0x21, 0xe4]).unwrap();
    clients[3].send(1, 32, 0, 1 << 20, &[1; 1000]);
    // One asks for more than fits into its socket, and reads none of it.
    for _ in 0..8 {
        clients[4].send(0, 0, 0, SIZE, &[]);
    }
    export.stop();
    assert!(store.clients().is_empty());
    assert_eq!(store.usage().held_bytes, 0);
    for client in &mut clients {
        while !client.is_over() {}
    }
}

#[test]
fn what_is_in_the_way_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let server = NbdServer::new(NbdOptions::default());
    let path = directory.path().join("s");
    let start = |path: &std::path::Path| server.export(disk("d"), &NbdAddress::Unix(path.to_owned()));
    let live = UnixListener::bind(&path).unwrap();
    assert!(matches!(start(&path).err(), Some(NbdError::Socket(SocketError::InUse { .. }))));
    drop(live);
    start(&path).expect("a stale socket is replaced").stop();
    let error = start(&directory.path().join("no/s")).err().expect("no directory").to_string();
    assert!(error.contains("/no for the socket does not exist"), "{error}");

    let tcp = |address: &str| server.export(disk("d"), &NbdAddress::Tcp(address.parse().unwrap()));
    let export = tcp("127.0.0.1:0").unwrap();
    let NbdAddress::Tcp(bound) = export.address().clone() else { panic!("TCP") };
    let other = NbdServer::new(NbdOptions::default());
    let error = other.export(disk("d"), &NbdAddress::Tcp(bound)).err().expect("in use").to_string();
    assert!(error.contains(&bound.to_string()) && error.contains("another port"), "{error}");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:10809"] {
        let error = tcp(address).err().expect("needs TLS").to_string();
        assert!(error.contains("--nbd-tls-cert") && error.contains("127.0.0.1"), "{error}");
    }
    let mut client = Client::greeted(TcpStream::connect(bound).unwrap());
    client.open("d", Headers::Structured);
    assert_eq!(client.ask(0, 0, 0, 4, &[]).data, [0; 4]);
    export.stop();
    assert!(client.is_over());
    assert!(TcpStream::connect(bound).is_err());
}

#[test]
fn options_are_answered_one_by_one() {
    let served = Served::new();
    let mut client = served.connect();
    assert_eq!(client.option_kind(5, &[]), POLICY, "no certificates, no TLS");
    assert_eq!(client.option_kind(77, b"what"), UNSUP);
    assert_eq!(client.option_kind(3, b"x"), INVALID);
    assert_eq!(client.option_kind(7, b"x"), INVALID);
    assert_eq!(client.option_kind(6, &info("nobody", &[])), UNKNOWN);
    assert_eq!(client.option_kind(10, &meta("d", &["base:allocation"])), INVALID, "not without structure");
    let told = client.option(6, &info("", &[1, 3])).unwrap();
    let (flags, sizes) = (&told[0].1, &told[2].1);
    assert_eq!(flags[..10], [&[0, 0][..], &SIZE.to_be_bytes()].concat());
    assert_eq!(flags[11] & 0x80, 0, "no DF without structure");
    assert_eq!(told[1].1, b"\0\x01d");
    assert_eq!(sizes[2..], [[0, 0, 0, 1], [0, 0, 16, 0], [2, 0, 0, 0]].concat());
    assert_eq!(client.option_kind(8, &[]), ACK);
    for (option, queries, found) in [
        (9, &[][..], 2),
        (9, &["base:"], 2),
        (9, &["qemu:", "base:allocation"], 2),
        (9, &["qemu:"], 1),
        (10, &["base:"], 1),
        (10, &[], 1),
        (10, &["base:allocation"], 2),
    ] {
        assert_eq!(client.option(option, &meta("d", queries)).unwrap().len(), found, "{option} {queries:?}");
    }
    assert_eq!(client.option_kind(11, &[]), ACK);
    assert_eq!(client.option_kind(8, &[]), EXT_REQD);
    client.send_option(2, &[]);
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 20, "the answer to ABORT, and the end");
    assert_eq!(served.export.connections(), 0);
}

#[test]
fn the_old_way_in_still_works() {
    let served = Served::new();
    let mut client = served.connect();
    client.send_option(1, b"d");
    let mut answer = [0; 10];
    client.stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], SIZE.to_be_bytes());
    assert_eq!(client.ask(0, 0, 0, 3, &[]).data, [0; 3]);
    // Block status was never agreed on.
    assert_eq!(client.ask(7, 0, 0, 1, &[]).error, 22);

    let mut stream = UnixStream::connect(served.directory.path().join("s")).unwrap();
    stream.read_exact(&mut [0; 18]).unwrap();
    stream.write_all(&1u32.to_be_bytes()).unwrap();
    stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x01d").unwrap();
    stream.read_exact(&mut [1; 134]).expect("with zeroes behind it");

    let mut client = served.connect();
    client.send_option(1, b"nobody");
    assert!(client.is_over());
}

#[test]
fn those_who_speak_something_else_are_hung_up_on() {
    let served = Served::new();
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 0], &[0xff; 4], b"\0\0\0\x03IHAVENOT\0\0\0\0\0\0\0\0"]
    {
        let mut stream = UnixStream::connect(served.directory.path().join("s")).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A connection that is closed with bytes unread is reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() <= 18);
    }
    let mut client = served.connect();
    client.stream.write_all(b"IHAVEOPT\0\0\0\x03\xff\xff\xff\xff").unwrap();
    assert!(client.is_over(), "so much data is not waited for");
    served.open(Headers::Simple);
}

#[test]
fn connections_to_one_export_have_a_limit() {
    let served = Served::new();
    let mut clients: Vec<_> = (0..64).map(|_| served.open(Headers::Simple)).collect();
    assert_eq!(served.export.connections(), 64);
    let mut one_more = served.connect();
    assert_eq!(one_more.option_kind(7, &info("d", &[])), POLICY);
    clients[0].send(2, 0, 0, 0, &[]);
    assert!(clients[0].is_over());
    one_more.open("d", Headers::Simple);
}

/// A client that speaks to `serve_link` over a pair of sockets.
struct Pair(UnixStream);

impl Link for Pair {
    fn receive(&mut self, buffer: &mut [u8], _wait: Wait) -> std::io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }
}

#[test]
fn r6_where_tls_is_required_nothing_is_told_before_it() {
    const TLS_REQD: u32 = 1 << 31 | 5;
    let serve = |security| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let exports = Exports::with_disk(disk("d"));
            serve_link(&mut Pair(theirs), &exports, Start::Greeting(security));
        });
        (Client::greeted(ours), server)
    };
    let (mut client, server) = serve(Security::TlsRequired);
    for (option, data) in [
        (3, vec![]),
        (6, info("d", &[])),
        (7, info("d", &[])),
        (8, vec![]),
        (9, meta("d", &[])),
        (10, meta("d", &["base:allocation"])),
        (11, vec![]),
        (99, vec![]),
    ] {
        assert_eq!(client.option_kind(option, &data), TLS_REQD, "{option}");
    }
    assert_eq!(client.option_kind(5, &[]), ACK, "STARTTLS, behind which this server ends");
    assert!(client.is_over());
    server.join().unwrap();

    let (mut client, server) = serve(Security::TlsRequired);
    client.send_option(1, b"d");
    assert!(client.is_over(), "the old way in has no room for a refusal");
    server.join().unwrap();

    let (mut client, server) = serve(Security::Encrypted);
    assert_eq!(client.option_kind(5, &[]), INVALID, "TLS twice");
    client.open("d", Headers::Extended);
    drop(client);
    server.join().unwrap();
}
