//! Pages that a client has never written, or has forgotten, read as zeroes, whatever was in their place before (rule 6).
#![allow(clippy::unwrap_used)]

mod client;

use client::{Client, SIZE, disk_in};
use std::os::unix::net::UnixStream;
use tmem_nbd::{Headers, NbdAddress, NbdOptions, NbdServer};
use tmem_store::{Store, StoreOptions};

const READ: u16 = 0;
const WRITE: u16 = 1;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const PAGE: u64 = 4096;

/// A way to forget pages.
type Forget = dyn Fn(&mut Client<UnixStream>);

/// What no answer may ever contain.
const SECRET: u8 = 0x5e;

fn secret(page: u64) -> Vec<u8> {
    // Not all alike, so that it takes a block.
    (0..PAGE).map(|i| if i % 97 == page % 97 { i as u8 | 1 } else { SECRET }).collect()
}

#[test]
fn r6_holes_never_show_what_another_forgot() {
    let directory = tempfile::tempdir().unwrap();
    let address = NbdAddress::Unix(directory.path().join("s"));
    let store = Store::new(StoreOptions { limit_bytes: 16 << 20 }).unwrap();
    let server = NbdServer::new(NbdOptions::default());
    let connect = |name: &str, headers| {
        let mut client = Client::greeted(UnixStream::connect(directory.path().join("s")).unwrap());
        client.open(name, headers);
        client
    };
    let victims = server.export(disk_in(&store, "victim"), &address).unwrap();
    let mut victim = connect("victim", Headers::Simple);
    for page in 0..512 {
        assert_eq!(victim.ask(WRITE, 0, page * PAGE, PAGE, &secret(page)).error, 0);
    }
    let _others = server.export(disk_in(&store, "other"), &address).unwrap();
    // Forgotten in every way: trimmed, zeroed, overwritten, and at last with its disk. Each time the other's own few pages take the room.
    let forget: [&Forget; 3] = [
        &|victim| assert_eq!(victim.ask(TRIM, 0, 0, 128 * PAGE, &[]).error, 0),
        &|victim| assert_eq!(victim.ask(WRITE_ZEROES, 0, 128 * PAGE, 128 * PAGE, &[]).error, 0),
        &|victim| {
            (256..384).for_each(|page| {
                assert_eq!(victim.ask(WRITE, 0, page * PAGE, PAGE, &[7; PAGE as usize]).error, 0);
            });
        },
    ];
    for (round, forget) in (0..).zip(forget) {
        forget(&mut victim);
        looks_around(&connect, round);
    }
    drop(victim);
    victims.stop();
    looks_around(&connect, 3);
}

/// Another client reads all that it never wrote, in every way there is.
fn looks_around(connect: &impl Fn(&str, Headers) -> Client<UnixStream>, round: u64) {
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        let mut other = connect("other", headers);
        // Part of a page in a hole: the rest of the page is zeroes.
        let at = (round * 8 + 1) * PAGE + 100;
        assert_eq!(other.ask(WRITE, 0, at, 50, &[9; 50]).error, 0);
        let mut expected = vec![0; PAGE as usize];
        expected[100..150].fill(9);
        assert_eq!(other.ask(READ, 0, at - 100, PAGE, &[]).data, expected);
        assert_eq!(other.ask(TRIM, 0, at - 100, PAGE, &[]).error, 0);
        // Short, across pages, longer than the buffer of answers, all of it.
        for (offset, len) in
            [(at, 1), (at - 200, 300), (PAGE - 1, 2), (3, 2 * PAGE), (1, 600 << 10), (0, SIZE)]
        {
            let answer = other.ask(READ, 0, offset, len, &[]);
            assert_eq!((answer.error, answer.data.len() as u64), (0, len));
            assert!(answer.data.iter().all(|byte| *byte == 0), "{len} bytes at {offset}, {headers:?}");
        }
    }
}
