//! Stands between the guest's end of the control socket and the library's, and passes messages on, with
//! the descriptors attached to them, in both directions.
//!
//! It is there because user-mode Linux sends a SET_MEM_TABLE message with room for two regions while it
//! names one, and the library refuses a table whose length is not that of its regions. The relay cuts such
//! a message to size. It reads one message at a time and holds at most one per direction, so that a peer
//! can't make the daemon collect data; nothing half-sent is passed on.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Request code, flags and payload size, 4 bytes each.
const HEADER_BYTES: usize = 12;
/// Where the payload size stands in the header.
const SIZE_AT: usize = 8;
/// The longest payload the library takes; no message the device understands is longer.
const MAX_PAYLOAD_BYTES: usize = 4096;
/// Most descriptors with one message: as many as the library takes.
const MAX_DESCRIPTORS: usize = 32;
/// Code of the message that names the guest's memory.
const SET_MEM_TABLE: u32 = 5;
/// A memory table starts with the number of regions and padding.
const TABLE_HEADER_BYTES: usize = 8;
/// Guest address, size, address in the peer, and offset in the file.
const REGION_BYTES: usize = 32;

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
    /// The socket failed.
    #[error("the control socket failed: {0}")]
    Socket(#[from] io::Error),
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Nothing more to do now.
    Open,
    /// One of the two sides has closed.
    Closed,
}

/// Both directions of a control connection.
pub(crate) struct Relay {
    guest: UnixStream,
    library: UnixStream,
    to_library: Direction,
    to_guest: Direction,
}

impl Relay {
    /// Neither stream blocks afterwards.
    pub(crate) fn new(guest: UnixStream, library: UnixStream) -> io::Result<Relay> {
        guest.set_nonblocking(true)?;
        library.set_nonblocking(true)?;
        Ok(Relay {
            guest,
            library,
            to_library: Direction::new(fit_memory_table),
            to_guest: Direction::new(|_| {}),
        })
    }

    /// What to wait for.
    pub(crate) fn poll_set(&self) -> [libc::pollfd; 2] {
        let events = |reading: &Direction, writing: &Direction| {
            (if reading.sends() { 0 } else { libc::POLLIN })
                | (if writing.sends() { libc::POLLOUT } else { 0 })
        };
        let entry = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
        [
            entry(self.guest.as_raw_fd(), events(&self.to_library, &self.to_guest)),
            entry(self.library.as_raw_fd(), events(&self.to_guest, &self.to_library)),
        ]
    }

    /// Passes on what is there. `polled` is the set of [`Relay::poll_set`] after waiting.
    pub(crate) fn pass_on(&mut self, polled: &[libc::pollfd]) -> Result<Flow, RelayError> {
        let to_guest = self.to_guest.pass_on(&self.library, &self.guest)?;
        let to_library = self.to_library.pass_on(&self.guest, &self.library)?;
        // A side that hung up while the other is slow to take its last message would wake us forever.
        let gone = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        let stuck = self.to_guest.sends() || self.to_library.sends();
        let hung_up = polled.iter().any(|entry| entry.revents & gone != 0);
        let closed = to_guest == Flow::Closed || to_library == Flow::Closed || (stuck && hung_up);
        Ok(if closed { Flow::Closed } else { Flow::Open })
    }
}

/// One direction: the message that is being read or sent.
struct Direction {
    message: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Bytes of the message already sent. `None` while it is being read.
    sent: Option<usize>,
    /// Changes a whole message before it is sent.
    fit: fn(&mut Vec<u8>),
}

impl Direction {
    fn new(fit: fn(&mut Vec<u8>)) -> Direction {
        Direction {
            message: Vec::with_capacity(HEADER_BYTES + MAX_PAYLOAD_BYTES),
            descriptors: Vec::new(),
            sent: None,
            fit,
        }
    }

    fn sends(&self) -> bool {
        self.sent.is_some()
    }

    /// Reads and sends until one of the sockets makes it wait.
    fn pass_on(&mut self, from: &UnixStream, to: &UnixStream) -> Result<Flow, RelayError> {
        loop {
            let step = match self.sent {
                None => self.read_some(from)?,
                Some(sent) => self.send_some(to, sent)?,
            };
            if let Some(flow) = step {
                return Ok(flow);
            }
        }
    }

