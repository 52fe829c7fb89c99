//! Frames out of a stream of bytes, in one buffer.

use std::io::{self, Read};

use super::{
    error::WireError,
    frame::{Frame, HEADER_BYTES, MAX_PAYLOAD_BYTES},
};

/// What the buffer has at first, in bytes: many small frames.
const FIRST_BYTES: usize = 64 << 10;

/// Collects bytes until a frame is whole. The buffer grows by what has come, not by what a header promises, and never beyond one frame.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// What of it is not yet a frame that was given out: from here...
    start: usize,
    /// ...to here.
    end: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { buffer: vec![0; FIRST_BYTES], start: 0, end: 0 }
    }
}

impl FrameReader {
    /// The most that it holds, in bytes.
    pub const MAX_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;

    /// What it holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back what a long frame needed, if nothing has come since.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > FIRST_BYTES {
            *self = Self::default();
        }
    }

    /// The next frame. `None`: the stream ended between two frames. Errors of the stream are the outer ones; after one that only means
    /// "later" it can be called again.
    pub fn next(&mut self, from: &mut impl Read) -> io::Result<Result<Option<Frame<'_>>, WireError>> {
        let whole = loop {
            match self.look() {
                Err(error) => return Ok(Err(error)),
                Ok(Ok(whole)) => break whole,
                Ok(Err(needed)) => match self.receive(from, needed)? {
                    Ok(true) => {}
                    Ok(false) => return Ok(Ok(None)),
                    Err(error) => return Ok(Err(error)),
                },
            }
        };
        Ok(Ok(Some(self.give_out(whole))))
    }

    /// Receives once, when no frame is whole: [`Self::next_held`] gives what there is then. False: the stream ended between two frames.
    /// Errors are as those of [`Self::next`].
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<Result<bool, WireError>> {
        match self.look() {
            Err(error) => Ok(Err(error)),
            Ok(Ok(_)) => Ok(Ok(true)),
            Ok(Err(needed)) => self.receive(from, needed),
        }
    }

    fn receive(&mut self, from: &mut impl Read, needed: usize) -> io::Result<Result<bool, WireError>> {
        self.make_room(needed);
        loop {
            match from.read(&mut self.buffer[self.end..]) {
                Ok(0) if self.start == self.end => return Ok(Ok(false)),
                Ok(0) => return Ok(Err(WireError::Cut)),
                Ok(got) => {
                    self.end += got;
                    return Ok(Ok(true));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame, if all of it has come already.
    pub fn next_held(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        Ok(self.look()?.ok().map(|whole| self.give_out(whole)))
    }

    /// Kind, id and length of the next frame. `Err` within: so many bytes are needed for it.
    fn look(&self) -> Result<Result<(u16, u64, usize), usize>, WireError> {
        let decoded = Frame::decode(&self.buffer[self.start..self.end])?;
        Ok(decoded.map(|(frame, frame_bytes)| (frame.kind, frame.id, frame_bytes)))
    }

    fn give_out(&mut self, (kind, id, frame_bytes): (u16, u64, usize)) -> Frame<'_> {
        let start = self.start;
        self.start += frame_bytes;
        Frame { kind, id, payload: &self.buffer[start + HEADER_BYTES..self.start] }
    }

    /// Makes room for at least a byte more of a frame that needs `needed` in all.
    fn make_room(&mut self, needed: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end < self.buffer.len() && self.start + needed <= self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            let bytes = (self.buffer.len() * 2).min(needed.next_multiple_of(4096)).min(Self::MAX_BYTES);
            self.buffer.reserve_exact(bytes - self.buffer.len());
            self.buffer.resize(bytes, 0);
        }
    }
}
