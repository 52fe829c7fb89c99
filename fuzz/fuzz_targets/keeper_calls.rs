//! Calls of a hostile worker to the keeper: datagrams with any descriptors, in any order.
//!
//! The input says them in short form, so that names and numbers meet what is held. The model that the keeper's tests have says what has to be
//! answered and held. Run with `RUSTC_BOOTSTRAP=1 cargo fuzz run keeper_calls` in this folder.
#![no_main]

#[path = "../../crates/keeper/tests/calls/mod.rs"]
mod calls;

use calls::{ADDRESSES, Call, Thing, check, is_call};
use libfuzzer_sys::fuzz_target;

/// The input is cut there.
const MOST_CALLS: usize = 100;

/// Code, number and name in a byte each, how many things, and which.
fn call(input: &mut &[u8]) -> Option<Call> {
    let [code, number, name, things] = *input.split_off(..4)? else { return None };
    if code == 255 {
        let bytes = usize::from(number) + usize::from(name);
        return (!is_call(bytes)).then_some(Call::Bytes(bytes));
    }
    let things = input.split_off(..usize::from(things % 40).min(input.len()))?;
    let things = things.iter().map(|which| Thing::ALL[usize::from(*which) % Thing::ALL.len()]).collect();
    let name = match name {
        0..8 => vec![b'a' + name % 4],
        8..16 => ADDRESSES[usize::from(name) % ADDRESSES.len()].0.as_bytes().to_vec(),
        _ => input.split_off(..usize::from(name).min(input.len()))?.to_vec(),
    };
    let number = if number < 128 { u32::from(number) } else { u32::from(number) << 24 };
    Some(Call::Whole { code: if code < 200 { code % 20 } else { code }, number, name, things })
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let calls: Vec<Call> = std::iter::from_fn(|| call(&mut input)).take(MOST_CALLS).collect();
    check(&calls);
});
