//! A borrower made of the protocol's bytes, for tests of lenders.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tmem_cluster::{
    Epoch,
    wire::{Encoder, FrameReader, Get, HELLO_BYTES, Hello, Message, PutResult, Reason, Run, WireError},
};
use tmem_store::TierCopy;

use super::fake_lender::CLUSTER;

/// What a lender answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Put(Vec<PutResult>),
    Got(Vec<Result<Vec<u8>, Reason>>),
    Flushed,
    Pong,
    Listed(Vec<TierCopy>),
    Fetched(Vec<(Run, Vec<u8>)>),
    Refused(Reason),
}

pub struct Client {
    pub socket: TcpStream,
    reader: FrameReader,
    last_id: u64,
    /// The last offer: what is free, and what this borrower has.
    pub offer: Option<(u64, u64)>,
    /// Recalled copies, and in how many milliseconds each is dropped.
    pub recalled: Vec<(u32, TierCopy)>,
}

pub fn hello(name: &str, epoch: u64, store: u64) -> Hello {
    Hello { cluster: CLUSTER, name: name.parse().unwrap(), epoch: Epoch(epoch), store }
}

impl Client {
    /// Connects and says hello; the lender's is not heard yet.
    pub fn begin(address: SocketAddr, hello: &Hello) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.write_all(&hello.encode()).unwrap();
        Self { socket, reader: FrameReader::default(), last_id: 0, offer: None, recalled: Vec::new() }
    }

    /// Connects, and hears the lender's hello.
    pub fn connect(address: SocketAddr, hello: &Hello) -> Self {
        let mut client = Self::begin(address, hello);
        assert_eq!(client.hear().unwrap().name.as_str(), "lender");
        client
    }

    /// Whom it is connected with. `None`: the connection has ended.
    pub fn hear(&mut self) -> Option<Hello> {
        let mut bytes = [0; HELLO_BYTES];
        self.socket.read_exact(&mut bytes).ok()?;
        Some(Hello::decode(&bytes, CLUSTER).unwrap().unwrap())
    }

    /// Asks; the id.
    pub fn ask(&mut self, what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>) -> u64 {
        self.last_id += 1;
        let mut frame = Vec::new();
        what(&mut Encoder::new(&mut frame), self.last_id).unwrap();
        // It fails when the lender has ended the connection, which the answer says.
        let _ = self.socket.write_all(&frame);
        self.last_id
    }

    /// The next answer, and its id. `None`: the lender ended the connection.
    pub fn next(&mut self) -> Option<(u64, Answer)> {
        loop {
            let frame = match self.reader.next(&mut self.socket) {
                Ok(frame) => frame.ok()??,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return None,
                Err(error) => panic!("no answer: {error}"),
            };
            let answer = match Message::decode(frame).unwrap() {
                Message::Offer { free_bytes, lent_bytes } => {
                    assert_eq!(frame.id, 0);
                    self.offer = Some((free_bytes, lent_bytes));
                    continue;
                }
                Message::Recall { deadline_ms, copies } => {
                    assert_eq!(frame.id, 0);
                    self.recalled.extend(copies.iter().map(|copy| (deadline_ms, copy)));
                    continue;
                }
                Message::PutDone(results) => Answer::Put(results.iter().collect()),
                Message::Got(found) => {
                    Answer::Got(found.iter().map(|found| found.map(<[u8]>::to_vec)).collect())
                }
                Message::Flushed => Answer::Flushed,
                Message::Pong => Answer::Pong,
                Message::Listed(copies) => Answer::Listed(copies.iter().collect()),
                Message::Fetched(copy) => {
                    Answer::Fetched(copy.iter().map(|(run, bytes)| (run, bytes.to_vec())).collect())
                }
                Message::Refused(reason) => Answer::Refused(reason),
                other => panic!("a lender says {other:?}"),
            };
            return Some((frame.id, answer));
        }
    }

    /// Asks, and waits for the answer. `None`: the lender ended the connection.
    pub fn try_call(
        &mut self,
        what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>,
    ) -> Option<Answer> {
        let id = self.ask(what);
        let (answered, answer) = self.next()?;
        assert_eq!(answered, id);
        Some(answer)
    }

    pub fn call(&mut self, what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>) -> Answer {
        self.try_call(what).expect("the connection goes on")
    }

    /// Puts a copy of one run from the extent's start.
    pub fn put(&mut self, copy: TierCopy, bytes: &[u8]) -> PutResult {
        let runs = [Run { start: 0, units: (bytes.len() / 8) as u16 }];
        match self.call(|say, id| say.put(id, &[(copy, &runs, bytes)])) {
            Answer::Put(results) if results.len() == 1 => results[0],
            other => panic!("{other:?}"),
        }
    }

    /// One block.
    pub fn get(&mut self, copy: TierCopy, start: u32, bytes: u32) -> Result<Vec<u8>, Reason> {
        match self.call(|say, id| say.get(id, &[Get { copy, start, bytes }])) {
            Answer::Got(mut found) if found.len() == 1 => found.remove(0),
            other => panic!("a get is answered with {other:?}"),
        }
    }

    pub fn flush(&mut self, copy: TierCopy) {
        assert_eq!(self.call(|say, id| say.flush(id, &[(copy, &[])])), Answer::Flushed);
    }

    pub fn list(&mut self) -> Vec<TierCopy> {
        match self.call(|say, id| say.list(id, 0)) {
            Answer::Listed(copies) => copies,
            other => panic!("{other:?}"),
        }
    }

    /// Pings until it is so: what was not asked for comes with the answers.
    pub fn ping_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(std::time::Instant::now() < deadline, "in vain: {what}");
            assert_eq!(self.call(|say, id| say.ping(id)), Answer::Pong);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
