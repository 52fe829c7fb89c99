//! A lender over loopback: what it keeps, what it asks back, and who gets nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use support::{
    client::{Answer, Client, hello},
    copy, extent, lend, wait_until,
};
use tmem_cluster::wire::{Get, PutResult, Reason, Run};
use tmem_peers::{Forgotten, LendingOptions, LendingServer, NotForgotten};

mod support;

/// A lender on a host whose available memory is what the test says.
struct Rig {
    server: LendingServer,
    address: SocketAddr,
    available: Arc<AtomicU64>,
}

const PLENTY: u64 = 1 << 40;

impl Rig {
    fn new() -> Self {
        Self::with(LendingOptions::default())
    }

    fn with(options: LendingOptions) -> Self {
        let available = Arc::new(AtomicU64::new(PLENTY));
        let asked = Arc::clone(&available);
        let server = lend("lender".parse().unwrap(), options, move || asked.load(SeqCst));
        let address = server.address().unwrap();
        Self { server, address, available }
    }

    fn connect(&self, name: &str) -> Client {
        Client::connect(self.address, &hello(name, 1, 1))
    }

    /// From where a borrower is connected.
    fn address_of(&self, name: &str) -> Option<String> {
        let borrowers = self.server.status().borrowers;
        borrowers.into_iter().find(|borrower| borrower.name.as_str() == name)?.address
    }
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect()
}

#[test]
fn r1_what_is_put_is_got_and_what_is_flushed_is_not() {
    let rig = Rig::new();
    let mut client = rig.connect("a");
    let runs = [Run { start: 10, units: 300 }, Run { start: 400, units: 1 }];
    let content = bytes(1, 301 * 8);
    let puts = [(copy(7, 1), &runs[..], &content[..]), (copy(3, 2), &runs[..1], &content[..2400])];
    assert_eq!(client.call(|say, id| say.put(id, &puts)), Answer::Put(vec![PutResult::Stored; 2]));
    assert_eq!(client.get(copy(7, 1), 80, 2400), Ok(content[..2400].to_vec()));
    assert_eq!(client.get(copy(7, 1), 3200, 8), Ok(content[2400..].to_vec()));
    assert_eq!(client.get(copy(7, 1), 81, 2399), Ok(content[1..2400].to_vec()));
    for (missing, start, len) in [(copy(7, 2), 80, 8), (copy(8, 1), 80, 8), (copy(7, 1), 72, 16)] {
        assert_eq!(client.get(missing, start, len), Err(Reason::NotThere));
    }
    assert_eq!(client.list(), [copy(3, 2), copy(7, 1)]);
    let fetched = client.call(|say, id| say.fetch(id, copy(7, 1)));
    assert_eq!(
        fetched,
        Answer::Fetched(vec![(runs[0], content[..2400].to_vec()), (runs[1], content[2400..].to_vec())])
    );
    // A part dies, then the rest.
    let dead = [Run { start: 20, units: 1 }];
    assert_eq!(client.call(|say, id| say.flush(id, &[(copy(7, 1), &dead)])), Answer::Flushed);
    assert_eq!(client.get(copy(7, 1), 160, 8), Err(Reason::NotThere));
    assert_eq!(client.get(copy(7, 1), 80, 80), Ok(content[..80].to_vec()));
    client.flush(copy(7, 1));
    assert_eq!(client.get(copy(7, 1), 80, 8), Err(Reason::NotThere));
    assert_eq!(client.call(|say, id| say.fetch(id, copy(7, 1))), Answer::Refused(Reason::NotThere));
    assert_eq!(client.list(), [copy(3, 2)]);
    let status = rig.server.status();
    assert_eq!((status.counts.puts, status.counts.refused_puts, status.counts.missed_gets), (2, 0, 6));
    assert_eq!((status.borrowers[0].copies, status.needed_bytes), (1, 2400));
    assert!(status.held_bytes > 2400 && status.counts == status.borrowers[0].counts);
    // r7: the books are empty when everything is flushed.
    client.flush(copy(3, 2));
    assert_eq!(rig.server.status().held_bytes, 0);
}

