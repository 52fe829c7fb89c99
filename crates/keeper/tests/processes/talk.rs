//! What guests say.

use std::{io::Read, os::unix::net::UnixStream};

use crate::{puppet, stage};

pub fn message(code: u32, payload: &[u8]) -> Vec<u8> {
    let words = [code, 1, payload.len() as u32].map(u32::to_ne_bytes);
    [words.concat().as_slice(), payload].concat()
}

/// The worker's library answers with zeroes what is to be answered. The keeper has all of that behind it when it has answered the worker.
pub fn is_answered(guest: &mut UnixStream, worker: &mut puppet::Puppet) {
    stage::says(guest, &message(1, b""), 0);
    let mut answer = [0; 12 + 8];
    guest.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], [1, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(worker.asks("upgrading"), "none");
}
