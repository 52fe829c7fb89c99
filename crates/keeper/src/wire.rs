//! What keeper and worker say to each other: one datagram for each call and each answer, on a pair of `SOCK_SEQPACKET` sockets.
//!
//! ```text
//! | code, 1 byte | 3 bytes of 0 | number, 4 bytes | name, up to 200 bytes |
//! ```
//!
//! Numbers are in the machine's byte order: both ends are on one machine, though not always of one version. A version only adds codes.

use std::{
    ffi::CStr,
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use arrayvec::ArrayVec;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use crate::descriptors;

/// The longest name of something that is held: a path of a socket and a few words more.
pub const MAX_NAME_BYTES: usize = 200;

/// What is said on the socket. Grows when codes are added.
pub(crate) const VERSION: u32 = 2;

const HEAD_BYTES: usize = 8;
const MAX_BYTES: usize = HEAD_BYTES + MAX_NAME_BYTES;

/// Most descriptors with one datagram.
pub(crate) const MAX_DESCRIPTORS: usize = 4;

/// What a datagram is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// What this version does not know, and never says.
    Unknown = 0,
    /// A worker is there. Its number is the version it speaks. Answered with 1 if another one serves for now.
    Hello = 1,
    /// It wants to serve. Answered when nobody else does, with the number of workers that have died.
    Take = 2,
    /// It wants to know what is held. Answered with a `File` and a `Connection` for each, and `Done`.
    List = 3,
    /// It serves.
    Ready = 4,
    /// It is alive. Not answered.
    Beat = 5,
    /// A descriptor is to be held under a name, in the place of what had that name.
    Keep = 6,
    /// What has that name is not needed any more.
    Release = 7,
    /// A guest's connection is to be relayed: guest, library and life. The guest may be a socket that listens: then its next one is taken.
    /// Answered with its number.
    Adopt = 8,
    /// A connection that is held has a worker again: library and life.
    Attach = 9,
    /// A guest is to be turned away.
    Close = 10,
    /// The program on disk is to take over.
    Upgrade = 11,
    /// It wants to know whether an upgrade is under way. Answered with 1 or 0.
    Upgrading = 12,
    /// A spare worker is wanted, ready for as much as the number says in the worker's own measure; 0: none. Another number is another spare worker.
    WantSpare = 13,
    /// It wants to know who stands by. Answered with the number of its process, or 0.
    SparePid = 14,
    // What follows comes with a socket for a second answer, when it is done: see `errands`.
    /// A listening Unix socket is to be made at the path that is the name, with a mode. Answered with it, and 1 if it replaced another.
    Bind = 15,
    /// The file of one that was made is to go. Answered with 1, or 0 if it was not there any more.
    Unbind = 16,
    /// One is to be made on TCP, at the address that is the name. Answered with it.
    BindTcp = 17,
    /// The tier is to be opened, with flags of open(2). Answered with it.
    OpenTier = 18,
    /// Answers: done; the number depends on the call.
    Done = 64,
    /// Answers: refused; the number is an error of the OS.
    Refused = 65,
    /// Answers: something that is held, under its name.
    File = 66,
    /// Answers: a connection that is held, with its number and label.
    Connection = 67,
}

impl Code {
    fn of(byte: u8) -> Code {
        use Code::*;
        [
            Hello, Take, List, Ready, Beat, Keep, Release, Adopt, Attach, Close, Upgrade, Upgrading,
            WantSpare, SparePid, Bind, Unbind, BindTcp, OpenTier, Done, Refused, File, Connection,
        ]
        .into_iter()
        .find(|code| *code as u8 == byte)
        .unwrap_or(Unknown)
    }
}

/// A name, without memory of its own from the heap.
pub(crate) type Name = ArrayVec<u8, MAX_NAME_BYTES>;

/// One datagram.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) code: Code,
    pub(crate) number: u32,
    pub(crate) name: Name,
    pub(crate) descriptors: ArrayVec<OwnedFd, MAX_DESCRIPTORS>,
}

