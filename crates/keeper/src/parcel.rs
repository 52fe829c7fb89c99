//! A parcel: descriptors, and bytes that say what they are, put into a pair of sockets. Whoever holds both ends of the pair, the service manager
//! for one, holds all of it without knowing what it is, and gives it to the keeper's successor.
//!
//! ```text
//! | kind, 1 byte | version, 1 byte | name |       and the file, or the guest's socket
//! | M | messages that make up its session, each: length, 2 bytes | descriptors, 1 byte | message |
//! | E |                                          without it the parcel is void
//! ```
//!
//! Descriptors are in the order of their messages. What is in a socket counts against its buffer by the datagram rather than by the byte, so messages
//! share datagrams.
//!
//! So a keeper that dies while it changes a parcel leaves one that is void, never one that says half of what was.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use arrayvec::ArrayVec;
use rustix::net::{RecvFlags, SendFlags};

use crate::{
    descriptors,
    session::Descriptors,
    vhost_user::MAX_DESCRIPTORS,
    wire::{self, MAX_NAME_BYTES, Name},
};

/// Grows when parcels change. A keeper lets go of what it does not understand.
const VERSION: u8 = 1;
const MESSAGE: u8 = b'M';
const END: u8 = b'E';
/// The longest datagram. A session's longest message is a table of 32 regions, a third of that.
const MAX_BYTES: usize = 3072;
const MESSAGE_HEAD_BYTES: usize = 3;

/// What is in a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A file or socket, held under a name.
    File = b'F',
    /// A guest's connection, held under its label, and its session.
    Guest = b'G',
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Parcel {
    inlet: OwnedFd,
    outlet: OwnedFd,
}

/// Puts messages into a parcel that is being filled.
pub(crate) struct Filling<'p, 's> {
    parcel: &'p Parcel,
    bytes: ArrayVec<u8, MAX_BYTES>,
    descriptors: ArrayVec<BorrowedFd<'s>, MAX_DESCRIPTORS>,
}

impl Parcel {
    /// A void one.
    pub(crate) fn new() -> io::Result<Parcel> {
        let (inlet, outlet) = wire::pair()?;
        Ok(Parcel { inlet, outlet })
    }

    /// From the two ends that [`Parcel::ends`] gave, in whatever order. `None`: it is void.
    pub(crate) fn from_ends([one, other]: [OwnedFd; 2]) -> Option<Parcel> {
        let has_data = |end: &OwnedFd| {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            rustix::net::recv(end, &mut [0], flags).is_ok_and(|(bytes, _)| bytes > 0)
        };
        match (has_data(&one), has_data(&other)) {
            (true, _) => Some(Parcel { inlet: other, outlet: one }),
            (_, true) => Some(Parcel { inlet: one, outlet: other }),
            _ => None,
        }
    }

    /// Both ends, for whoever is to hold it.
    pub(crate) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.inlet.as_fd(), self.outlet.as_fd()]
    }

    /// Makes it void. Nobody has to be told, and nothing can fail: it is void for all who hold it.
    pub(crate) fn empty(&self) {
        let mut byte = [0];
        let mut ignored = Descriptors::new();
        while descriptors::receive(self.outlet.as_fd(), &mut byte, &mut ignored, RecvFlags::DONTWAIT).is_ok()
        {
            ignored.clear();
        }
    }

    /// Puts something else in the place of what is in it. Errors: it is void.
    pub(crate) fn fill<'s>(
        &self,
        kind: Kind,
        name: &[u8],
        descriptor: BorrowedFd<'s>,
        more: impl FnOnce(&mut Filling<'_, 's>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.empty();
        let mut head = ArrayVec::<u8, { 2 + MAX_NAME_BYTES }>::from_iter([kind as u8, VERSION]);
        head.try_extend_from_slice(name).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut filling = Filling { parcel: self, bytes: ArrayVec::new(), descriptors: ArrayVec::new() };
        let result = self
            .put(&head, &[descriptor])
            .and_then(|()| more(&mut filling))
            .and_then(|()| filling.flush())
            .and_then(|()| self.put(&[END], &[]));
        if result.is_err() {
            self.empty();
        }
        result
    }

    fn put(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        descriptors::send(self.inlet.as_fd(), bytes, descriptors, SendFlags::DONTWAIT).map(drop)
    }

    /// Looks into it, and leaves it as it is. `message` is called with each message. `None`: it is void, or another version's; messages that came
    /// before that was seen are void, too.
    pub(crate) fn look(
        &self,
        mut message: impl FnMut(&[u8], &mut Descriptors),
    ) -> io::Result<Option<(Kind, Name, OwnedFd)>> {
        let _peeking = Peeking::start(&self.outlet)?;
        let mut head: Option<(Kind, Name, OwnedFd)> = None;
        loop {
            let mut bytes = [0; MAX_BYTES];
            let mut descriptors = Descriptors::new();
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let received =
                match descriptors::receive(self.outlet.as_fd(), &mut bytes, &mut descriptors, flags) {
                    Ok(received) if received.lost_descriptors => {
                        return Err(io::Error::from_raw_os_error(libc::EMFILE));
                    }
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error),
                };
            match (&bytes[..received.bytes], &head) {
                ([kind, VERSION, name @ ..], None) => {
                    let kind = [Kind::File, Kind::Guest].into_iter().find(|known| *known as u8 == *kind);
                    let (Some(kind), Some(descriptor)) = (kind, descriptors.pop()) else { return Ok(None) };
                    head = Some((kind, name.iter().copied().take(MAX_NAME_BYTES).collect(), descriptor));
                }
                ([MESSAGE, messages @ ..], Some((Kind::Guest, ..))) => {
                    if each_message(messages, &mut descriptors, &mut message).is_none() {
                        return Ok(None);
                    }
                }
                ([END], Some(_)) => return Ok(head),
                _ => return Ok(None),
            }
        }
    }
}

