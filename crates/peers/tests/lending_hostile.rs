//! Peers that mean harm, or are broken: none costs a lender more than a connection, and others do not notice.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use support::{
    client::{Client, hello},
    copy, extent, lend, wait_until,
};
use tmem_cluster::wire::{Encoder, Get, PutResult, Run};
use tmem_peers::{LendingOptions, LendingServer};

mod support;

/// A lender, and a good borrower with a copy, which has to be there after whatever happens.
struct Rig {
    server: LendingServer,
    address: SocketAddr,
    good: RefCell<Client>,
}

impl Rig {
    fn new() -> Self {
        let server = lend("lender".parse().unwrap(), LendingOptions::default(), || 1 << 40);
        let address = server.address().unwrap();
        let mut good = Client::connect(address, &hello("good", 1, 1));
        assert_eq!(good.put(copy(1, 1), &extent(1).0), PutResult::Stored);
        Self { server, address, good: RefCell::new(good) }
    }

    fn good_is_served(&self) {
        let bytes = extent(1).0;
        assert!(self.good.borrow_mut().get(copy(1, 1), 0, 131_072) == Ok(bytes));
    }

    /// Whoever else is connected.
    fn others(&self) -> usize {
        let borrowers = self.server.status().borrowers;
        borrowers
            .iter()
            .filter(|borrower| borrower.name.as_str() != "good" && borrower.address.is_some())
            .count()
    }
}

