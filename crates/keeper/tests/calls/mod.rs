//! A worker's calls, in order and not, and a model of what the keeper has to hold and to answer after each of them.
//!
//! Of errands there are those that need no process: sockets in a directory that goes away, and on loopback.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::MetadataExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    },
};
use tmem_keeper::{Client, MAX_NAME_BYTES, MAX_SOCKET_PATH_BYTES, in_process};

pub const LIST: u8 = 3;
pub const KEEP: u8 = 6;
pub const RELEASE: u8 = 7;
pub const ADOPT: u8 = 8;
pub const ATTACH: u8 = 9;
pub const CLOSE: u8 = 10;
pub const BIND: u8 = 15;
pub const UNBIND: u8 = 16;
pub const BIND_TCP: u8 = 17;
pub const OPEN_TIER: u8 = 18;

const DONE: u8 = 64;
const REFUSED: u8 = 65;
const FILE: u8 = 66;
const CONNECTION: u8 = 67;

const HEAD_BYTES: usize = 8;
/// More descriptors than that with one call are as good as none.
const MOST_DESCRIPTORS: usize = 4;
/// Guests that wait at the one socket where there are some.
const WAITING: usize = 3;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a socket is to listen on TCP, and whether it can.
pub const ADDRESSES: [(&str, Result<(), Errno>); 4] = [
    ("127.0.0.1:0", Ok(())),
    ("127.0.0.1", Err(Errno::INVAL)),
    ("127.0.0.1:65536", Err(Errno::INVAL)),
    // Nobody's: it is for documentation (RFC 5737).
    ("192.0.2.1:0", Err(Errno::ADDRNOTAVAIL)),
];

/// What a worker sends with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    File,
    Pipe,
    Stream,
    /// A socket of datagrams that keep their order, as errands are answered on.
    Answers,
    /// A socket that listens, and guests wait.
    Guests,
    /// One that listens, and nobody has come.
    Nobody,
    Datagrams,
}

impl Thing {
    pub const ALL: [Thing; 7] = {
        use Thing::*;
        [File, Pipe, Stream, Answers, Guests, Nobody, Datagrams]
    };

    fn is_socket(self) -> bool {
        !matches!(self, Thing::File | Thing::Pipe)
    }
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// As the protocol has it. What errands name is made a path in a directory of their own.
    Whole { code: u8, number: u32, name: Vec<u8>, things: Vec<Thing> },
    /// So many bytes that are no call.
    Bytes(usize),
}

/// Whether a datagram of so many bytes is a call.
pub fn is_call(bytes: usize) -> bool {
    (HEAD_BYTES..=HEAD_BYTES + MAX_NAME_BYTES).contains(&bytes)
}

/// An answer.
#[derive(Debug)]
struct Answer {
    code: u8,
    number: u32,
    name: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// The worker's things, and the other ends of them.
struct Things {
    /// In the order of [`Thing::ALL`].
    own: Vec<OwnedFd>,
    pipe: OwnedFd,
    stream: OwnedFd,
    answers: OwnedFd,
    waiting: Vec<UnixStream>,
    _home: tempfile::TempDir,
}

impl Things {
    fn new() -> Things {
        let home = tempfile::tempdir().unwrap();
        let (pipe, writer) = rustix::pipe::pipe().unwrap();
        let (stream, others_stream) = UnixStream::pair().unwrap();
        let (answers, others_answers) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let at = home.path().join("guests");
        let guests = UnixListener::bind(&at).unwrap();
        let waiting = (0..WAITING).map(|_| UnixStream::connect(&at).unwrap()).collect();
        let nobody = UnixListener::bind(home.path().join("nobody")).unwrap();
        let own = vec![
            tempfile::tempfile().unwrap().into(),
            pipe,
            stream.into(),
            others_answers,
            guests.into(),
            nobody.into(),
            UnixDatagram::unbound().unwrap().into(),
        ];
        Things { own, pipe: writer, stream: others_stream.into(), answers, waiting, _home: home }
    }

    fn get(&self, thing: Thing) -> BorrowedFd<'_> {
        let at = Thing::ALL.iter().position(|one| *one == thing).unwrap();
        self.own[at].as_fd()
    }
}

fn inode(descriptor: BorrowedFd<'_>) -> u64 {
    File::from(descriptor.try_clone_to_owned().unwrap()).metadata().unwrap().ino()
}

struct Guest {
    number: u32,
    label: Vec<u8>,
    /// Which of those that waited it is, if it is one.
    waited: Option<usize>,
}

/// What is to be true.
#[derive(Default)]
struct Model {
    /// By name; the inode.
    files: Vec<(Vec<u8>, u64)>,
    guests: Vec<Guest>,
    last_number: u32,
    accepted: usize,
    /// Sockets that were made: their listeners, if anybody has them.
    sockets: BTreeMap<Vec<u8>, Option<OwnedFd>>,
}

impl Model {
    fn close(&mut self, is_meant: impl Fn(&Guest) -> bool) {
        self.guests.retain(|guest| !is_meant(guest));
    }

