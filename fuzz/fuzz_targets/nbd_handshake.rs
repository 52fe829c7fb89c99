//! What a hostile NBD client says before it gets an export, and after.
//!
//! The input is a list of options in short form, so that magics and lengths are mostly right, and then any bytes.
#![no_main]

mod nbd_rig;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use nbd_rig::{Said, exports};
use tmem_nbd::{Exports, Security, Start, serve_link};

thread_local!(static EXPORTS: RefCell<Exports> = RefCell::new(exports()));

/// The options that there are, and some that there are not.
const OPTIONS: u8 = 14;

fuzz_target!(|input: &[u8]| {
    let Some(([security, piece, number, flags], mut rest)) = input.split_first_chunk::<4>() else { return };
    let security = match security % 4 {
        0 => Security::Clear,
        1 => Security::TlsOffered,
        2 => Security::TlsRequired,
        _ => Security::Encrypted,
    };
    let mut said = u32::from(if *flags < 200 { flags % 4 | 1 } else { *flags }).to_be_bytes().to_vec();
    for _ in 0..number % 16 {
        let Some(([option, len, twist], data)) = rest.split_first_chunk::<3>() else { break };
        let data = &data[..data.len().min((*len).into())];
        rest = &rest[3 + data.len()..];
        said.extend(if *twist == 255 { b"IHAVENOT" } else { b"IHAVEOPT" });
        said.extend(u32::from(option % OPTIONS).to_be_bytes());
        let told = if *twist == 254 { u32::MAX - u32::from(*len) } else { data.len() as u32 };
        said.extend(told.to_be_bytes());
        said.extend(data);
    }
    said.extend(rest);
    EXPORTS.with_borrow(|exports| {
        let mut link = Said { rest: &said, piece: usize::from(*piece) + 1, sent: Vec::new() };
        serve_link(&mut link, exports, Start::Greeting(security));
        assert!(link.sent.starts_with(b"NBDMAGICIHAVEOPT"));
    });
});