/// `None`: the bytes make no sense.
fn each_message(
    mut bytes: &[u8],
    descriptors: &mut Descriptors,
    message: &mut impl FnMut(&[u8], &mut Descriptors),
) -> Option<()> {
    while let [low, high, count, rest @ ..] = bytes {
        let (this, others) = rest.split_at_checked(usize::from(u16::from_ne_bytes([*low, *high])))?;
        let count = usize::from(*count);
        if count > descriptors.len() {
            return None;
        }
        message(this, &mut descriptors.drain(..count).collect());
        bytes = others;
    }
    bytes.is_empty().then_some(())
}

impl<'s> Filling<'_, 's> {
    /// A message of a guest's session.
    pub(crate) fn message(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'s>]) -> io::Result<()> {
        if self.bytes.remaining_capacity() < MESSAGE_HEAD_BYTES + bytes.len()
            || self.descriptors.remaining_capacity() < descriptors.len()
        {
            self.flush()?;
        }
        if self.bytes.is_empty() {
            self.bytes.push(MESSAGE);
        }
        let [low, high] = (bytes.len() as u16).to_ne_bytes();
        let head = [low, high, descriptors.len() as u8];
        let too_long = |_| io::ErrorKind::InvalidInput;
        self.bytes.try_extend_from_slice(&head).map_err(too_long)?;
        self.bytes.try_extend_from_slice(bytes).map_err(too_long)?;
        self.descriptors.try_extend_from_slice(descriptors).map_err(too_long)?;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.parcel.put(&self.bytes, &self.descriptors)?;
        self.bytes.clear();
        self.descriptors.clear();
        Ok(())
    }
}

/// While it lives, one look after the other sees one datagram after the other.
struct Peeking<'s>(&'s OwnedFd);

impl Peeking<'_> {
    fn start(socket: &OwnedFd) -> io::Result<Peeking<'_>> {
        set_peek_offset(socket, 0)?;
        Ok(Peeking(socket))
    }
}

impl Drop for Peeking<'_> {
    fn drop(&mut self) {
        // Could only fail on something that is no socket.
        let _ = set_peek_offset(self.0, -1);
    }
}