    /// Reads on. Never beyond the message, so that all descriptors that come with it are its own.
    fn read_some(&mut self, from: &UnixStream) -> Result<Option<Flow>, RelayError> {
        let wanted = self.message_bytes()?;
        let have = self.message.len();
        if have == wanted {
            (self.fit)(&mut self.message);
            self.sent = Some(0);
            return Ok(None);
        }
        self.message.resize(wanted, 0);
        let received = receive(from, &mut self.message[have..], &mut self.descriptors);
        self.message.truncate(have + received.as_ref().map_or(0, |bytes| *bytes));
        match received {
            Ok(0) if have > 0 => Err(RelayError::Half),
            Ok(0) => Ok(Some(Flow::Closed)),
            Ok(_) if self.descriptors.len() > MAX_DESCRIPTORS => Err(RelayError::Descriptors),
            Ok(_) => Ok(None),
            Err(error) => waits(error, RelayError::Descriptors),
        }
    }

    /// Length of the message as far as is known: the header's until there is a whole header.
    fn message_bytes(&self) -> Result<usize, RelayError> {
        let (Some(code), Some(bytes)) = (u32_at(&self.message, 0), u32_at(&self.message, SIZE_AT)) else {
            return Ok(HEADER_BYTES);
        };
        if bytes as usize > MAX_PAYLOAD_BYTES {
            return Err(RelayError::TooLong { code, bytes });
        }
        Ok(HEADER_BYTES + bytes as usize)
    }

    fn send_some(&mut self, to: &UnixStream, sent: usize) -> Result<Option<Flow>, RelayError> {
        // The descriptors go with the first byte.
        let descriptors: Vec<RawFd> = self.descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        match to.send_with_fds(&[&self.message[sent..]], &descriptors) {
            Ok(bytes) => {
                self.descriptors.clear();
                self.sent = Some(sent + bytes);
                if sent + bytes == self.message.len() {
                    self.message.clear();
                    self.sent = None;
                }
                Ok(None)
            }
            Err(error) if error.errno() == libc::EPIPE => Ok(Some(Flow::Closed)),
            Err(error) => waits(error, RelayError::Descriptors),
        }
    }
}

/// What an error of a socket that does not block means.
fn waits(error: vmm_sys_util::errno::Error, too_many: RelayError) -> Result<Option<Flow>, RelayError> {
    match error.errno() {
        libc::EAGAIN => Ok(Some(Flow::Open)),
        libc::EINTR => Ok(None),
        libc::ECONNRESET => Ok(Some(Flow::Closed)),
        libc::ENOBUFS => Err(too_many),
        code => Err(RelayError::Socket(io::Error::from_raw_os_error(code))),
    }
}

/// Receives up to the length of `buffer`, and the descriptors that come with it.
fn receive(
    from: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, vmm_sys_util::errno::Error> {
    let mut received = [-1; MAX_DESCRIPTORS];
    let mut parts = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }];
    // SAFETY: the only part is the buffer, which may be written for its length.
    let (bytes, count) = unsafe { from.recv_with_fds(&mut parts, &mut received) }?;
    for fd in &received[..count] {
        // SAFETY: the kernel just made this descriptor for us.
        descriptors.push(unsafe { OwnedFd::from_raw_fd(*fd) });
    }
    Ok(bytes)
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    // The protocol uses the byte order of the machine.
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// Cuts a memory table to the regions it names. One that is too short is left for the library to refuse.
fn fit_memory_table(message: &mut Vec<u8>) {
    if u32_at(message, 0) != Some(SET_MEM_TABLE) {
        return;
    }
    let Some(regions) = u32_at(message, HEADER_BYTES) else { return };
    let bytes = (regions as usize).saturating_mul(REGION_BYTES).saturating_add(TABLE_HEADER_BYTES);
    if message.len() - HEADER_BYTES > bytes {
        message.truncate(HEADER_BYTES + bytes);
        // Not longer than the message was, so it fits 32 bits.
        message[SIZE_AT..HEADER_BYTES].copy_from_slice(&(bytes as u32).to_ne_bytes());
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
