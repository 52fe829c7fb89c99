//! Requests of a hostile NBD client on a real disk.
//!
//! The input is a list of requests in short form, so that magics and lengths are mostly right, and then any bytes. Every reply must be one
//! that a client can read to its end.
#![no_main]

mod nbd_rig;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use nbd_rig::{Said, exports};
use tmem_nbd::{Exports, Headers, Start, serve_link};

thread_local!(static EXPORTS: RefCell<Exports> = RefCell::new(exports()));

/// Eleven bytes of input: command, flags, offset in bytes and pages, length in bytes and pages, and what is odd about it.
fn request(bytes: &[u8; 11], headers: Headers, said: &mut Vec<u8>) {
    let [command, flags, o0, o1, o2, l0, l1, l2, odd, fill, cut] = *bytes;
    let mut offset = u64::from(u16::from_be_bytes([o0, o1])) * 4096 / 16 + u64::from(o2);
    let mut len = u64::from(u16::from_be_bytes([l0, l1])) + u64::from(l2) * 4096 / 4;
    match odd {
        250 => offset = u64::MAX - offset,
        251 => len = u64::MAX - len,
        252 => len = len.saturating_mul(4096),
        _ => {}
    }
    let command = u16::from(command % 9);
    let extended = headers == Headers::Extended;
    let mut flags = u16::from(flags) & if flags & 128 == 0 { 0x1f } else { 0xff };
    if extended && command == 1 && cut < 128 {
        flags |= 32;
    }
    let magic: u32 = if extended { 0x21e4_1c71 } else { 0x2560_9513 };
    said.extend(if odd == 253 { !magic } else { magic }.to_be_bytes());
    said.extend(flags.to_be_bytes());
    said.extend(command.to_be_bytes());
    said.extend(u64::from(fill).to_be_bytes());
    said.extend(offset.to_be_bytes());
    if extended {
        said.extend(len.to_be_bytes());
    } else {
        said.extend((len as u32).to_be_bytes());
    }
    if command == 1 || (extended && flags & 32 != 0) {
        let payload = len.min(300_000) as usize;
        said.extend((0..payload).map(|i| if odd & 1 == 0 { fill } else { (i * i / 7) as u8 ^ fill }));
    }
}

/// Reads the replies as far as they can be told apart without the requests; simple ones cannot.
fn check(mut sent: &[u8], headers: Headers) {
    if headers == Headers::Simple {
        return;
    }
    while !sent.is_empty() {
        let word = |at: usize| u32::from_be_bytes(sent[at..at + 4].try_into().expect("four bytes"));
        let len = match word(0) {
            0x6744_6698 => {
                assert_ne!(headers, Headers::Extended);
                16
            }
            0x668e_33ef => {
                assert_eq!(headers, Headers::Structured);
                20 + word(16) as usize
            }
            0x6e8a_278c => {
                assert_eq!((headers, word(24)), (Headers::Extended, 0));
                32 + word(28) as usize
            }
            other => panic!("{other:#x} begins no reply"),
        };
        sent = &sent[len..];
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(([headers, piece], mut rest)) = input.split_first_chunk::<2>() else { return };
    let headers = match headers % 3 {
        0 => Headers::Simple,
        1 => Headers::Structured,
        _ => Headers::Extended,
    };
    let mut said = Vec::new();
    while let Some((bytes, more)) = rest.split_first_chunk::<11>() {
        if said.len() > 2 << 20 {
            break;
        }
        request(bytes, headers, &mut said);
        rest = more;
    }
    said.extend(rest);
    EXPORTS.with_borrow(|exports| {
        // Pieces of a byte to a page and a half, or everything at once.
        let piece = if *piece == 255 { usize::MAX } else { usize::from(*piece) * 24 + 1 };
        let mut link = Said { rest: &said, piece, sent: Vec::new() };
        serve_link(&mut link, exports, Start::Requests(headers));
        check(&link.sent, headers);
    });
});
