//! The client: connections to one export, and the slots of requests in flight on them.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use crate::{
    error::BenchError,
    load::{ANSWER_SECONDS, Done, Request, Target},
    page::PAGE_BYTES,
};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REPLY_HEADER_BYTES: usize = 16;
/// Room for the answers of a deep queue.
const RECEIVE_BYTES: usize = 1 << 20;
/// How long a server may take to answer the first messages.
const CONNECT_SECONDS: u64 = 5;

/// One connection, and the bytes on their way.
struct Connection {
    /// Does not block once connected.
    stream: UnixStream,
    /// Requests that were not sent yet.
    outgoing: Vec<u8>,
    /// What came and was not read yet: so many bytes from the start.
    incoming: Box<[u8]>,
    filled: usize,
}

/// A connected export. One thread drives all connections.
pub(super) struct Client {
    connections: Vec<Connection>,
    size_bytes: u64,
    content: Vec<u8>,
    buffers: Vec<u8>,
    /// For each slot, whether its request is a read: its answer brings a page.
    reads: Vec<bool>,
}

impl Client {
    /// Connects to an export, with pages to write and so many slots.
    pub(super) fn connect(
        socket: &Path,
        export: &str,
        connections: u16,
        slots: u16,
        content: Vec<u8>,
    ) -> Result<Self, BenchError> {
        let mut size_bytes = 0;
        let mut connected = Vec::new();
        for _ in 0..connections {
            let (stream, size) = open(socket, export)?;
            size_bytes = size;
            let incoming = vec![0; RECEIVE_BYTES].into_boxed_slice();
            connected.push(Connection { stream, outgoing: Vec::new(), incoming, filled: 0 });
        }
        let slots = usize::from(slots);
        let buffers = vec![0; slots * PAGE_BYTES];
        Ok(Self { connections: connected, size_bytes, content, buffers, reads: vec![false; slots] })
    }

    /// The size of the export.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn buffer(&mut self, slot: usize) -> &mut [u8] {
        &mut self.buffers[slot * PAGE_BYTES..][..PAGE_BYTES]
    }

    fn page(&self, page: usize) -> &[u8] {
        &self.content[page * PAGE_BYTES..][..PAGE_BYTES]
    }

    /// Takes the whole answers out of what a connection has received.
    fn take_answers(&mut self, index: usize, done: &mut Vec<Done>) -> Result<(), BenchError> {
        let mut at = 0;
        loop {
            let connection = &self.connections[index];
            let rest = &connection.incoming[at..connection.filled];
            let Some(header) = rest.first_chunk::<REPLY_HEADER_BYTES>() else { break };
            let word =
                |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let slot = word(12) as usize;
            if word(0) != REPLY_MAGIC || word(8) != 0 || slot >= self.reads.len() {
                return Err(BenchError::Nbd(io::Error::other("it sent something that is no answer")));
            }
            let status = word(4) as i32;
            at += REPLY_HEADER_BYTES;
            if self.reads[slot] && status == 0 {
                let Some(page) = rest[REPLY_HEADER_BYTES..].get(..PAGE_BYTES) else {
                    at -= REPLY_HEADER_BYTES;
                    break;
                };
                self.buffers[slot * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(page);
                at += PAGE_BYTES;
            }
            done.push(Done { slot, status });
        }
        let connection = &mut self.connections[index];
        connection.incoming.copy_within(at..connection.filled, 0);
        connection.filled -= at;
        Ok(())
    }
}

