//! What a peer says: its hello, and frames after it.
//!
//! An input begins with how it is cut into pieces. The rest is said twice: as it is; and as a list of kind, length and payload, put into frames
//! whose checksums are right, so that what is behind them is reached. What is understood is said again in the same bytes.
#![no_main]

#[path = "../../crates/cluster/tests/support/again.rs"]
mod again;

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use tmem_cluster::wire::{FrameReader, HELLO_BYTES, Hello, Message, WireError};

/// A stream that gives so much at a time.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.piece.min(into.len()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(count);
        into[..count].copy_from_slice(piece);
        self.rest = rest;
        Ok(count)
    }
}

fn read_all(bytes: &[u8], piece: usize) {
    let mut stream = Pieces { rest: bytes, piece };
    let mut reader = FrameReader::default();
    loop {
        let understood = match reader.next(&mut stream).expect("a stream without errors") {
            Ok(None) => return,
            Ok(Some(frame)) => Message::decode(frame).map(|message| {
                let again = again::again(frame.id, message).expect("what was understood can be said");
                assert_eq!(again[24..], *frame.payload, "{}", frame.kind);
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = understood {
            return one_line(&error);
        }
        assert!(reader.held_bytes() <= FrameReader::MAX_BYTES);
    }
}

fn sealed(kind: u16, payload: &[u8], stream: &mut Vec<u8>) {
    let start = stream.len();
    stream.extend((payload.len() as u32).to_le_bytes());
    stream.extend(kind.to_le_bytes());
    stream.extend([0; 2]);
    stream.extend(77u64.to_le_bytes());
    stream.extend(crc32c::crc32c(payload).to_le_bytes());
    stream.extend(crc32c::crc32c(&stream[start..]).to_le_bytes());
    stream.extend(payload);
}

fn hello(bytes: &[u8]) {
    match Hello::decode(bytes, 1) {
        Ok(Some(hello)) => assert_eq!(hello.encode()[..], bytes[..HELLO_BYTES]),
        Ok(None) => assert!(bytes.len() < HELLO_BYTES),
        Err(error) => one_line(&error),
    }
}

fn one_line(error: &WireError) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control) && text.len() < 200, "{text:?}");
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, rest)) = input.split_first() else { return };
    let piece = if *piece == 255 { usize::MAX } else { usize::from(*piece) * 7 + 1 };
    read_all(rest, piece);
    hello(rest);
    // The same with its checksum right.
    if let Some(mut bytes) = rest.first_chunk::<HELLO_BYTES>().copied() {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        hello(&bytes);
    }
    let mut stream = Vec::new();
    let mut list = rest;
    while let Some(([kind, low, high], more)) = list.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (payload, more) = more.split_at(len);
        let kinds = [1, 2, 3, 4, 5, 6, 129, 130, 131, 132, 255, 7, 8, 133, 134];
        let kind = kinds.get(usize::from(*kind)).copied().unwrap_or(u16::from(*kind));
        sealed(kind, payload, &mut stream);
        list = more;
    }
    read_all(&stream, piece);
});
