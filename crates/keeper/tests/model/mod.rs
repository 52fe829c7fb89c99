//! A guest's session with one library, and the same with libraries that die: the guest must not see the difference, and the last library must
//! know what the only one knows.
//!
//! [`Library`] applies messages as the crates `vhost` and `vhost-user-backend` do, as far as the device lets them come.

use std::{
    collections::BTreeMap,
    io::{IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    io::retry_on_intr,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags,
    },
};
use tmem_keeper::{GuestEnds, in_process};

const NEED_REPLY: u32 = 8;
const REPLY: u32 = 4;
pub const PROTOCOL: u64 = 1 << 30;
pub const REPLY_ACK: u64 = 1 << 3;
const RINGS: usize = 4;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message from the guest, and how many descriptors come with it. The first of them says which they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub code: u32,
    pub flags: u32,
    pub payload: Vec<u8>,
    pub descriptors: Vec<usize>,
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let words = [self.code, self.flags, self.payload.len() as u32].map(u32::to_ne_bytes);
        [words.concat().as_slice(), &self.payload].concat()
    }
}

/// How a library dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// With a message unread.
    Unread,
    /// Having done what the message says, but said nothing.
    Unanswered,
    /// In the midst of its answer.
    HalfAnswered,
    /// Right after it.
    Answered,
}

type Word = u64;

/// A ring as a library knows it. Descriptors are inodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ring {
    size: u32,
    base: u32,
    address: Option<[Word; 3]>,
    kick: Option<Word>,
    call: Option<Word>,
    error: Option<Word>,
    enabled: bool,
}

/// What a library knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Library {
    /// The library's own part.
    asked: bool,
    acked: Word,
    protocol: Word,
    /// The device's part.
    owned: bool,
    features: Word,
    device_protocol: Word,
    ring_features: Word,
    rings: [Ring; RINGS],
    /// By guest address: size, the peer's address, offset, file.
    memory: BTreeMap<Word, [Word; 4]>,
    channel: Option<Word>,
}

/// The library hangs up.
#[derive(Debug)]
pub struct HungUp;