impl Connection {
    /// Sends as much as the socket takes.
    fn send(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what has come; whether there was anything.
    fn receive(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.incoming[self.filled..]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(received) => {
                self.filled += received;
                Ok(true)
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Target for Client {
    fn content_pages(&self) -> usize {
        self.content.len() / PAGE_BYTES
    }

    fn holds(&self, slot: usize, page: usize) -> bool {
        self.buffers[slot * PAGE_BYTES..][..PAGE_BYTES] == *self.page(page)
    }

    fn soil(&mut self, slot: usize) {
        self.buffer(slot).fill(0xa5);
    }

    fn submit(&mut self, slot: usize, request: Request) -> Result<(), BenchError> {
        let index = slot % self.connections.len();
        let command: u32 = if matches!(request, Request::Read { .. }) { 0 } else { 1 };
        self.reads[slot] = command == 0;
        let outgoing = &mut self.connections[index].outgoing;
        outgoing.extend(REQUEST_MAGIC.to_be_bytes());
        outgoing.extend(command.to_be_bytes());
        outgoing.extend((slot as u64).to_be_bytes());
        outgoing.extend((request.block() * PAGE_BYTES as u64).to_be_bytes());
        outgoing.extend((PAGE_BYTES as u32).to_be_bytes());
        if let Request::Write { page, .. } = request {
            outgoing.extend(&self.content[page as usize * PAGE_BYTES..][..PAGE_BYTES]);
        }
        Ok(())
    }

    fn announce(&mut self) -> Result<(), BenchError> {
        self.connections.iter_mut().try_for_each(Connection::send).map_err(BenchError::Nbd)
    }

    fn reap(&mut self, done: &mut Vec<Done>) -> Result<(), BenchError> {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            // What the socket had no room for goes on meanwhile.
            let received = connection.send().and_then(|()| connection.receive()).map_err(BenchError::Nbd)?;
            if received {
                self.take_answers(index, done)?;
            }
        }
        Ok(())
    }

    fn sleep(&mut self) -> Result<bool, BenchError> {
        let polled = |connection: &Connection| {
            let events =
                if connection.outgoing.is_empty() { libc::POLLIN } else { libc::POLLIN | libc::POLLOUT };
            libc::pollfd { fd: connection.stream.as_raw_fd(), events, revents: 0 }
        };
        let mut polled: Vec<_> = self.connections.iter().map(polled).collect();
        let timeout_ms = (ANSWER_SECONDS * 1000) as libc::c_int;
        // SAFETY: the array is ours and as long as told.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
        let error = io::Error::last_os_error();
        match ready {
            0 => Ok(false),
            // An interrupted sleep is an early one.
            _ if ready < 0 && error.kind() != ErrorKind::Interrupted => Err(BenchError::Nbd(error)),
            _ => Ok(true),
        }
    }
}

/// Connects and agrees on the export; gives its size in bytes, too.
fn open(socket: &Path, export: &str) -> Result<(UnixStream, u64), BenchError> {
    match socket.metadata() {
        Ok(found) if !found.file_type().is_socket() => return Err(BenchError::NotASocket(socket.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(BenchError::SocketMissing(socket.into()));
        }
        _ => {}
    }
    let failed = |error| BenchError::Connect { socket: socket.into(), error };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(CONNECT_SECONDS))).map_err(failed)?;
    let not_an_export =
        |reason: String| BenchError::NotAnExport { socket: socket.into(), export: export.to_owned(), reason };
    let size_bytes = agree(&mut stream, export).map_err(|error| not_an_export(error.to_string()))?;
    stream.set_nonblocking(true).map_err(failed)?;
    Ok((stream, size_bytes))
}

/// The handshake: fixed newstyle, and `GO`.
fn agree(stream: &mut UnixStream, export: &str) -> io::Result<u64> {
    const GO: u32 = 7;
    const ACK: u32 = 1;
    const INFO: u32 = 3;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    if &greeting[..16] != b"NBDMAGICIHAVEOPT" || greeting[17] & 1 == 0 {
        return Err(io::Error::other("it does not speak fixed newstyle NBD"));
    }
    let mut hello = 1u32.to_be_bytes().to_vec();
    hello.extend(b"IHAVEOPT");
    hello.extend(GO.to_be_bytes());
    hello.extend((export.len() as u32 + 6).to_be_bytes());
    hello.extend((export.len() as u32).to_be_bytes());
    hello.extend(export.as_bytes());
    hello.extend(0u16.to_be_bytes());
    stream.write_all(&hello)?;
    let mut size_bytes = None;
    loop {
        let mut header = [0; 20];
        stream.read_exact(&mut header)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (kind, len) = (word(12), word(16));
        if len > 1 << 16 {
            return Err(io::Error::other("it answers with more than makes sense"));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match (kind, data.as_slice()) {
            (ACK, _) => {
                return size_bytes.ok_or_else(|| io::Error::other("it does not tell the export's size"));
            }
            (INFO, [0, 0, a, b, c, d, e, f, g, h, ..]) => {
                size_bytes = Some(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]));
            }
            (INFO, _) => {}
            (refused, _) => return Err(io::Error::other(format!("it refuses the export with {refused:#x}"))),
        }
    }
}
