//! Messages of a hostile vhost-user guest through the keeper, to libraries that die.
//!
//! The input says how they die, and then what the guest says, in short form, so that lengths are right and memory and rings are often where
//! they should be. Guest and last library must not be able to tell that there were others: the model that the keeper's tests have checks it. Run with
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run vhost_messages` in this folder.
#![no_main]

#[path = "../../crates/keeper/tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::{Death, PROTOCOL, REPLY_ACK, Sent, check};

/// What a library takes and the keeper remembers; the input is cut there.
const MOST_MESSAGES: usize = 200;
const BASE: u64 = 0x7000_0000;

/// Guest address, size, the peer's address and offset.
fn region(which: u8) -> Vec<u8> {
    let start = u64::from(which & 7) * 0x8000;
    [start, 0x8000 + u64::from(which & 8) * 0x800, BASE + start, u64::from(which >> 4) * 0x1000]
        .map(u64::to_ne_bytes)
        .concat()
}

/// Five bytes and a payload that may follow: code, flags, descriptors, and two that what it says is made of.
fn message(input: &mut &[u8]) -> Option<Sent> {
    let [code, flags, files, what, value] = *input.split_off(..5)? else { return None };
    let code = u32::from(code % 48);
    let flags = u32::from(if flags & 0x80 == 0 { flags & 9 | 1 } else { flags & 0x1f });
    let descriptors = (0..usize::from(files % 4)).map(|at| at + usize::from(files / 4)).collect();
    let number = |number: u64| number.to_ne_bytes().to_vec();
    let payload = match code {
        _ if value == 255 => input.split_off(..usize::from(what).min(input.len()))?.to_vec(),
        2 => number(u64::from(value & 7) | if what & 1 == 0 { PROTOCOL } else { u64::from(what) << 2 }),
        16 => number(REPLY_ACK | u64::from(what) | u64::from(value) << 8),
        5 => {
            let regions = input.split_off(..usize::from(value % 4).min(input.len()))?;
            let table = regions.iter().flat_map(|which| region(*which));
            number(regions.len() as u64).into_iter().chain(table).collect()
        }
        8 | 10 | 11 | 18 => number(u64::from(what % 5) | u64::from(value) << 32),
        9 => {
            let base = BASE + u64::from(value) * 0x800;
            [u64::from(what % 5), base, base + 4, base + 8, 0].map(u64::to_ne_bytes).concat()
        }
        12..=14 => number(u64::from(what % 5) | u64::from(value & 1) << 8),
        37 | 38 => [vec![0; 8], region(what)].concat(),
        _ => Vec::new(),
    };
    Some(Sent { code, flags, payload, descriptors })
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let Some(&[deaths, piece]) = input.split_off(..2) else { return };
    let Some(deaths) = input.split_off(..usize::from(deaths % 8)) else { return };
    let ways = [Death::Unread, Death::Unanswered, Death::HalfAnswered, Death::Answered];
    let deaths: Vec<(usize, Death)> =
        deaths.iter().map(|death| (usize::from(death >> 2), ways[usize::from(death & 3)])).collect();
    let messages: Vec<Sent> = std::iter::from_fn(|| message(&mut input)).take(MOST_MESSAGES).collect();
    let Some((last, messages)) = messages.split_last() else { return };
    check(messages, Some(last), &deaths, usize::from(piece) * 16 + 1);
});