    /// What is answered at once.
    fn hears(
        &mut self,
        code: u8,
        number: u32,
        name: &[u8],
        things: &[Thing],
        inodes: &[u64],
    ) -> Result<u32, Errno> {
        let with = |least: usize| if things.len() < least { Err(Errno::INVAL) } else { Ok(()) };
        match code {
            KEEP => {
                with(1)?;
                match self.files.iter_mut().find(|file| file.0 == name) {
                    Some(file) => file.1 = inodes[0],
                    None => self.files.push((name.to_vec(), inodes[0])),
                }
                Ok(0)
            }
            RELEASE => {
                self.files.retain(|file| file.0 != name);
                Ok(0)
            }
            ADOPT => {
                with(3)?;
                if !things[0].is_socket() {
                    return Err(Errno::NOTSOCK);
                }
                self.close(|guest| guest.label == name);
                let waited = match things[0] {
                    Thing::Nobody => return Err(Errno::AGAIN),
                    Thing::Guests if self.accepted == WAITING => return Err(Errno::AGAIN),
                    Thing::Guests => {
                        self.accepted += 1;
                        Some(self.accepted - 1)
                    }
                    _ => None,
                };
                self.last_number += 1;
                self.guests.push(Guest { number: self.last_number, label: name.to_vec(), waited });
                Ok(self.last_number)
            }
            ATTACH => {
                with(2)?;
                let is_there = self.guests.iter().any(|guest| guest.number == number);
                if is_there { Ok(number) } else { Err(Errno::NOENT) }
            }
            CLOSE => {
                self.close(|guest| guest.number == number);
                Ok(0)
            }
            BIND | UNBIND => {
                with(1)?;
                path_error(name)?;
                if code == UNBIND && !self.sockets.contains_key(name) { Err(Errno::NOENT) } else { Ok(0) }
            }
            BIND_TCP => {
                with(1)?;
                let address = ADDRESSES.iter().find(|address| address.0.as_bytes() == name);
                match address {
                    Some((_, Err(Errno::INVAL))) | None => Err(Errno::INVAL),
                    Some(_) => Ok(0),
                }
            }
            OPEN_TIER => with(1).and(Err(Errno::PERM)),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// What is answered when it is done.
    fn does(&mut self, code: u8, name: &[u8]) -> Result<u32, Errno> {
        match code {
            BIND => match self.sockets.get(name) {
                Some(Some(_)) => Err(Errno::ADDRINUSE),
                before => Ok(u32::from(before.is_some())),
            },
            UNBIND => Ok(u32::from(self.sockets.remove(name).is_some())),
            _ => {
                let address = ADDRESSES.iter().find(|address| address.0.as_bytes() == name);
                address.unwrap().1.map(|()| 0)
            }
        }
    }
}

fn path_error(path: &[u8]) -> Result<(), Errno> {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap();
    match name {
        _ if path.len() > MAX_SOCKET_PATH_BYTES => Err(Errno::NAMETOOLONG),
        b"" | b"." | b".." => Err(Errno::INVAL),
        _ if path.contains(&0) => Err(Errno::INVAL),
        _ => Ok(()),
    }
}

fn send(to: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let parts = [IoSlice::new(bytes)];
    retry_on_intr(|| rustix::net::sendmsg(to, &parts, &mut ancillary, SendFlags::NOSIGNAL)).unwrap();
}

/// What comes next, and its descriptors. Nothing: the other side has closed.
fn receive(from: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = retry_on_intr(|| rustix::net::recvmsg(from, &mut parts, &mut ancillary, flags))?;
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(got.bytes);
    Ok((bytes, descriptors))
}

fn decode((bytes, descriptors): (Vec<u8>, Vec<OwnedFd>)) -> Answer {
    let (head, name) = bytes.split_first_chunk::<HEAD_BYTES>().expect("an answer");
    let [code, 0, 0, 0, number @ ..] = *head else { panic!("its head is {head:?}") };
    Answer { code, number: u32::from_ne_bytes(number), name: name.to_vec(), descriptors }
}

/// The next answer.
fn hear(socket: BorrowedFd<'_>) -> Answer {
    decode(receive(socket, RecvFlags::empty()).expect("the keeper answers"))
}

fn assert_is(answer: &Answer, expected: Result<u32, Errno>, call: &Call) {
    let said = (answer.code, answer.number);
    let expected = match expected {
        Ok(number) => (DONE, number),
        Err(error) => (REFUSED, error.raw_os_error() as u32),
    };
    assert_eq!(said, expected, "{call:?}");
    assert!(answer.name.is_empty());
}

/// Has a worker say all of it, and compares every answer with the model, and at the end what is held. When all is over, nothing of it must be left.
pub fn check(calls: &[Call]) {
    let things = Things::new();
    let sockets_home = tempfile::tempdir().unwrap();
    let client = in_process().unwrap();
    rustix::net::sockopt::set_socket_timeout(
        &things.answers,
        rustix::net::sockopt::Timeout::Recv,
        Some(PATIENCE),
    )
    .unwrap();
    // SAFETY: the client has it open, and outlives this.
    let keeper = unsafe { BorrowedFd::borrow_raw(client.as_raw_fd()) };
    rustix::net::sockopt::set_socket_timeout(keeper, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))
        .unwrap();
    let mut model = Model::default();
    let mut is_heard = true;
    for call in calls {
        let (code, number, name, sent) = match call {
            Call::Whole { code, number, name, things } => (*code, *number, name, things),
            Call::Bytes(bytes) => {
                assert!(!is_call(*bytes));
                send(keeper, &vec![KEEP; *bytes], &[]);
                let (bytes, _) = receive(keeper, RecvFlags::empty()).expect("it hangs up");
                assert!(bytes.is_empty());
                is_heard = false;
                break;
            }
        };
        let mut name = name.clone();
        match code {
            // Nothing but names in there.
            BIND | UNBIND => {
                name.retain(|byte| *byte != b'/');
                name = [sockets_home.path().as_os_str().as_bytes(), b"/", &name].concat();
            }
            BIND_TCP if ADDRESSES.iter().all(|address| address.0.as_bytes() != name) => name.insert(0, b'!'),
            _ => {}
        }
        name.truncate(MAX_NAME_BYTES);
        // Whoever runs this may reach what it has made.
        let number = if code == BIND { number | 0o600 } else { number };
        let head = [&[code, 1, 2, 3], &number.to_ne_bytes()[..]].concat();
        let descriptors: Vec<_> = sent.iter().map(|thing| things.get(*thing)).collect();
        send(keeper, &[&head[..], &name].concat(), &descriptors);
        if code == LIST {
            assert_list(keeper, &model);
            continue;
        }
        let taken = if sent.len() > MOST_DESCRIPTORS { &[][..] } else { sent };
        let inodes: Vec<u64> = taken.iter().map(|thing| inode(things.get(*thing))).collect();
        let expected = model.hears(code, number, &name, taken, &inodes);
        assert_is(&hear(keeper), expected, call);
        if expected.is_ok() && [BIND, UNBIND, BIND_TCP].contains(&code) {
            let done = model.does(code, &name);
            let listener = answered(&things, taken[0], done, call);
            if code == BIND && done.is_ok() {
                match taken[0] {
                    // Nobody could be told of it.
                    Thing::Stream | Thing::Answers => model.sockets.insert(name, listener),
                    _ => model.sockets.remove(&name),
                };
            }
        }
    }
    if is_heard {
        send(keeper, &[LIST, 0, 0, 0, 0, 0, 0, 0], &[]);
        assert_list(keeper, &model);
        for (number, guest) in things.waiting.iter().enumerate().take(model.accepted) {
            let is_held = model.guests.iter().any(|guest| guest.waited == Some(number));
            let heard = receive(guest.as_fd(), RecvFlags::DONTWAIT).map(|(bytes, _)| bytes.len());
            let is_open = heard.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            assert_eq!(is_open, is_held, "guest {number}: {heard:?}");
        }
    }
    is_over(client, things);
}

/// What comes on the socket that came with an errand, if anything can. The listener that was made, where somebody hears of it.
fn answered(things: &Things, on: Thing, expected: Result<u32, Errno>, call: &Call) -> Option<OwnedFd> {
    match on {
        // A worker's end of a guest has a byte of its own.
        Thing::Answers => loop {
            let heard =
                receive(things.answers.as_fd(), RecvFlags::empty()).expect("an answer when it is done");
            if heard.0.len() > 1 {
                let answer = decode(heard);
                assert_is(&answer, expected, call);
                return answer.descriptors.into_iter().next();
            }
        },
        // Answers there run into each other.
        Thing::Stream => {
            while receive(things.stream.as_fd(), RecvFlags::DONTWAIT)
                .is_ok_and(|(bytes, _)| !bytes.is_empty())
            {}
            None
        }
        _ => None,
    }
}

fn assert_list(keeper: BorrowedFd<'_>, model: &Model) {
    for (name, held) in &model.files {
        let answer = hear(keeper);
        let [descriptor] = &answer.descriptors[..] else { panic!("{answer:?}") };
        assert_eq!((answer.code, answer.number, &answer.name), (FILE, 0, name));
        assert_eq!(inode(descriptor.as_fd()), *held);
    }
    for Guest { number, label, .. } in &model.guests {
        let answer = hear(keeper);
        assert_eq!((answer.code, answer.number, &answer.name), (CONNECTION, *number, label));
    }
    let answer = hear(keeper);
    assert_eq!((answer.code, answer.number), (DONE, 0));
}

/// When the worker and its things have gone, so has what was held of them.
fn is_over(client: Client, things: Things) {
    let Things { own, pipe, stream, answers, .. } = things;
    drop((client, own));
    let deadline = Instant::now() + PATIENCE;
    for (end, what) in [(&pipe, "pipe"), (&stream, "stream"), (&answers, "socket")] {
        loop {
            let mut polled = [PollFd::new(end, PollFlags::empty())];
            let _ = poll(&mut polled, Some(&Duration::from_millis(10).try_into().unwrap()));
            if polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                break;
            }
            assert!(Instant::now() < deadline, "the {what} is still held");
        }
    }
}
