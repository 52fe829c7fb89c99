//! Replies, gathered so that many go out at once.

use std::io;

use tmem_transport::vigil;

use crate::{
    handshake::Headers,
    link::Link,
    protocol::{EXTENDED_REPLY_MAGIC, Errno, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, command},
    request::Request,
};

/// Longest header, with what a chunk of data has before the data.
const MAX_HEADER_BYTES: usize = 32 + 8;

/// Replies that were not sent yet, in a buffer of fixed size.
pub(crate) struct Replies {
    bytes: Box<[u8]>,
    filled: usize,
    headers: Headers,
    /// How many requests have been answered in it.
    answers: u32,
}

impl Replies {
    pub(crate) fn new(capacity_bytes: usize, headers: Headers) -> Self {
        Self { bytes: vec![0; capacity_bytes].into_boxed_slice(), filled: 0, headers, answers: 0 }
    }

    /// The largest piece of data that fits one chunk, in bytes, whatever else is waiting.
    pub(crate) fn max_data_bytes(&self) -> usize {
        self.bytes.len() - MAX_HEADER_BYTES
    }

    /// Answers that wait to be sent.
    pub(crate) fn answers(&self) -> u32 {
        self.answers
    }

    /// Sends what waits.
    pub(crate) fn send(&mut self, link: &mut impl Link) -> io::Result<()> {
        if self.filled > 0 {
            let _waiting = vigil::wait();
            link.send(&self.bytes[..self.filled])?;
        }
        (self.filled, self.answers) = (0, 0);
        Ok(())
    }

    /// A request without data was carried out, or not.
    pub(crate) fn done(
        &mut self,
        link: &mut impl Link,
        request: &Request,
        result: Result<(), Errno>,
    ) -> io::Result<()> {
        self.reserve(link, MAX_HEADER_BYTES)?;
        match (self.headers, result) {
            (Headers::Simple, _) => self.simple(request, result.err()),
            // A read must be answered with chunks, even one of nothing.
            (Headers::Structured, Ok(())) if request.command != command::READ => self.simple(request, None),
            (_, Ok(())) => self.chunk(request, chunk::NONE, true, 0),
            (_, Err(error)) => {
                self.chunk(request, chunk::ERROR, true, 6);
                self.push(&(error as u32).to_be_bytes());
                // No message: the number says it all.
                self.push(&0u16.to_be_bytes());
            }
        }
        self.answers += 1;
        Ok(())
    }

    /// A piece of the data that a read asked for, from `offset_bytes` of the export on, which `read` puts in its place. `done`: it is
    /// the last one. Where `read` fails, nothing is there.
    pub(crate) fn data(
        &mut self,
        link: &mut impl Link,
        request: &Request,
        offset_bytes: u64,
        len: usize,
        done: bool,
        read: impl FnOnce(&mut [u8]) -> Result<(), Errno>,
    ) -> io::Result<Result<(), Errno>> {
        self.reserve(link, MAX_HEADER_BYTES + len)?;
        let before = self.filled;
        if self.headers == Headers::Simple {
            if offset_bytes == request.offset_bytes {
                self.simple(request, None);
            }
        } else {
            self.chunk(request, chunk::OFFSET_DATA, done, 8 + len as u64);
            self.push(&offset_bytes.to_be_bytes());
        }
        let data = self.filled..self.filled + len;
        let result = read(&mut self.bytes[data.clone()]);
        if result.is_ok() {
            self.filled = data.end;
            self.answers += u32::from(done);
        } else {
            self.filled = before;
        }
        Ok(result)
    }

    /// What is stored, stretch by stretch: length in bytes, and state.
    pub(crate) fn block_status(
        &mut self,
        link: &mut impl Link,
        request: &Request,
        context: u32,
        extents: &[(u64, u32)],
    ) -> io::Result<()> {
        self.reserve(link, MAX_HEADER_BYTES + 16 * extents.len())?;
        if self.headers == Headers::Extended {
            self.chunk(request, chunk::BLOCK_STATUS_EXT, true, 8 + 16 * extents.len() as u64);
            self.push(&context.to_be_bytes());
            self.push(&(extents.len() as u32).to_be_bytes());
            for (len, state) in extents {
                self.push(&len.to_be_bytes());
                self.push(&u64::from(*state).to_be_bytes());
            }
        } else {
            self.chunk(request, chunk::BLOCK_STATUS, true, 4 + 8 * extents.len() as u64);
            self.push(&context.to_be_bytes());
            for (len, state) in extents {
                // A compact request is of less than 4 GiB, and its extents end with it.
                self.push(&(*len as u32).to_be_bytes());
                self.push(&state.to_be_bytes());
            }
        }
        self.answers += 1;
        Ok(())
    }

    fn simple(&mut self, request: &Request, error: Option<Errno>) {
        self.push(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        self.push(&error.map_or(0, |error| error as u32).to_be_bytes());
        self.push(&request.cookie.to_be_bytes());
    }

    fn chunk(&mut self, request: &Request, kind: u16, done: bool, len: u64) {
        let flags = if done { chunk::DONE } else { 0 };
        let extended = self.headers == Headers::Extended;
        let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
        self.push(&magic.to_be_bytes());
        self.push(&flags.to_be_bytes());
        self.push(&kind.to_be_bytes());
        self.push(&request.cookie.to_be_bytes());
        if extended {
            self.push(&request.offset_bytes.to_be_bytes());
            self.push(&len.to_be_bytes());
        } else {
            self.push(&(len as u32).to_be_bytes());
        }
    }

    /// Room was reserved.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        self.bytes[self.filled..end].copy_from_slice(bytes);
        self.filled = end;
    }

    /// Sends what waits if there is no room for `len` more bytes. `len` is at most the buffer.
    fn reserve(&mut self, link: &mut impl Link, len: usize) -> io::Result<()> {
        if self.bytes.len() - self.filled < len { self.send(link) } else { Ok(()) }
    }
}