#[test]
fn what_a_borrower_has_that_is_away_is_forgotten_by_command_and_no_other() {
    let rig = Rig::new();
    let (mut gone, mut here) = (rig.connect("gone"), rig.connect("here"));
    gone.put(copy(1, 1), &bytes(1, 800));
    here.put(copy(1, 1), &bytes(2, 80));
    let forget = |name: &str| rig.server.forget(name.parse().unwrap());
    assert_eq!(
        (forget("gone"), forget("nobody")),
        (Err(NotForgotten::Connected), Err(NotForgotten::Unknown))
    );
    drop(gone);
    wait_until("it has left", || rig.address_of("gone").is_none());
    assert_eq!(forget("gone"), Ok(Forgotten { copies: 1, needed_bytes: 800 }));
    assert_eq!(forget("gone"), Err(NotForgotten::Unknown));
    assert_eq!(rig.server.status().needed_bytes, 80);
    assert_eq!(here.get(copy(1, 1), 0, 80), Ok(bytes(2, 80)));
    // It is back: nothing is there, and there is room for it.
    let mut back = rig.connect("gone");
    assert_eq!((back.list(), back.get(copy(1, 1), 0, 8)), (vec![], Err(Reason::NotThere)));
    back.put(copy(1, 1), &bytes(1, 800));
    assert_eq!(forget("gone"), Err(NotForgotten::Connected));
    drop((back, here));
    wait_until("both have left", || rig.address_of("gone").is_none() && rig.address_of("here").is_none());
    assert!(forget("gone").is_ok() && forget("here").is_ok());
    assert_eq!(rig.server.status().held_bytes, 0);
}

#[test]
fn many_requests_are_answered_in_their_order() {
    let rig = Rig::new();
    let mut client = rig.connect("a");
    let content = bytes(5, 131_072);
    client.put(copy(1, 1), &content);
    let ids: Vec<u64> = (0..500u32)
        .map(|at| {
            client.ask(|say, id| {
                say.get(
                    id,
                    &[Get {
                        copy: copy(1, 1),
                        start: at * 256,
                        bytes: if at % 50 == 0 { 3000 } else { 200 },
                    }],
                )
            })
        })
        .collect();
    for (at, id) in ids.into_iter().enumerate() {
        let len = if at % 50 == 0 { 3000 } else { 200 };
        assert!(
            client.next() == Some((id, Answer::Got(vec![Ok(content[at * 256..][..len].to_vec())]))),
            "{at}"
        );
    }
}

#[test]
fn blocks_that_are_asked_for_together_come_together_and_what_is_missing_says_why() {
    let rig = Rig::new();
    let mut client = rig.connect("a");
    let contents = [bytes(5, 8000), bytes(6, 800)];
    client.put(copy(1, 1), &contents[0]);
    client.put(copy(2, 7), &contents[1]);
    let get = |copy, start, bytes| Get { copy, start, bytes };
    let gets = [
        get(copy(1, 1), 0, 8000),
        get(copy(2, 7), 792, 16),
        get(copy(2, 7), 80, 720),
        get(copy(3, 1), 0, 8),
        get(copy(1, 1), 4000, 1),
        get(copy(1, 2), 0, 8),
    ];
    let missing = Err(Reason::NotThere);
    let expected = vec![
        Ok(contents[0].clone()),
        missing.clone(),
        Ok(contents[1][80..].to_vec()),
        missing.clone(),
        Ok(vec![contents[0][4000]]),
        missing,
    ];
    assert_eq!(client.call(|say, id| say.get(id, &gets)), Answer::Got(expected));
    let counts = rig.server.status().counts;
    assert_eq!((counts.gets, counts.missed_gets), (3, 3));
}

#[test]
fn copies_stay_when_the_connection_goes_and_go_with_their_store() {
    let rig = Rig::new();
    let content = bytes(2, 4096);
    let mut client = rig.connect("a");
    assert_eq!(client.put(copy(1, 1), &content), PutResult::Stored);
    drop(client);
    wait_until("the lender sees the end", || rig.address_of("a").is_none());
    assert_eq!(rig.server.status().borrowers[0].copies, 1);
    let mut again = Client::connect(rig.address, &hello("a", 2, 1));
    assert_eq!(again.get(copy(1, 1), 0, 4096), Ok(content));
    // Nobody else gets it (r6).
    let mut other = rig.connect("b");
    assert_eq!(other.get(copy(1, 1), 0, 4096), Err(Reason::NotThere));
    assert!(other.list().is_empty());
    drop(again);
    wait_until("the lender sees the end", || rig.address_of("a").is_none());
    let mut new = Client::connect(rig.address, &hello("a", 3, 2));
    assert_eq!(new.get(copy(1, 1), 0, 4096), Err(Reason::NotThere));
    assert_eq!(rig.server.status().held_bytes, 0);
    // Whoever leaves nothing behind is forgotten.
    drop((new, other));
    wait_until("nobody is known any more", || rig.server.status().borrowers.is_empty());
}

