//! One direction of a guest's connection: reads a message as far as it has come, and sends one as far as it is taken.
//!
//! It reads one message at a time and never beyond it, so that all descriptors that come with it are its own, and a peer can't make
//! the keeper collect data.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use arrayvec::ArrayVec;
use rustix::net::{RecvFlags, SendFlags};

use crate::{
    descriptors,
    session::Descriptors,
    vhost_user::{HEADER_BYTES, MAX_DESCRIPTORS, MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, MessageView},
    wire::Reason,
};

/// Why a connection is not carried on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// No message is that long.
    #[error("message {code} claims {bytes} bytes, more than {MAX_PAYLOAD_BYTES}")]
    TooLong { code: u32, bytes: u32 },
    /// No message has that many descriptors.
    #[error("a message carries more than {MAX_DESCRIPTORS} descriptors")]
    Descriptors,
    /// The peer closed the socket within a message.
    #[error("the connection ended within a message")]
    Half,
    /// More parts of memory than are remembered.
    #[error("it has more regions of memory than a guest can have")]
    Regions,
    /// The socket failed.
    #[error("the control socket failed: {}", Reason(.0))]
    Socket(#[from] io::Error),
}

/// How far reading or sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The whole message.
    Done,
    /// The socket has to be waited for.
    Waits,
    /// The other side has closed.
    Closed,
}

/// A message and what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: ArrayVec<u8, MAX_MESSAGE_BYTES>,
    pub(crate) descriptors: Descriptors,
}

impl Message {
    pub(crate) fn view(&self) -> MessageView<'_> {
        MessageView(&self.bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn cut(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        let payload_bytes = (self.bytes.len().saturating_sub(HEADER_BYTES)) as u32;
        if let Some(size) = self.bytes.get_mut(8..HEADER_BYTES) {
            size.copy_from_slice(&payload_bytes.to_ne_bytes());
        }
    }

    /// Its parts, to be changed at the same time.
    pub(crate) fn parts(&mut self) -> (MessageView<'_>, &mut Descriptors) {
        (MessageView(&self.bytes), &mut self.descriptors)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.descriptors.clear();
    }

    /// Reads on, until the message is whole.
    pub(crate) fn read(&mut self, from: BorrowedFd<'_>) -> Result<Progress, RelayError> {
        loop {
            let have = self.bytes.len();
            let wanted = self.wanted_bytes()?;
            if have == wanted {
                return Ok(Progress::Done);
            }
            let mut buffer = [0; MAX_MESSAGE_BYTES];
            let buffer = &mut buffer[..wanted - have];
            match descriptors::receive(from, buffer, &mut self.descriptors, RecvFlags::DONTWAIT) {
                Ok(received) if received.lost_descriptors => return Err(RelayError::Descriptors),
                Ok(received) if received.bytes == 0 && have > 0 => return Err(RelayError::Half),
                Ok(received) if received.bytes == 0 => return Ok(Progress::Closed),
                Ok(received) => self.bytes.extend(buffer[..received.bytes].iter().copied()),
                Err(error) => return waits(error),
            }
        }
    }

    /// Sends what is left of it after `sent` bytes.
    pub(crate) fn send(&self, to: BorrowedFd<'_>, sent: &mut usize) -> Result<Progress, RelayError> {
        let descriptors: ArrayVec<_, MAX_DESCRIPTORS> = self.descriptors.iter().map(AsFd::as_fd).collect();
        send(to, &self.bytes, &descriptors, sent)
    }

    /// Length of the message as far as is known: the header's until there is a whole header.
    fn wanted_bytes(&self) -> Result<usize, RelayError> {
        let view = self.view();
        let Some(bytes) = view.claimed_payload_bytes() else { return Ok(HEADER_BYTES) };
        if bytes as usize > MAX_PAYLOAD_BYTES {
            return Err(RelayError::TooLong { code: view.code(), bytes });
        }
        Ok(HEADER_BYTES + bytes as usize)
    }
}

/// Sends what is left of a message after `sent` bytes; the descriptors go with the first.
pub(crate) fn send(
    to: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    sent: &mut usize,
) -> Result<Progress, RelayError> {
    while *sent < bytes.len() {
        let descriptors = if *sent == 0 { descriptors } else { &[] };
        match descriptors::send(to, &bytes[*sent..], descriptors, SendFlags::DONTWAIT) {
            Ok(count) => *sent += count,
            Err(error) => return waits(error),
        }
    }
    Ok(Progress::Done)
}

/// What an error of a socket means that is not waited for.
fn waits(error: io::Error) -> Result<Progress, RelayError> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(Progress::Waits),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(Progress::Closed),
        _ => Err(RelayError::Socket(error)),
    }
}
