//! A client that says what a test tells it to, right or wrong.
// Every test file uses another part of it, and a failed step is a failed test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::Arc,
};

use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_nbd::{Headers, NbdAddress, NbdExport, NbdOptions, NbdServer};
use tmem_store::{Dedup, Store, StoreOptions};

pub const SIZE: u64 = 4 << 20;

pub fn disk(name: &str) -> Arc<SwapDisk> {
    let store = Store::new(StoreOptions { limit_bytes: 16 << 20 }).unwrap();
    disk_in(&store, name)
}

pub fn disk_in(store: &Arc<Store>, name: &str) -> Arc<SwapDisk> {
    let options = DiskOptions {
        name: name.to_owned(),
        size_bytes: SIZE,
        cap_bytes: None,
        weight: tmem_store::Weight::default(),
        dedup: Dedup::Alone,
        format: Format::None,
    };
    Arc::new(SwapDisk::create(store, options).unwrap())
}

/// One disk `d` on a Unix socket.
pub struct Served {
    pub export: NbdExport,
    pub directory: tempfile::TempDir,
}

impl Served {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = NbdAddress::Unix(directory.path().join("s"));
        let export = NbdServer::new(NbdOptions::default()).export(disk("d"), &address).unwrap();
        Self { export, directory }
    }

    pub fn connect(&self) -> Client<UnixStream> {
        Client::greeted(UnixStream::connect(self.directory.path().join("s")).unwrap())
    }

    /// Connects and agrees on everything there is with these headers.
    pub fn open(&self, headers: Headers) -> Client<UnixStream> {
        let mut client = self.connect();
        client.open("d", headers);
        client
    }
}

pub struct Client<S> {
    pub stream: S,
    pub headers: Headers,
    next_cookie: u64,
}

/// What came back for a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub error: u32,
    pub data: Vec<u8>,
    pub extents: Vec<(u64, u32)>,
}

pub trait Stream: Read + Write {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

impl<S: Stream> Client<S> {
    pub fn greeted(mut stream: S) -> Self {
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        Self { stream, headers: Headers::Simple, next_cookie: 1 }
    }