fn word(bytes: &[u8], at: usize) -> Word {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Library {
    /// The answer to a message, if it is answered. It may have been answered by a library that hangs up.
    pub fn hears(
        &mut self,
        code: u32,
        flags: u32,
        payload: &[u8],
        files: &[Word],
    ) -> (Option<Vec<u8>>, Result<(), HungUp>) {
        let answer = |payload: &[u8]| {
            let words = [code, 1 | REPLY, payload.len() as u32].map(u32::to_ne_bytes);
            [words.concat().as_slice(), payload].concat()
        };
        let takes_files = [5, 6, 7, 12, 13, 14, 21, 32, 33, 37, 38, 42].contains(&code);
        if flags & 3 != 1
            || flags & !0xf != 0
            || code == 0
            || code > 44
            || (!takes_files && !files.is_empty())
        {
            return (None, Err(HungUp));
        }
        match self.question(code, flags, payload) {
            Some(Ok(reply)) => return (Some(answer(&reply)), Ok(())),
            Some(Err(error)) => return (None, Err(error)),
            None => {}
        }
        let result = self.statement(code, flags, payload, files);
        let acknowledges = flags & NEED_REPLY != 0 && self.asked && self.protocol & REPLY_ACK != 0;
        match result {
            Ok(result) => {
                let status = u64::from(result.is_err());
                (acknowledges.then(|| answer(&status.to_ne_bytes())), result)
            }
            // Found before it comes to an acknowledgement.
            Err(error) => (None, Err(error)),
        }
    }

    fn agreed(&self, bit: u32) -> Result<(), HungUp> {
        if self.protocol & 1 << bit != 0 { Ok(()) } else { Err(HungUp) }
    }

    fn question(&mut self, code: u32, flags: u32, payload: &[u8]) -> Option<Result<Vec<u8>, HungUp>> {
        let empty = if payload.is_empty() && flags & REPLY == 0 { Ok(()) } else { Err(HungUp) };
        let number = |number: Word| number.to_ne_bytes().to_vec();
        Some(match code {
            1 => empty.map(|()| {
                self.asked = true;
                number(PROTOCOL | 7)
            }),
            11 => self.stop(flags, payload),
            15 => empty.map(|()| number(0x8229)),
            17 => self.agreed(0).and(empty).map(|()| number(RINGS as u64)),
            24 => self.agreed(9).and(if flags & REPLY == 0 { Ok(payload.to_vec()) } else { Err(HungUp) }),
            36 => self.agreed(15).and(empty).map(|()| number(509)),
            43 => Ok(number(1)),
            _ => return None,
        })
    }

    /// GET_VRING_BASE. A ring that is in memory knows itself where it is.
    fn stop(&mut self, flags: u32, payload: &[u8]) -> Result<Vec<u8>, HungUp> {
        let state = Self::ring_state(flags, payload)?;
        let position = self.rings.get(state.0).ok_or(HungUp)?;
        let position = match position.address {
            Some(parts) => parts[0] as u32 & 0xffff,
            None => position.base,
        };
        let ring = &mut self.rings[state.0];
        (ring.base, ring.kick, ring.call) = (position, None, None);
        Ok([payload[..4].to_vec(), position.to_ne_bytes().to_vec()].concat())
    }

    fn ring_state(flags: u32, payload: &[u8]) -> Result<(usize, u32), HungUp> {
        if payload.len() != 8 || flags & REPLY != 0 {
            return Err(HungUp);
        }
        Ok((half(payload, 0) as usize, half(payload, 4)))
    }

    /// The outer error: it hangs up without an acknowledgement.
    fn statement(
        &mut self,
        code: u32,
        flags: u32,
        payload: &[u8],
        files: &[Word],
    ) -> Result<Result<(), HungUp>, HungUp> {
        let sized = |bytes: usize| {
            if payload.len() == bytes && flags & REPLY == 0 { Ok(()) } else { Err(HungUp) }
        };
        let fits = |fits: bool| if fits { Ok(()) } else { Err(HungUp) };
        match code {
            2 => {
                sized(8)?;
                self.acked = word(payload, 0);
                let known = self.acked & !(PROTOCOL | 7) == 0;
                if known {
                    (self.features, self.ring_features) = (self.acked, self.acked);
                    let all = self.features & PROTOCOL == 0;
                    self.rings.iter_mut().for_each(|ring| ring.enabled |= all);
                }
                Ok(fits(known))
            }
            3 => {
                sized(0)?;
                Ok(fits(!std::mem::replace(&mut self.owned, true)))
            }
            4 => {
                sized(0)?;
                (self.owned, self.features, self.device_protocol) = (false, 0, 0);
                Ok(Ok(()))
            }
            5 => Ok(fits(flags & REPLY == 0).and_then(|()| self.table(payload, files))),
            8 => {
                sized(8)?;
                let (ring, size) = Self::ring_state(flags, payload)?;
                let Some(ring) = self.rings.get_mut(ring) else { return Ok(Err(HungUp)) };
                if size.is_power_of_two() && size <= 256 {
                    ring.size = size;
                }
                Ok(fits((1..=256).contains(&size)))
            }
            9 => {
                sized(40)?;
                fits(half(payload, 4) <= 1)?;
                let parts = [word(payload, 8), word(payload, 16), word(payload, 24)];
                fits(parts[0] & 15 == 0 && parts[1] & 3 == 0 && parts[2] & 1 == 0)?;
                let there = self.in_memory(parts);
                let ring = self.rings.get_mut(half(payload, 0) as usize).filter(|_| there);
                Ok(ring.map(|ring| ring.address = Some(parts)).ok_or(HungUp))
            }
            10 => {
                let (ring, base) = Self::ring_state(flags, payload)?;
                let ring = self.rings.get_mut(ring);
                Ok(ring.map(|ring| ring.base = base & 0xffff).ok_or(HungUp))
            }
            12..=14 => {
                sized(8)?;
                let file = if let [file] = files { Some(*file) } else { None };
                fits((payload[1] & 1 == 0) == file.is_some())?;
                let Some(ring) = self.rings.get_mut(usize::from(payload[0])) else { return Ok(Err(HungUp)) };
                *[&mut ring.kick, &mut ring.call, &mut ring.error][code as usize - 12] = file;
                Ok(Ok(()))
            }
            16 => {
                sized(8)?;
                (self.protocol, self.device_protocol) = (word(payload, 0), word(payload, 0));
                Ok(Ok(()))
            }
            18 => {
                let (ring, enable) = Self::ring_state(flags, payload)?;
                fits(self.acked & PROTOCOL != 0 && enable <= 1)?;
                let allowed = self.features & PROTOCOL != 0;
                let ring = self.rings.get_mut(ring).filter(|_| allowed);
                Ok(ring.map(|ring| ring.enabled = enable == 1).ok_or(HungUp))
            }
            21 => {
                self.agreed(5)?;
                fits(flags & REPLY == 0)?;
                let [file] = files else { return Ok(Err(HungUp)) };
                self.channel = Some(*file);
                Ok(Ok(()))
            }
            25 => {
                self.agreed(9)?;
                fits(flags & REPLY == 0)?;
                Ok(Ok(()))
            }
            37 => {
                self.agreed(15)?;
                let [file] = files else { return Err(HungUp) };
                sized(40)?;
                Ok(self.add(&payload[8..], *file))
            }
            38 => {
                self.agreed(15)?;
                sized(40)?;
                fits(Self::is_region(&payload[8..]))?;
                let (start, size) = (word(payload, 8), word(payload, 16));
                let there = self.memory.get(&start).is_some_and(|region| region[0] == size);
                self.memory.retain(|at, _| !there || *at != start);
                Ok(fits(there))
            }
            _ => Err(HungUp),
        }
    }

    fn is_region(region: &[u8]) -> bool {
        let ends = [0, 16, 24].map(|at| word(region, at).checked_add(word(region, 8)));
        word(region, 8) != 0 && ends.iter().all(Option::is_some)
    }

    fn add(&mut self, region: &[u8], file: Word) -> Result<(), HungUp> {
        let [start, size, base, offset] = [0, 8, 16, 24].map(|at| word(region, at));
        let overlaps = |(at, other): (&Word, &[Word; 4])| *at < start + size && start < at + other[0];
        if !Self::is_region(region) || self.memory.iter().any(overlaps) {
            return Err(HungUp);
        }
        self.memory.insert(start, [size, base, offset, file]);
        Ok(())
    }

    fn table(&mut self, payload: &[u8], files: &[Word]) -> Result<(), HungUp> {
        if payload.len() < 8 || half(payload, 4) != 0 || !(1..=32).contains(&half(payload, 0)) {
            return Err(HungUp);
        }
        let named = half(payload, 0) as usize;
        // The keeper cuts what is behind the regions.
        let Some(regions) = payload[8..].get(..32 * named).filter(|_| files.len() == named) else {
            return Err(HungUp);
        };
        let mut other = Library::default();
        for (region, file) in regions.chunks(32).zip(files) {
            other.add(region, *file)?;
        }
        self.memory = other.memory;
        Ok(())
    }

    fn in_memory(&self, parts: [Word; 3]) -> bool {
        parts.into_iter().zip([1, 4, 1]).all(|(part, bytes)| {
            let has = |[size, base, ..]: &[Word; 4]| {
                part.checked_sub(*base).is_some_and(|offset| offset.saturating_add(bytes) <= *size)
            };
            self.memory.values().any(has)
        })
    }

    /// No ring is in memory that has gone. What becomes of one that is depends on when its library died.
    fn has_its_rings(&self) -> bool {
        self.rings.iter().filter_map(|ring| ring.address).all(|parts| self.in_memory(parts))
    }

    /// Without what the next library is meant to see otherwise: a ring in memory knows itself where it is.
    fn normal(mut self) -> Library {
        self.rings.iter_mut().filter(|ring| ring.address.is_some()).for_each(|ring| ring.base = 0);
        self
    }
}

/// Files that tell each other apart.
struct Files(Vec<(OwnedFd, OwnedFd)>);

fn inode(file: &OwnedFd) -> Word {
    rustix_inode(file.as_fd())
}

fn rustix_inode(file: BorrowedFd<'_>) -> Word {
    use std::os::unix::fs::MetadataExt;
    std::fs::File::from(file.try_clone_to_owned().unwrap()).metadata().unwrap().ino()
}

impl Files {
    fn new() -> Files {
        let pair = || UnixStream::pair().map(|(one, other)| (one.into(), other.into())).unwrap();
        Files((0..4).map(|_| pair()).collect())
    }

    fn get(&self, which: usize) -> &OwnedFd {
        &self.0[which % self.0.len()].0
    }
}

/// Sends, the descriptors with the first byte, the rest in pieces.
fn send(to: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>], piece: usize) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let (first, rest) = bytes.split_at(piece.clamp(1, bytes.len()));
    let sent = retry_on_intr(|| {
        rustix::net::sendmsg(to, &[IoSlice::new(first)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    assert_eq!(sent, first.len());
    for piece in rest.chunks(piece.max(1)) {
        thread::yield_now();
        (&mut &*to).write_all(piece)?;
    }
    Ok(())
}

/// The next message and its descriptors, if one comes. A signal does not end the wait: the fuzzer's clock is one.
fn receive(from: &UnixStream) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    let mut wanted = 12;
    while bytes.len() < wanted {
        let mut buffer = vec![0; wanted - bytes.len()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::empty();
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = retry_on_intr(|| rustix::net::recvmsg(from, &mut parts, &mut ancillary, flags)).ok()?;
        if got.bytes == 0 {
            return None;
        }
        bytes.extend(&buffer[..got.bytes]);
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        if bytes.len() >= 12 {
            wanted = 12 + half(&bytes, 8) as usize;
        }
    }
    Some((bytes, descriptors))
}

/// A library's life: until its time has come, it hangs up, or the socket closes. Gives what it knows then.
fn lives(mut library: UnixStream, end: Option<(usize, Death)>) -> (Library, Result<(), HungUp>) {
    let mut state = Library::default();
    let mut left = end.map_or(usize::MAX, |(messages, _)| messages);
    loop {
        if left == 0 && end.is_some_and(|(_, death)| death == Death::Unread) {
            return (state, Ok(()));
        }
        let Some((bytes, descriptors)) = receive(&library) else { return (state, Ok(())) };
        let files: Vec<Word> = descriptors.iter().map(inode).collect();
        let (answer, result) = state.hears(half(&bytes, 0), half(&bytes, 4), &bytes[12..], &files);
        let death = end.filter(|_| left == 0).map(|(_, death)| death);
        let bytes = match (&answer, death) {
            (Some(_), Some(Death::Unanswered)) | (None, _) => &[][..],
            (Some(answer), Some(Death::HalfAnswered)) => &answer[..answer.len() / 2],
            (Some(answer), _) => answer,
        };
        // The keeper may have turned the guest away.
        let _ = library.write_all(bytes);
        if result.is_err() || death.is_some() {
            return (state, result);
        }
        left -= 1;
    }
}

/// What a session comes to without deaths: which of the messages do not make the library hang up, and the answers to them.
struct Expected {
    good: Vec<Sent>,
    answers: Vec<Vec<u8>>,
    library: Library,
}

impl Expected {
    fn of(messages: &[Sent], files: &Files) -> Expected {
        let mut expected = Expected { good: Vec::new(), answers: Vec::new(), library: Library::default() };
        for message in messages {
            let mut library = expected.library.clone();
            let (answer, result) = library.hears_sent(message, files);
            if result.is_ok() && library.has_its_rings() {
                expected.library = library;
                expected.good.push(message.clone());
                expected.answers.extend(answer);
            }
        }
        expected
    }
}

impl Library {
    fn hears_sent(&mut self, message: &Sent, files: &Files) -> (Option<Vec<u8>>, Result<(), HungUp>) {
        let inodes: Vec<Word> = message.descriptors.iter().map(|which| inode(files.get(*which))).collect();
        self.hears(message.code, message.flags, &message.payload, &inodes)
    }
}

fn ends() -> (UnixStream, UnixStream, GuestEnds) {
    let ((library, keepers_library), (life, keepers_life)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    (library, life, GuestEnds { library: keepers_library, life: keepers_life })
}

/// Has a guest say all messages that are right, to libraries that die after so many messages, each in its way, and then the one that is wrong, if
/// there is one.
pub fn check(messages: &[Sent], wrong: Option<&Sent>, deaths: &[(usize, Death)], piece: usize) {
    let files = Files::new();
    let Expected { good, answers, library: mut expected } = Expected::of(messages, &files);
    let keeper = in_process().unwrap();
    let (guest, keepers_guest) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    // With nobody to serve it as yet.
    let number = {
        let (_, _, ends) = ends();
        // The keeper has the only one then.
        let number = keeper.adopt("disk", keepers_guest.as_fd(), ends).unwrap();
        drop(keepers_guest);
        number
    };
    let say = |message: &Sent| {
        let descriptors: Vec<_> = message.descriptors.iter().map(|which| files.get(*which).as_fd()).collect();
        send(&guest, &message.bytes(), &descriptors, piece)
    };
    let is_answered = |expected: &[u8]| {
        let (answer, _) = receive(&guest).expect("an answer");
        assert_eq!(answer, expected);
    };
    thread::scope(|scope| {
        scope.spawn(|| good.iter().for_each(|message| say(message).unwrap()));
        let (done, all_answered) = mpsc::channel();
        scope.spawn(move || {
            answers.iter().for_each(|answer| is_answered(answer));
            done.send(()).unwrap();
        });
        for death in deaths {
            let (library, _life, ends) = ends();
            keeper.attach(number, ends).unwrap();
            library.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let (_, result) = lives(library, Some(*death));
            result.expect("it takes all that it is told");
        }
        // One that lives on, until the guest has all answers.
        let (library, _life, ends) = ends();
        keeper.attach(number, ends).unwrap();
        let reader = library.try_clone().unwrap();
        let last = scope.spawn(|| lives(reader, None));
        let answered = all_answered.recv_timeout(PATIENCE);
        let _ = library.shutdown(std::net::Shutdown::Both);
        last.join().unwrap().1.expect("it takes all that it is told");
        answered.expect("all answers");
    });
    // What the next one knows after one question is all from the keeper. Messages without an answer may still be on their way; the question is behind them.
    let question = Sent { code: 1, flags: 1, payload: Vec::new(), descriptors: Vec::new() };
    let tail: Vec<&Sent> = std::iter::once(&question).chain(wrong).collect();
    for (at, message) in tail.into_iter().enumerate() {
        let (answer, result) = expected.hears_sent(message, &files);
        let (library, _life, ends) = ends();
        keeper.attach(number, ends).unwrap();
        let reader = library.try_clone().unwrap();
        let last = thread::spawn(|| lives(reader, None));
        say(message).unwrap();
        answer.iter().for_each(|answer| is_answered(answer));
        if at == 0 {
            library.shutdown(std::net::Shutdown::Both).unwrap();
            let (known, _) = last.join().unwrap();
            assert_eq!(known.normal(), expected.clone().normal());
        } else if result.is_err() {
            assert!(last.join().unwrap().1.is_err(), "it hangs up, too");
        } else {
            library.shutdown(std::net::Shutdown::Both).unwrap();
            last.join().unwrap().1.unwrap();
        }
    }
    keeper.close(number).unwrap();
    let more = retry_on_intr(|| rustix::io::read(&guest, &mut [0u8]));
    assert_eq!(more.unwrap_or(0), 0, "nothing that it did not ask for");
}