/// Sends a datagram. Errors: the name is too long, or the OS's.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    code: Code,
    number: u32,
    name: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    if name.len() > MAX_NAME_BYTES || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = [0; MAX_BYTES];
    bytes[0] = code as u8;
    bytes[4..HEAD_BYTES].copy_from_slice(&number.to_ne_bytes());
    bytes[HEAD_BYTES..][..name.len()].copy_from_slice(name);
    descriptors::send(socket, &bytes[..HEAD_BYTES + name.len()], descriptors, flags).map(drop)
}

/// Receives a datagram. `None`: the other end has closed. Errors: it makes no sense (`InvalidData`), or the OS's.
pub(crate) fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<Datagram>> {
    let mut bytes = [0; MAX_BYTES];
    let mut descriptors = ArrayVec::new();
    let received = descriptors::receive(socket, &mut bytes, &mut descriptors, flags)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.bytes < HEAD_BYTES || received.is_cut {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if received.lost_descriptors {
        // There is no room for them. Whoever needs them says so.
        descriptors.clear();
    }
    let code = Code::of(bytes[0]);
    let number = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let name = bytes[HEAD_BYTES..received.bytes].iter().copied().collect();
    Ok(Some(Datagram { code, number, name, descriptors }))
}

/// Exactly so many descriptors.
pub(crate) trait Exactly {
    fn exactly<const N: usize>(self) -> Result<[OwnedFd; N], Errno>;
}

impl Exactly for ArrayVec<OwnedFd, MAX_DESCRIPTORS> {
    fn exactly<const N: usize>(self) -> Result<[OwnedFd; N], Errno> {
        let exact: ArrayVec<OwnedFd, N> = self.into_iter().take(N).collect();
        exact.into_inner().map_err(|_| Errno::INVAL)
    }
}

/// The OS's number for an error.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// What an error of the OS says, without memory from the heap.
pub(crate) struct Reason<'e>(pub(crate) &'e io::Error);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(number) = self.0.raw_os_error() else { return write!(f, "{:?}", self.0.kind()) };
        let mut text = [0u8; 128];
        // SAFETY: the buffer is valid for its length.
        let known = unsafe { libc::strerror_r(number, text.as_mut_ptr().cast(), text.len()) } == 0;
        let text = CStr::from_bytes_until_nul(&text).ok().filter(|_| known);
        match text.and_then(|text| text.to_str().ok()) {
            Some(text) => write!(f, "{text} (os error {number})"),
            None => write!(f, "os error {number}"),
        }
    }
}

/// A pair of sockets for a keeper and a worker.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn datagrams_arrive_as_they_were_sent() {
        let (here, there) = pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let name = [b'x'; MAX_NAME_BYTES];
        send(here.as_fd(), Code::Keep, 7, &name, &[reader.as_fd(), writer.as_fd()], SendFlags::empty())
            .unwrap();
        let got = receive(there.as_fd(), RecvFlags::empty()).unwrap().unwrap();
        assert_eq!((got.code, got.number, &got.name[..]), (Code::Keep, 7, &name[..]));
        assert_eq!(got.descriptors.len(), 2);
        drop(here);
        assert!(receive(there.as_fd(), RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (here, there) = pair().unwrap();
        for bytes in [&[1, 0, 0][..], &[6; MAX_BYTES + 1]] {
            rustix::net::send(&here, bytes, SendFlags::empty()).unwrap();
            let error = receive(there.as_fd(), RecvFlags::empty()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let long = [b'x'; MAX_NAME_BYTES + 1];
        assert!(send(here.as_fd(), Code::Keep, 0, &long, &[], SendFlags::empty()).is_err());
    }

    #[test]
    fn reasons_say_what_the_os_says() {
        for number in [libc::EMFILE, libc::EPIPE] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(Reason(&error).to_string(), error.to_string());
        }
        assert_eq!(Reason(&io::ErrorKind::InvalidData.into()).to_string(), "InvalidData");
    }

    #[test]
    fn every_code_is_known_again() {
        for byte in 0..=255 {
            let code = Code::of(byte);
            assert!(code == Code::Unknown || code as u8 == byte);
        }
        assert_eq!((0..=255).map(Code::of).filter(|code| *code != Code::Unknown).count(), 22);
    }
}