/// Whether the lender ends this connection.
fn is_ended(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn what_is_no_hello_ends_the_connection() {
    let rig = Rig::new();
    let good = hello("x", 1, 1).encode();
    let mut damaged = good;
    damaged[60] ^= 1;
    let mut other_version = good;
    other_version[8] = 9;
    let other_cluster = tmem_cluster::wire::Hello { cluster: 5, ..hello("x", 1, 1) }.encode();
    let own_name = hello("lender", 1, 1).encode();
    let hellos: [&[u8]; 6] =
        [b"GET / HTTP/1.1\r\n\r\n", &damaged, &other_version, &other_cluster, &own_name, &good[..70]];
    for (at, said) in hellos.into_iter().enumerate() {
        let mut socket = TcpStream::connect(rig.address).unwrap();
        socket.write_all(said).unwrap();
        if at == 5 {
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        assert!(is_ended(&mut socket), "{at}");
        rig.good_is_served();
    }
    assert_eq!(rig.others(), 0);
}

#[test]
fn a_peer_that_never_says_hello_is_waited_for_a_few_seconds() {
    let rig = Rig::new();
    let mut silent = TcpStream::connect(rig.address).unwrap();
    let mut slow = TcpStream::connect(rig.address).unwrap();
    // A byte now and then does not make the time longer: the other end closes while there is more to say.
    let writer = std::thread::spawn(move || {
        let hello = hello("x", 1, 1).encode();
        let is_refused = hello.iter().any(|byte| {
            std::thread::sleep(Duration::from_millis(200));
            slow.write_all(&[*byte]).is_err()
        });
        is_refused || is_ended(&mut slow)
    });
    assert!(is_ended(&mut silent));
    rig.good_is_served();
    assert!(writer.join().unwrap());
    assert_eq!(rig.others(), 0);
}

#[test]
fn frames_that_lie_end_the_connection_and_change_nothing() {
    let rig = Rig::new();
    let content = [1; 80];
    let runs = [Run { start: 0, units: 10 }];
    let mut put = Vec::new();
    Encoder::new(&mut put).put(1, &[(copy(1, 9), &runs, &content)]).unwrap();
    let mut wrong_payload = put.clone();
    *wrong_payload.last_mut().unwrap() ^= 1;
    let mut wrong_header = put.clone();
    wrong_header[0] ^= 1;
    // Lengths and kinds whose checksums are right.
    let header = |len: u32, kind: u16| {
        let mut bytes = Vec::new();
        bytes.extend(len.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 14]);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    };
    let mut answers = Vec::new();
    Encoder::new(&mut answers).put_done(1, &[PutResult::Stored]).unwrap();
    let mut offers = Vec::new();
    Encoder::new(&mut offers).offer(1, 1).unwrap();
    let lies =
        [wrong_payload, wrong_header, header(u32::MAX, 1), header(0, 99), header(0, 1), answers, offers];
    for (at, lie) in lies.into_iter().enumerate() {
        let mut bad = Client::connect(rig.address, &hello("bad", 1, 1));
        bad.socket.write_all(&lie).unwrap();
        assert!(bad.next().is_none(), "{at}");
        wait_until("it is out", || rig.others() == 0);
        rig.good_is_served();
    }
    let status = rig.server.status();
    assert_eq!(status.counts.puts, 1);
    assert_eq!(status.borrowers.len(), 1);
}

#[test]
fn a_promise_of_a_long_frame_is_no_memory() {
    let rig = Rig::new();
    // So many promise the longest frame and say nothing of it.
    let mut promised = Vec::new();
    promised.extend(2_359_296u32.to_le_bytes());
    promised.extend(1u16.to_le_bytes());
    promised.extend([0; 14]);
    let crc = crc32c::crc32c(&promised);
    promised.extend(crc.to_le_bytes());
    let before = resident_bytes();
    let clients: Vec<Client> = (0..100)
        .map(|number| {
            let mut client = Client::connect(rig.address, &hello(&format!("promises-{number}"), 1, 1));
            client.socket.write_all(&promised).unwrap();
            client
        })
        .collect();
    rig.good_is_served();
    assert_eq!(rig.others(), 100);
    // Theirs and the lender's first buffers, of 64 KiB each, and stacks; not 225 MiB.
    let taken = resident_bytes().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken}");
    drop(clients);
    wait_until("they are out", || rig.others() == 0);
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_peer_that_never_reads_is_let_go() {
    let rig = Rig::new();
    let mut bad = Client::connect(rig.address, &hello("bad", 1, 1));
    assert_eq!(bad.put(copy(1, 1), &extent(2).0), PutResult::Stored);
    // It asks and asks, until even its requests are not taken any more.
    let mut request = Vec::new();
    for id in 0..200 {
        Encoder::new(&mut request).get(id, &[Get { copy: copy(1, 1), start: 0, bytes: 131_072 }]).unwrap();
    }
    bad.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while bad.socket.write_all(&request).is_ok() {
        rig.good_is_served();
    }
    wait_until("it is out", || {
        rig.good_is_served();
        rig.others() == 0
    });
    // What it had put stays.
    let mut again = Client::connect(rig.address, &hello("bad", 1, 1));
    assert_eq!(again.list(), [copy(1, 1)]);
}

#[test]
fn there_is_room_for_so_many_connections_and_those_that_say_nothing_do_not_take_all() {
    let rig = Rig::new();
    let mut silent: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    let mut beyond = TcpStream::connect(rig.address).unwrap();
    assert!(is_ended(&mut beyond));
    rig.good_is_served();
    silent.clear();
    // The good one is one of the 256.
    let clients: RefCell<Vec<Client>> = RefCell::default();
    for number in 0..255 {
        // The silent ones may still be on their way out.
        wait_until("there is room", || {
            let mut client = Client::begin(rig.address, &hello(&format!("node-{number}"), 1, 1));
            let is_heard = client.hear().is_some();
            clients.borrow_mut().extend(is_heard.then_some(client));
            is_heard
        });
    }
    let mut beyond = Client::begin(rig.address, &hello("beyond", 1, 1));
    assert!(beyond.hear().is_none());
    rig.good_is_served();
    clients.borrow_mut().pop();
    wait_until("there is room again", || Client::begin(rig.address, &hello("beyond", 1, 1)).hear().is_some());
}