fn set_peek_offset(socket: &OwnedFd, offset: libc::c_int) -> io::Result<()> {
    let bytes = size_of_val(&offset) as libc::socklen_t;
    let value = (&raw const offset).cast();
    // SAFETY: the value is valid for its size.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, value, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write};

    use super::*;
    use crate::session::{MAX_REGIONS, MAX_RINGS};

    fn pipe() -> (PipeReader, PipeWriter) {
        io::pipe().unwrap()
    }

    type Looked = (Kind, Name, OwnedFd, Vec<(Vec<u8>, usize)>);

    fn looked(parcel: &Parcel) -> Option<Looked> {
        let mut messages = Vec::new();
        let found =
            parcel.look(|bytes, descriptors| messages.push((bytes.to_vec(), descriptors.len()))).unwrap();
        found.map(|(kind, name, descriptor)| (kind, name, descriptor, messages))
    }

    #[test]
    fn what_is_put_in_can_be_looked_at_and_stays() {
        let (mut reader, writer) = pipe();
        let parcel = Parcel::new().unwrap();
        assert!(looked(&parcel).is_none(), "void");
        let long = [7; 1100];
        for _ in 0..2 {
            parcel
                .fill(Kind::Guest, b"disk", writer.as_fd(), |filling| {
                    filling.message(&long, &[writer.as_fd(); MAX_DESCRIPTORS])?;
                    filling.message(b"x", &[])?;
                    filling.message(&long, &[writer.as_fd()])?;
                    filling.message(&long, &[])
                })
                .unwrap();
        }
        for _ in 0..2 {
            let (kind, name, descriptor, messages) = looked(&parcel).unwrap();
            assert_eq!((kind, &name[..]), (Kind::Guest, &b"disk"[..]));
            let long = |descriptors| (long.to_vec(), descriptors);
            assert_eq!(messages, [long(MAX_DESCRIPTORS), (b"x".to_vec(), 0), long(1), long(0)]);
            PipeWriter::from(descriptor).write_all(b"!").unwrap();
        }
        drop(writer);
        // Still in the parcel, and nowhere else after that.
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        parcel.empty();
        assert_eq!(reader.read(&mut two).unwrap(), 0);
        assert!(looked(&parcel).is_none());
    }

    #[test]
    fn each_descriptor_comes_with_its_message() {
        let pipes: Vec<_> = (0..70).map(|_| pipe()).collect();
        let parcel = Parcel::new().unwrap();
        parcel
            .fill(Kind::Guest, b"disk", pipes[0].1.as_fd(), |filling| {
                pipes.chunks(3).enumerate().try_for_each(|(at, chunk)| {
                    let ends: Vec<_> = chunk.iter().map(|pipe| pipe.1.as_fd()).collect();
                    filling.message(&[at as u8], &ends)
                })
            })
            .unwrap();
        let mut got = Vec::new();
        parcel.look(|bytes, descriptors| got.push((bytes[0], std::mem::take(descriptors)))).unwrap().unwrap();
        for ((at, descriptors), chunk) in got.into_iter().zip(pipes.chunks(3)) {
            assert_eq!(descriptors.len(), chunk.len());
            for (descriptor, (mut reader, _)) in
                descriptors.into_iter().zip(chunk.iter().map(|pipe| (&pipe.0, ())))
            {
                PipeWriter::from(descriptor).write_all(&[at]).unwrap();
                let mut byte = [0];
                reader.read_exact(&mut byte).unwrap();
                assert_eq!(byte, [at]);
            }
        }
    }

    #[test]
    fn both_ends_in_any_order_are_the_parcel() {
        let (_reader, writer) = pipe();
        for swapped in [false, true] {
            let parcel = Parcel::new().unwrap();
            parcel.fill(Kind::File, b"a", writer.as_fd(), |_| Ok(())).unwrap();
            let Parcel { inlet, outlet } = parcel;
            let ends = if swapped { [outlet, inlet] } else { [inlet, outlet] };
            let parcel = Parcel::from_ends(ends).unwrap();
            assert_eq!(&looked(&parcel).unwrap().1[..], b"a");
            parcel.fill(Kind::File, b"b", writer.as_fd(), |_| Ok(())).unwrap();
            assert_eq!(&looked(&parcel).unwrap().1[..], b"b");
        }
        let Parcel { inlet, outlet } = Parcel::new().unwrap();
        assert!(Parcel::from_ends([inlet, outlet]).is_none());
    }

    #[test]
    fn one_that_makes_no_sense_is_void() {
        let (_reader, writer) = pipe();
        let parcel = Parcel::new().unwrap();
        let failed = parcel.fill(Kind::Guest, b"disk", writer.as_fd(), |_| Err(io::ErrorKind::Other.into()));
        assert!(failed.is_err() && looked(&parcel).is_none());
        let (guest, file) = ([b'G', VERSION, b'a'], [b'F', VERSION, b'a']);
        let no_sense: [&[&[u8]]; 9] = [
            &[&guest, b"M\x01\x00\x00x"],
            &[&[b'F', VERSION + 1, b'a'], b"E"],
            &[&[b'X', VERSION, b'a'], b"E"],
            &[b"F", b"E"],
            &[b"E"],
            &[b"M\x01\x00\x00x", b"E"],
            &[&guest, b"M\x02\x00\x00x", b"E"],
            &[&guest, b"M\x01\x00\x02x", b"E"],
            &[&file, b"M\x01\x00\x00x", b"E"],
        ];
        for datagrams in no_sense {
            datagrams.iter().for_each(|datagram| parcel.put(datagram, &[writer.as_fd()]).unwrap());
            assert!(looked(&parcel).is_none(), "{datagrams:?}");
            parcel.empty();
        }
        for datagram in [&file[..], b"E"] {
            parcel.put(datagram, &[]).unwrap();
        }
        assert!(looked(&parcel).is_none(), "without its descriptor");
    }

    #[test]
    fn the_largest_session_fits() {
        let (_reader, writer) = pipe();
        let parcel = Parcel::new().unwrap();
        let message = [0; 52];
        // Regions one by one, and rings with all that can be said of them.
        let messages = 13 + MAX_REGIONS + 7 * MAX_RINGS;
        parcel
            .fill(Kind::Guest, b"disk", writer.as_fd(), |filling| {
                (0..messages).try_for_each(|_| filling.message(&message, &[writer.as_fd()]))
            })
            .unwrap();
        assert_eq!(looked(&parcel).unwrap().3.len(), messages);
    }
}