    pub fn send_option(&mut self, option: u32, data: &[u8]) {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Replies up to the last one: kind and data of each.
    pub fn option(&mut self, option: u32, data: &[u8]) -> io::Result<Vec<(u32, Vec<u8>)>> {
        self.send_option(option, data);
        let mut replies = Vec::new();
        loop {
            let mut header = [0; 20];
            self.stream.read_exact(&mut header)?;
            assert_eq!(header[..8], 0x0003_e889_0455_65a9u64.to_be_bytes());
            assert_eq!(header[8..12], option.to_be_bytes());
            let kind = u32::from_be_bytes(header[12..16].try_into().unwrap());
            let mut data = vec![0; u32::from_be_bytes(header[16..].try_into().unwrap()) as usize];
            self.stream.read_exact(&mut data)?;
            replies.push((kind, data));
            if kind == 1 || kind >> 31 == 1 {
                return Ok(replies);
            }
        }
    }

    /// The kind of the only or last reply.
    pub fn option_kind(&mut self, option: u32, data: &[u8]) -> u32 {
        self.option(option, data).unwrap().last().unwrap().0
    }

    pub fn open(&mut self, name: &str, headers: Headers) {
        match headers {
            Headers::Simple => {}
            Headers::Structured => assert_eq!(self.option_kind(8, &[]), 1),
            Headers::Extended => assert_eq!(self.option_kind(11, &[]), 1),
        }
        self.headers = headers;
        if headers != Headers::Simple {
            let replies = self.option(10, &meta(name, &["base:allocation"])).unwrap();
            assert_eq!(replies[0], (4, [&1u32.to_be_bytes()[..], b"base:allocation"].concat()));
        }
        let replies = self.option(7, &info(name, &[])).unwrap();
        assert_eq!(replies.last().unwrap().0, 1, "{replies:?}");
    }

    /// Sends a request; gives its cookie.
    pub fn send(&mut self, command: u16, flags: u16, offset: u64, len: u64, payload: &[u8]) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let bytes = request(self.headers, command, flags, cookie, offset, len, payload);
        self.stream.write_all(&bytes).unwrap();
        cookie
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, command: u16, flags: u16, offset: u64, len: u64, payload: &[u8]) -> Answer {
        let cookie = self.send(command, flags, offset, len, payload);
        let (answered, answer) = self.answer(if command == 0 { Some((offset, len)) } else { None });
        assert_eq!(answered, cookie);
        answer
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next answer: its cookie and what it says. `read`: it answers a read of this offset and length.
    pub fn answer(&mut self, read: Option<(u64, u64)>) -> (u64, Answer) {
        let mut answer = Answer { error: 0, data: Vec::new(), extents: Vec::new() };
        loop {
            let magic = u32::from_be_bytes(self.array());
            if magic == 0x6744_6698 {
                assert_ne!(self.headers, Headers::Extended);
                answer.error = u32::from_be_bytes(self.array());
                let cookie = u64::from_be_bytes(self.array());
                if let (Some((_, len)), 0) = (read, answer.error) {
                    assert_eq!(self.headers, Headers::Simple, "a read is answered with chunks");
                    answer.data = vec![0; len as usize];
                    self.stream.read_exact(&mut answer.data).unwrap();
                }
                return (cookie, answer);
            }
            let extended = self.headers == Headers::Extended;
            assert_eq!(magic, if extended { 0x6e8a_278c } else { 0x668e_33ef });
            let (flags, kind) = (u16::from_be_bytes(self.array()), u16::from_be_bytes(self.array()));
            let cookie = u64::from_be_bytes(self.array());
            let len = if extended {
                let offset = u64::from_be_bytes(self.array());
                assert!(read.is_none_or(|(asked, _)| asked == offset));
                u64::from_be_bytes(self.array())
            } else {
                u32::from_be_bytes(self.array()).into()
            };
            let mut data = vec![0; len as usize];
            self.stream.read_exact(&mut data).unwrap();
            match kind {
                0 => assert_eq!((len, flags), (0, 1)),
                1 => {
                    let (at, bytes) = data.split_at(8);
                    let (offset, _) = read.expect("a read");
                    let at = u64::from_be_bytes(at.try_into().unwrap());
                    assert_eq!(at, offset + answer.data.len() as u64, "pieces come in order");
                    answer.data.extend(bytes);
                }
                5 => {
                    assert!(!extended && data[..4] == 1u32.to_be_bytes());
                    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                    let extents = data[4..].chunks_exact(8);
                    answer.extents = extents.map(|e| (word(&e[..4]).into(), word(&e[4..]))).collect();
                }
                6 => {
                    assert!(extended && data[..4] == 1u32.to_be_bytes());
                    let double = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
                    let extents = data[8..].chunks_exact(16);
                    answer.extents = extents.map(|e| (double(&e[..8]), double(&e[8..]) as u32)).collect();
                    assert_eq!(data[4..8], (answer.extents.len() as u32).to_be_bytes());
                }
                0x8001 => answer.error = u32::from_be_bytes(data[..4].try_into().unwrap()),
                other => panic!("a chunk of type {other}"),
            }
            if flags & 1 != 0 {
                return (cookie, answer);
            }
        }
    }

    /// Whether the server has hung up.
    pub fn is_over(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

pub fn request(
    headers: Headers,
    command: u16,
    flags: u16,
    cookie: u64,
    offset: u64,
    len: u64,
    payload: &[u8],
) -> Vec<u8> {
    let extended = headers == Headers::Extended;
    let magic: u32 = if extended { 0x21e4_1c71 } else { 0x2560_9513 };
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    if extended {
        bytes.extend(len.to_be_bytes());
    } else {
        bytes.extend((len as u32).to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// Data of INFO and GO.
pub fn info(name: &str, items: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((items.len() as u16).to_be_bytes());
    data.extend(items.iter().flat_map(|item| item.to_be_bytes()));
    data
}

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query)));
    data
}