#[test]
fn a_node_that_comes_again_has_its_earlier_connection_ended() {
    let rig = Rig::new();
    let mut first = rig.connect("a");
    assert_eq!(first.put(copy(1, 1), &bytes(1, 800)), PutResult::Stored);
    // The earlier one does not even read: answers of several megabytes wait for it.
    for _ in 0..20_000 {
        first.ask(|say, id| say.get(id, &[Get { copy: copy(1, 1), start: 0, bytes: 800 }]));
        if first.socket.peek(&mut [0; 1]).is_err() {
            break;
        }
    }
    let mut second = rig.connect("a");
    assert_eq!(second.get(copy(1, 1), 0, 800), Ok(bytes(1, 800)));
    while first.next().is_some() {}
    assert!(first.try_call(|say, id| say.ping(id)).is_none());
    assert_eq!(rig.address_of("a"), Some(second.socket.local_addr().unwrap().to_string()));
}

#[test]
fn memory_that_the_host_wants_is_asked_back_and_dropped_at_the_deadline() {
    let deadline = Duration::from_millis(1500);
    let rig = Rig::with(LendingOptions { reserve_bytes: 1 << 30, deadline, ..LendingOptions::default() });
    let (mut many, mut few) = (rig.connect("many"), rig.connect("few"));
    for place in 0..20 {
        assert_eq!(many.put(copy(place, 100 + u64::from(place)), &extent(1).0), PutResult::Stored);
    }
    assert_eq!(few.put(copy(0, 1), &extent(2).0), PutResult::Stored);
    many.ping_until("an offer", |client| {
        client.offer.is_some_and(|(free, lent)| free > PLENTY / 2 && lent > 2 << 20)
    });
    // A megabyte less than it wants to keep.
    rig.available.store((1 << 30) - (1 << 20), SeqCst);
    many.ping_until("a recall", |client| client.recalled.len() >= 8);
    rig.available.store(PLENTY, SeqCst);
    // The oldest, of who has most; and until then they can be had.
    let recalled = many.recalled.clone();
    let places: Vec<u32> = recalled.iter().map(|(_, copy)| copy.place).collect();
    assert!(places == (0..places.len() as u32).collect::<Vec<_>>() && places.len() < 12, "{places:?}");
    assert!(recalled.iter().all(|(ms, _)| *ms <= 1500));
    assert!(few.recalled.is_empty());
    let last = recalled.last().unwrap().1;
    assert_eq!(rig.server.status().borrowers[1].counts.recalls, recalled.len() as u64);
    // One is taken elsewhere in time.
    many.flush(recalled[0].1);
    wait_until("the deadline", || rig.server.status().borrowers[1].dropped_copies == recalled.len() - 1);
    assert_eq!(many.get(last, 0, 8), Err(Reason::Dropped));
    assert!(many.get(copy(19, 119), 0, 8).is_ok());
    // It is said again until it is known.
    let mut again = rig.connect("many");
    again.ping_until("the same recall", |client| client.recalled.len() == recalled.len() - 1);
    assert!(again.recalled.iter().zip(&recalled[1..]).all(|(a, b)| *a == (0, b.1)));
    for (_, copy) in &recalled[1..] {
        again.flush(*copy);
    }
    assert_eq!(again.get(last, 0, 8), Err(Reason::NotThere));
    assert_eq!(rig.server.status().borrowers[1].dropped_copies, 0);
    let mut third = rig.connect("many");
    third.ping_until("an offer", |client| client.offer.is_some());
    assert!(third.recalled.is_empty());
}

#[test]
fn a_borrower_that_is_away_is_told_when_it_comes() {
    let deadline = Duration::from_secs(3600);
    let rig = Rig::with(LendingOptions { deadline, ..LendingOptions::default() });
    let mut client = rig.connect("a");
    client.put(copy(1, 1), &extent(1).0);
    drop(client);
    wait_until("the lender sees the end", || rig.address_of("a").is_none());
    rig.available.store(0, SeqCst);
    // What is held is all there is; a limit that is lower than that asks for it.
    drop(rig);
    let rig = Rig::with(LendingOptions { deadline, reserve_bytes: 1 << 20, ..LendingOptions::default() });
    let mut client = rig.connect("a");
    client.put(copy(1, 1), &extent(1).0);
    drop(client);
    wait_until("the lender sees the end", || rig.address_of("a").is_none());
    rig.available.store(0, SeqCst);
    wait_until("it is asked back", || rig.server.status().borrowers[0].recalled_copies == 1);
    let mut client = rig.connect("a");
    client.ping_until("the recall", |client| !client.recalled.is_empty());
    let (ms, recalled) = client.recalled[0];
    assert!(recalled == copy(1, 1) && (3_500_000..=3_600_000).contains(&ms), "{ms}");
}

