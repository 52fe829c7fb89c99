//! The relay between sockets of the test: what a guest and a worker's library see of each other, and of a worker's death.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tmem_keeper::{Client, GuestEnds, in_process};

const NEED_REPLY: u32 = 8;
const REPLY: u32 = 4;

fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let words = [code, 1 | flags, payload.len() as u32].map(u32::to_ne_bytes);
    [words.concat().as_slice(), payload].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A memory table that names `named` regions and has room for `room`.
fn table(named: u32, room: usize) -> Vec<u8> {
    let regions = (0..room * 32).map(|byte| byte as u8);
    message(5, 0, &words(&[named, 0]).into_iter().chain(regions).collect::<Vec<_>>())
}

fn send(to: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// The next message and its descriptors.
fn receive(from: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    let mut wanted = 12;
    while bytes.len() < wanted {
        let mut buffer = vec![0; wanted - bytes.len()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::empty();
        let got =
            rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags).unwrap();
        assert!(got.bytes > 0, "closed after {bytes:?}");
        bytes.extend(&buffer[..got.bytes]);
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        if bytes.len() >= 12 {
            wanted = 12 + u32::from_ne_bytes(bytes[8..12].try_into().unwrap()) as usize;
        }
    }
    (bytes, descriptors)
}

/// A keeper, and what a guest and a worker hold.
struct Bench {
    keeper: Client,
    number: u32,
    guest: UnixStream,
    library: UnixStream,
    life: UnixStream,
}

fn ends() -> (UnixStream, UnixStream, GuestEnds) {
    let ((library, keepers_library), (life, keepers_life)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    for end in [&library, &life] {
        end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    (library, life, GuestEnds { library: keepers_library, life: keepers_life })
}

impl Bench {
    fn new() -> Bench {
        let keeper = in_process().unwrap();
        let (guest, keepers_guest) = UnixStream::pair().unwrap();
        guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (library, life, ends) = ends();
        let number = keeper.adopt("disk", keepers_guest, ends).unwrap();
        Bench { keeper, number, guest, library, life }
    }

    fn says(&self, bytes: &[u8]) {
        send(&self.guest, bytes, &[]);
    }

    /// The library gets exactly this.
    fn hears(&self, expected: &[u8]) -> Vec<OwnedFd> {
        let (bytes, descriptors) = receive(&self.library);
        assert_eq!(bytes, expected);
        descriptors
    }

    fn answers(&self, bytes: &[u8]) {
        (&self.library).write_all(bytes).unwrap();
    }

    fn is_told(&self, expected: &[u8]) {
        assert_eq!(receive(&self.guest).0, expected);
    }

    /// The worker dies, and the next one takes the guest.
    fn next_worker(&mut self) {
        let (library, life, ends) = ends();
        (self.library, self.life) = (library, life);
        self.keeper.attach(self.number, ends).unwrap();
    }

    fn nothing_comes(stream: &UnixStream) {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let error = (&mut &*stream).read(&mut [0; 64]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
}

#[test]
fn messages_pass_unchanged_in_both_directions() {
    let bench = Bench::new();
    bench.says(&message(24, 0, b"some payload"));
    bench.hears(&message(24, 0, b"some payload"));
    bench.answers(&message(24, REPLY, b"its answer"));
    bench.is_told(&message(24, REPLY, b"its answer"));
    bench.says(&message(3, 0, b""));
    bench.says(&message(8, 0, &words(&[0, 256])));
    bench.hears(&message(3, 0, b""));
    bench.hears(&message(8, 0, &words(&[0, 256])));
}

#[test]
fn nothing_is_passed_on_before_the_answer_to_what_came_before() {
    let bench = Bench::new();
    bench.says(&[message(1, 0, b""), message(3, 0, b"")].concat());
    bench.hears(&message(1, 0, b""));
    Bench::nothing_comes(&bench.library);
    bench.answers(&message(1, REPLY, &7u64.to_ne_bytes()));
    bench.hears(&message(3, 0, b""));
}

#[test]
fn a_memory_table_is_cut_to_its_regions() {
    for (named, room) in [(1, 2), (1, 8), (2, 8), (0, 1)] {
        let bench = Bench::new();
        bench.says(&[table(named, room), message(3, 0, b"")].concat());
        bench.hears(&table(named, named as usize));
        bench.hears(&message(3, 0, b""));
    }
    for whole in [table(2, 2), table(3, 1), table(u32::MAX, 1), message(5, 0, &[1, 0])] {
        let bench = Bench::new();
        bench.says(&whole);
        bench.hears(&whole);
    }
}

#[test]
fn descriptors_arrive_with_their_message_however_it_is_cut() {
    let bench = Bench::new();
    let (sent, mut other_end) = UnixStream::pair().unwrap();
    let request = table(1, 1);
    send(&bench.guest, &request[..20], &[sent.as_fd()]);
    drop(sent);
    Bench::nothing_comes(&bench.library);
    send(&bench.guest, &request[20..], &[]);
    let descriptors = bench.hears(&request);
    assert_eq!(descriptors.len(), 1);
    UnixStream::from(descriptors.into_iter().next().unwrap()).write_all(b"x").unwrap();
    let mut got = [0];
    other_end.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"x");
}

#[test]
fn what_cannot_be_passed_on_closes_the_connection() {
    for bytes in [words(&[5, 1, 4097]), words(&[5, 1, u32::MAX])] {
        let mut bench = Bench::new();
        bench.says(&bytes);
        let mut word = [0];
        bench.life.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"B");
        assert_eq!(bench.life.read(&mut word).unwrap(), 0);
        assert_eq!(bench.guest.read(&mut word).unwrap(), 0);
    }
    // Two bytes of one message, each with as many descriptors as a whole message may have.
    let mut bench = Bench::new();
    let (end, _other) = UnixStream::pair().unwrap();
    for _ in 0..2 {
        send(&bench.guest, b"\x05", &[end.as_fd(); 32]);
    }
    let mut word = [0];
    bench.life.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"B");
}

/// What a guest says at its start, and what of it every worker has to hear.
fn set_up(bench: &Bench, ring: &UnixStream) -> Vec<Vec<u8>> {
    let features = |code| message(code, 0, &0x4000_0000u64.to_ne_bytes());
    bench.says(&message(1, 0, b""));
    bench.hears(&message(1, 0, b""));
    let offered = message(1, REPLY, &0x4000_0000u64.to_ne_bytes());
    bench.answers(&offered);
    bench.is_told(&offered);
    let number = |code, ring: u32, number: u32| message(code, 0, &words(&[ring, number]));
    let mut address = words(&[1, 0]);
    address.extend((0..32).map(|byte| byte as u8));
    let told = [
        (message(3, 0, b""), false),
        (features(2), false),
        (message(16, 0, &8u64.to_ne_bytes()), false),
        (table(1, 1), true),
        (number(8, 1, 128), false),
        (number(10, 1, 5), false),
        (message(9, 0, &address), false),
        (message(13, 0, &1u64.to_ne_bytes()), true),
        (message(12, 0, &1u64.to_ne_bytes()), true),
        (number(18, 1, 1), false),
    ];
    for (bytes, has_descriptor) in &told {
        send(&bench.guest, bytes, &[ring.as_fd()][..usize::from(*has_descriptor)]);
        assert_eq!(bench.hears(bytes).len(), usize::from(*has_descriptor));
    }
    told.into_iter().map(|(bytes, _)| bytes).collect()
}

/// What the next worker hears of such a session. Its answers to questions that the guest did not ask are given, too.
fn hears_again(bench: &Bench, told: &[Vec<u8>]) {
    bench.hears(&message(1, 0, b""));
    bench.answers(&message(1, REPLY, &0x4000_0000u64.to_ne_bytes()));
    for bytes in told {
        if bytes[0] == 16 {
            bench.hears(&message(15, 0, b""));
            bench.answers(&message(15, REPLY, &0x28u64.to_ne_bytes()));
        }
        let descriptors = bench.hears(bytes);
        assert_eq!(descriptors.len(), usize::from([5, 12, 13].contains(&bytes[0])), "{bytes:?}");
    }
}

#[test]
fn the_next_worker_hears_the_whole_session_and_the_guest_nothing() {
    let mut bench = Bench::new();
    let (ring, _other) = UnixStream::pair().unwrap();
    let told = set_up(&bench, &ring);
    for _ in 0..3 {
        bench.next_worker();
        hears_again(&bench, &told);
        Bench::nothing_comes(&bench.guest);
    }
    bench.says(&message(24, 0, b"config"));
    bench.hears(&message(24, 0, b"config"));
    bench.answers(&message(24, REPLY, b"config"));
    bench.is_told(&message(24, REPLY, b"config"));
}

#[test]
fn a_question_that_a_dead_worker_did_not_answer_is_asked_again() {
    let mut bench = Bench::new();
    let (ring, _other) = UnixStream::pair().unwrap();
    let told = set_up(&bench, &ring);
    let stop = message(11, 0, &words(&[1, 0]));
    bench.says(&stop);
    bench.hears(&stop);
    bench.next_worker();
    // The ring runs until the answer is there.
    hears_again(&bench, &told);
    bench.hears(&stop);
    bench.answers(&message(11, REPLY, &words(&[1, 77])));
    bench.is_told(&message(11, REPLY, &words(&[1, 77])));

    bench.next_worker();
    let stopped: Vec<Vec<u8>> = told
        .into_iter()
        .filter(|bytes| ![12, 13].contains(&bytes[0]))
        .map(|bytes| if bytes[0] == 10 { message(10, 0, &words(&[1, 77])) } else { bytes })
        .collect();
    hears_again(&bench, &stopped);
}

#[test]
fn what_was_to_be_acknowledged_is_sent_again_and_remembered_once() {
    let mut bench = Bench::new();
    let (ring, _other) = UnixStream::pair().unwrap();
    let mut told = set_up(&bench, &ring);
    let number = |flags| message(8, flags, &words(&[2, 64]));
    bench.says(&number(NEED_REPLY));
    bench.hears(&number(NEED_REPLY));
    bench.next_worker();
    hears_again(&bench, &told);
    bench.hears(&number(NEED_REPLY));
    bench.answers(&message(8, REPLY, &0u64.to_ne_bytes()));
    bench.is_told(&message(8, REPLY, &0u64.to_ne_bytes()));
    told.push(number(0));
    bench.next_worker();
    hears_again(&bench, &told);

    // One that was refused is not remembered.
    let refused = message(8, NEED_REPLY, &words(&[3, 64]));
    bench.says(&refused);
    bench.hears(&refused);
    bench.answers(&message(8, REPLY, &1u64.to_ne_bytes()));
    bench.is_told(&message(8, REPLY, &1u64.to_ne_bytes()));
    bench.next_worker();
    hears_again(&bench, &told);
    Bench::nothing_comes(&bench.library);
}

#[test]
fn a_library_that_hangs_up_leaves_the_guest_where_it_is() {
    let mut bench = Bench::new();
    let (closed, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut bench.library, closed));
    let mut word = [0];
    bench.life.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"H");
    bench.says(&message(3, 0, b""));
    Bench::nothing_comes(&bench.guest);
    bench.next_worker();
    bench.hears(&message(3, 0, b""));
    bench.keeper.close(bench.number).unwrap();
    assert_eq!(bench.guest.read(&mut word).unwrap(), 0);
}

#[test]
fn a_guest_that_leaves_closes_library_and_life_and_is_not_there_for_the_next() {
    let mut bench = Bench::new();
    let (closed, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut bench.guest, closed));
    let mut word = [0];
    assert_eq!(bench.library.read(&mut word).unwrap(), 0);
    assert_eq!(bench.life.read(&mut word).unwrap(), 0);
    let (_library, _life, ends) = ends();
    assert_eq!(bench.keeper.attach(bench.number, ends).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(bench.keeper.list().unwrap().connections.is_empty());
}

#[test]
fn what_is_kept_is_listed_until_it_is_released() {
    let keeper = in_process().unwrap();
    let (mut first, second) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    keeper.keep("a", second.as_fd()).unwrap();
    keeper.keep("b", second.as_fd()).unwrap();
    first.write_all(b"newer").unwrap();
    keeper.keep("a", first.as_fd()).unwrap();
    keeper.release("b").unwrap();
    let [(name, file)] = <[_; 1]>::try_from(keeper.list().unwrap().files).unwrap();
    assert_eq!(name, "a");
    assert_eq!(std::fs::File::from(file).metadata().unwrap().len(), 5);
    assert!(keeper.keep(&"x".repeat(201), first.as_fd()).is_err());
}
