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

/// The peer's address of the only region of [`table`], as its bytes say.
const REGION_BASE: u64 = 0x1716_1514_1312_1110;

/// A ring's address, all parts of it from `base` on.
fn address(ring: u32, base: u64) -> Vec<u8> {
    let parts = [base, base + 0x1000, base + 0x2000, 0].map(u64::to_ne_bytes);
    message(9, 0, &[words(&[ring, 0]), parts.concat()].concat())
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
        let number = keeper.adopt("disk", keepers_guest.as_fd(), ends).unwrap();
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

    /// A question of the guest's and the library's answer to it.
    fn asks(&self, code: u32, flags: u32, answer: &[u8]) {
        self.says(&message(code, flags, b""));
        self.hears(&message(code, flags, b""));
        self.answers(&message(code, REPLY, answer));
        self.is_told(&message(code, REPLY, answer));
    }

    /// A statement of the guest's, with this many descriptors.
    fn states(&self, bytes: &[u8], descriptors: usize) {
        let (end, _other) = UnixStream::pair().unwrap();
        send(&self.guest, bytes, &vec![end.as_fd(); descriptors]);
        assert_eq!(self.hears(bytes).len(), descriptors);
    }

    /// The library is told this, and answers what is a question.
    fn is_replayed(&self, told: &[Vec<u8>]) {
        for bytes in told {
            self.hears(bytes);
            if [1, 15].contains(&bytes[0]) {
                self.answers(&message(bytes[0].into(), REPLY, &[0; 8]));
            }
        }
        Bench::nothing_comes(&self.library);
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
    let told = [
        (message(3, 0, b""), false),
        (features(2), false),
        (message(16, 0, &8u64.to_ne_bytes()), false),
        (table(1, 1), true),
        (number(8, 1, 128), false),
        (number(10, 1, 5), false),
        (address(1, REGION_BASE), false),
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

fn features(code: u32, bits: u64) -> Vec<u8> {
    message(code, 0, &bits.to_ne_bytes())
}

const PROTOCOL: u64 = 1 << 30;
const REPLY_ACK: u64 = 8;

/// What cloud-hypervisor does: once acknowledgements are agreed upon, every message asks for one.
#[test]
fn questions_that_ask_for_an_acknowledgement_are_questions() {
    let mut bench = Bench::new();
    bench.states(&features(16, REPLY_ACK), 0);
    bench.asks(1, NEED_REPLY, &PROTOCOL.to_ne_bytes());
    // Now it acknowledges, and the next message waits for that.
    bench.says(&[message(3, NEED_REPLY, b""), message(8, 0, &words(&[0, 64]))].concat());
    bench.hears(&message(3, NEED_REPLY, b""));
    Bench::nothing_comes(&bench.library);
    bench.answers(&message(3, REPLY, &[0; 8]));
    bench.hears(&message(8, 0, &words(&[0, 64])));
    bench.is_told(&message(3, REPLY, &[0; 8]));
    bench.next_worker();
    let told = [
        message(1, 0, b""),
        message(3, 0, b""),
        message(15, 0, b""),
        features(16, REPLY_ACK),
        message(8, 0, &words(&[0, 64])),
    ];
    bench.is_replayed(&told);
}

/// The library still goes by what was agreed upon before, and acknowledges.
#[test]
fn a_session_that_was_reset_is_told_as_it_was() {
    let mut bench = Bench::new();
    bench.asks(1, 0, &PROTOCOL.to_ne_bytes());
    let enable = message(18, 0, &words(&[0, 1]));
    for bytes in [&message(3, 0, b""), &features(2, PROTOCOL), &features(16, REPLY_ACK), &enable] {
        bench.states(bytes, 0);
    }
    bench.states(&message(4, 0, b""), 0);
    bench.says(&message(8, NEED_REPLY, &words(&[0, 64])));
    bench.hears(&message(8, NEED_REPLY, &words(&[0, 64])));
    bench.answers(&message(8, REPLY, &[0; 8]));
    bench.is_told(&message(8, REPLY, &[0; 8]));
    bench.next_worker();
    let mut told = vec![
        message(1, 0, b""),
        features(2, PROTOCOL),
        message(15, 0, b""),
        features(16, REPLY_ACK),
        message(8, 0, &words(&[0, 64])),
        enable,
        message(4, 0, b""),
    ];
    bench.is_replayed(&told);
    bench.states(&message(3, 0, b""), 0);
    bench.states(&features(2, PROTOCOL | 1), 0);
    bench.next_worker();
    told[1] = features(2, PROTOCOL | 1);
    told.extend([message(3, 0, b""), features(2, PROTOCOL | 1)]);
    bench.is_replayed(&told);
}

/// SET_FEATURES without protocol features enables all rings, and later features leave them as they are.
#[test]
fn rings_that_all_were_enabled_are_enabled_in_the_next_worker() {
    let mut bench = Bench::new();
    let enable = |number| message(18, 0, &words(&[0, number]));
    bench.states(&features(2, PROTOCOL | 1), 0);
    bench.states(&enable(0), 0);
    bench.states(&features(2, 1), 0);
    bench.next_worker();
    // No word about a single ring, which the library would hang up for.
    bench.is_replayed(&[features(2, 1), features(2, 1)]);
    bench.states(&features(2, PROTOCOL | 3), 0);
    bench.states(&enable(0), 0);
    bench.next_worker();
    bench.is_replayed(&[features(2, 3), features(2, PROTOCOL | 3), enable(0)]);
}

/// A region as messages have it, with the peer's address.
fn region(start: u64, base: u64) -> Vec<u8> {
    [start, 0x10000, base, 0].map(u64::to_ne_bytes).concat()
}

fn lone(code: u32, start: u64, base: u64) -> Vec<u8> {
    message(code, 0, &[vec![0; 8], region(start, base)].concat())
}

#[test]
fn memory_is_told_as_it_is_now() {
    let mut bench = Bench::new();
    let table = |start| message(5, 0, &[words(&[1, 0]), region(start, start)].concat());
    bench.states(&lone(37, 0x10000, 0x10000), 1);
    // A table replaces all that was there.
    bench.states(&table(0x40000), 1);
    bench.states(&lone(37, 0x80000, 0x80000), 1);
    bench.states(&lone(37, 0xa0000, 0xa0000), 1);
    bench.next_worker();
    let others = [lone(37, 0x80000, 0x80000), lone(37, 0xa0000, 0xa0000)];
    bench.is_replayed(&[&[table(0x40000)], &others[..]].concat());
    // The library does not look at the peer's address. Nor does it take a table of nothing.
    bench.states(&lone(38, 0x80000, 0), 0);
    bench.states(&lone(38, 0x40000, 0x40000), 1);
    bench.next_worker();
    bench.is_replayed(&[lone(37, 0xa0000, 0xa0000)]);
}

/// The library hangs up for the address of a ring that lies nowhere, and the guest would be lost with it.
#[test]
fn a_ring_in_memory_that_is_gone_has_no_address() {
    let mut bench = Bench::new();
    bench.states(&lone(37, 0x10000, 0x10000), 1);
    bench.states(&lone(37, 0x40000, 0x40000), 1);
    bench.states(&address(0, 0x10000), 0);
    bench.states(&address(1, 0x40000), 0);
    bench.states(&lone(38, 0x40000, 0x40000), 0);
    bench.next_worker();
    bench.is_replayed(&[lone(37, 0x10000, 0x10000), address(0, 0x10000)]);
}

#[test]
fn a_size_that_the_library_passes_over_is_not_remembered() {
    let mut bench = Bench::new();
    bench.states(&message(8, 0, &words(&[0, 64])), 0);
    bench.states(&message(8, 0, &words(&[0, 100])), 0);
    bench.next_worker();
    bench.is_replayed(&[message(8, 0, &words(&[0, 64]))]);
}

#[test]
fn questions_that_nobody_should_ask_wait_for_their_answer_all_the_same() {
    for code in [6, 41, 42, 43, 44] {
        let bench = Bench::new();
        bench.says(&[message(code, 0, b""), message(11, 0, &words(&[0, 0]))].concat());
        bench.hears(&message(code, 0, b""));
        Bench::nothing_comes(&bench.library);
        bench.answers(&message(code, REPLY, &[1; 8]));
        bench.hears(&message(11, 0, &words(&[0, 0])));
    }
}

#[test]
fn the_second_channel_for_requests_takes_the_place_of_the_first() {
    let mut bench = Bench::new();
    let (first, mut first_other) = UnixStream::pair().unwrap();
    let (second, mut second_other) = UnixStream::pair().unwrap();
    for channel in [first, second] {
        send(&bench.guest, &message(21, 0, b""), &[channel.as_fd()]);
        drop(bench.hears(&message(21, 0, b"")));
    }
    // Nobody has the first any more, and the keeper has the second.
    first_other.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(first_other.read(&mut [0]).unwrap(), 0);
    second_other.set_nonblocking(true).unwrap();
    assert_eq!(second_other.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    bench.next_worker();
    assert_eq!(bench.hears(&message(21, 0, b"")).len(), 1);
}

/// A worker that died before it knew the number of a guest's connection may have left it twice.
#[test]
fn a_label_has_one_guest() {
    let mut bench = Bench::new();
    let (second, keepers_second) = UnixStream::pair().unwrap();
    let (_library, _life, ends) = ends();
    let number = bench.keeper.adopt("disk", keepers_second.as_fd(), ends).unwrap();
    assert_eq!(bench.guest.read(&mut [0]).unwrap(), 0, "the first is turned away");
    let connections = bench.keeper.list().unwrap().connections;
    assert_eq!(connections.iter().map(|kept| kept.number).collect::<Vec<_>>(), [number]);
    drop(second);
}