#[test]
fn a_full_lender_takes_no_more_and_says_so() {
    let max_bytes = 10 * 131_072;
    let rig = Rig::with(LendingOptions { max_bytes, ..LendingOptions::default() });
    let mut client = rig.connect("a");
    let results: Vec<PutResult> = (0..20).map(|place| client.put(copy(place, 1), &extent(3).0)).collect();
    assert!(results[..9].iter().all(|result| *result == PutResult::Stored), "{results:?}");
    assert!(results[10..].iter().all(|result| *result == PutResult::NoRoom), "{results:?}");
    client.ping_until("an offer of nothing", |client| client.offer.is_some_and(|(free, _)| free < 131_072));
    let status = rig.server.status();
    assert!(status.held_bytes <= max_bytes + 16_384, "{status:?}");
    assert!(status.counts.refused_puts >= 10 && status.limit_bytes == max_bytes);
    client.flush(copy(0, 1));
    assert_eq!(client.put(copy(30, 1), &extent(3).0), PutResult::Stored);
}

#[test]
fn what_dies_block_by_block_is_closed_up_by_itself() {
    let rig = Rig::new();
    let mut client = rig.connect("a");
    let (bytes, blocks) = extent(4);
    for place in 0..40 {
        client.put(copy(place, 1), &bytes);
    }
    // Every other block of each.
    let dead: Vec<Run> = (blocks.iter().step_by(2))
        .map(|(start, len)| Run { start: (start / 8) as u16, units: (len / 8) as u16 })
        .collect();
    for place in 0..40 {
        client.call(|say, id| say.flush(id, &[(copy(place, 1), &dead)]));
    }
    let most = |needed: u64| needed + needed / 20 + 20_000;
    wait_until("the gaps are closed", || {
        let status = rig.server.status();
        status.held_bytes <= most(status.needed_bytes)
    });
    let (start, len) = blocks[1];
    for place in 0..40 {
        let got = client.get(copy(place, 1), start as u32, len as u32);
        assert!(got == Ok(bytes[start..start + len].to_vec()));
    }
}

#[test]
fn two_nodes_of_one_name_do_not_cost_the_first_its_copies() {
    let rig = Rig::new();
    let mut first = Client::connect(rig.address, &hello("a", 5, 1));
    assert_eq!(first.put(copy(1, 1), &bytes(1, 80)), PutResult::Stored);
    // Another store in the same epoch, and an earlier life.
    for (epoch, store, reason) in [(5, 2, Reason::NotAllowed), (4, 1, Reason::Fenced), (4, 2, Reason::Fenced)]
    {
        let mut second = Client::connect(rig.address, &hello("a", epoch, store));
        assert_eq!(second.next(), Some((0, Answer::Refused(reason))));
        assert_eq!(second.next(), None);
    }
    // Another store in a later epoch while the first one is there and says so.
    let second = Client::begin(rig.address, &hello("a", 6, 2));
    second.socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        assert_eq!(first.call(|say, id| say.ping(id)), Answer::Pong);
        let mut byte = [0];
        match second.socket.peek(&mut byte) {
            Ok(0) => break,
            Ok(_) => panic!("it was let in"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(first.get(copy(1, 1), 0, 80), Ok(bytes(1, 80)));
    // When nothing is heard of the first one, it is the same node after its end.
    let mut third = Client::connect(rig.address, &hello("a", 6, 2));
    assert!(third.list().is_empty());
    assert!(first.try_call(|say, id| say.ping(id)).is_none());
}

#[test]
fn r6_the_end_ends_everything_and_frees_the_port() {
    let rig = Rig::new();
    let mut client = rig.connect("a");
    client.put(copy(1, 1), &extent(1).0);
    let silent = TcpStream::connect(rig.address).unwrap();
    let address = rig.address;
    drop(rig);
    assert!(client.try_call(|say, id| say.ping(id)).is_none());
    drop((client, silent));
    wait_until("nobody listens", || TcpStream::connect(address).is_err());
}
