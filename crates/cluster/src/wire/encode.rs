//! Frames that go.

use tmem_store::TierCopy;

use super::{
    error::WireError,
    fields::{COPY_BYTES, write_copy},
    frame::{self, Frame, MAX_PAYLOAD_BYTES},
    gets::{Get, Gots},
    message::{Message, PutResult, Reason, kind},
    runs::Run,
};

/// Writes frames behind each other into a buffer. What is beyond the bounds of the protocol is an error and leaves the buffer as it was.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Writes to the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Keep these copies: the runs of each, and their bytes one behind the other.
    pub fn put(&mut self, id: u64, puts: &[(TierCopy, &[Run], &[u8])]) -> Result<(), WireError> {
        self.frame(kind::PUT, id, |out| {
            write_count(puts.len(), out);
            for (copy, runs, bytes) in puts {
                write_copy(*copy, out);
                write_runs(runs, out);
                out.extend_from_slice(bytes);
            }
        })
    }

    /// Give these bytes of copies.
    pub fn get(&mut self, id: u64, gets: &[Get]) -> Result<(), WireError> {
        self.frame(kind::GET, id, |out| {
            write_count(gets.len(), out);
            gets.iter().for_each(|get| get.write(out));
        })
    }

    /// Forget these: runs of copies, or the whole of those without.
    pub fn flush(&mut self, id: u64, dead: &[(TierCopy, &[Run])]) -> Result<(), WireError> {
        self.frame(kind::FLUSH, id, |out| {
            write_count(dead.len(), out);
            for (copy, runs) in dead {
                write_copy(*copy, out);
                write_runs(runs, out);
            }
        })
    }

    /// Are you there?
    pub fn ping(&mut self, id: u64) -> Result<(), WireError> {
        self.frame(kind::PING, id, |_| ())
    }

    /// So much can still be borrowed, and so much is.
    pub fn offer(&mut self, free_bytes: u64, lent_bytes: u64) -> Result<(), WireError> {
        self.frame(kind::OFFER, 0, |out| {
            out.extend(free_bytes.to_le_bytes());
            out.extend(lent_bytes.to_le_bytes());
        })
    }

    /// These copies will be dropped.
    pub fn recall(&mut self, deadline_ms: u32, copies: &[TierCopy]) -> Result<(), WireError> {
        self.frame(kind::RECALL, 0, |out| {
            out.extend(deadline_ms.to_le_bytes());
            write_count(copies.len(), out);
            copies.iter().for_each(|copy| write_copy(*copy, out));
        })
    }

    /// Which copies of mine do you have, from this place on?
    pub fn list(&mut self, id: u64, from_place: u32) -> Result<(), WireError> {
        self.frame(kind::LIST, id, |out| out.extend(from_place.to_le_bytes()))
    }

    /// Give a whole copy, with its runs.
    pub fn fetch(&mut self, id: u64, copy: TierCopy) -> Result<(), WireError> {
        self.frame(kind::FETCH, id, |out| write_copy(copy, out))
    }

    /// What became of each copy of a put.
    pub fn put_done(&mut self, id: u64, results: &[PutResult]) -> Result<(), WireError> {
        self.frame(kind::PUT_DONE, id, |out| {
            write_count(results.len(), out);
            out.extend(results.iter().map(|result| *result as u8));
        })
    }

    /// The bytes that were asked for, or why they are not there.
    pub fn got(&mut self, id: u64, found: &[Result<&[u8], Reason>]) -> Result<(), WireError> {
        self.frame(kind::GOT, id, |out| {
            write_count(found.len(), out);
            Gots::write(found, out);
        })
    }

    /// Forgotten.
    pub fn flushed(&mut self, id: u64) -> Result<(), WireError> {
        self.frame(kind::FLUSHED, id, |_| ())
    }

    /// I am.
    pub fn pong(&mut self, id: u64) -> Result<(), WireError> {
        self.frame(kind::PONG, id, |_| ())
    }

    /// These copies there are, in order of place.
    pub fn listed(&mut self, id: u64, copies: impl Iterator<Item = TierCopy>) -> Result<(), WireError> {
        self.frame(kind::LISTED, id, |out| {
            let start = out.len();
            write_count(0, out);
            copies.for_each(|copy| write_copy(copy, out));
            let count = (out.len() - start - COUNT_BYTES) / COPY_BYTES;
            out[start..start + COUNT_BYTES].copy_from_slice(&count_bytes(count));
        })
    }

    /// The copy that was asked for: each run and its bytes.
    pub fn fetched<'b>(
        &mut self,
        id: u64,
        runs: impl Iterator<Item = (Run, &'b [u8])> + Clone,
    ) -> Result<(), WireError> {
        self.frame(kind::FETCHED, id, |out| {
            write_count(runs.clone().count(), out);
            runs.clone().for_each(|(run, _)| run.write(out));
            runs.for_each(|(_, bytes)| out.extend_from_slice(bytes));
        })
    }

    /// It was not done.
    pub fn refused(&mut self, id: u64, reason: Reason) -> Result<(), WireError> {
        self.frame(kind::REFUSED, id, |out| out.extend((reason as u16).to_le_bytes()))
    }

    /// A frame, if whoever reads it would take it: what a peer refuses ends the connection, and with it all that is under way.
    fn frame(&mut self, kind: u16, id: u64, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), WireError> {
        let start = frame::begin(self.out);
        payload(self.out);
        let said = &self.out[start + frame::HEADER_BYTES..];
        let taken = if said.len() > MAX_PAYLOAD_BYTES {
            Err(WireError::TooLong(u32::try_from(said.len()).unwrap_or(u32::MAX)))
        } else {
            Message::decode(Frame { kind, id, payload: said }).map(|_| ())
        };
        match taken {
            Ok(()) => frame::end(self.out, start, kind, id),
            Err(_) => self.out.truncate(start),
        }
        taken
    }
}

/// What the length of a list takes, in bytes.
const COUNT_BYTES: usize = 2;

/// A count that does not fit becomes one that is refused by every list.
fn count_bytes(count: usize) -> [u8; COUNT_BYTES] {
    u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes()
}

fn write_count(count: usize, out: &mut Vec<u8>) {
    out.extend(count_bytes(count));
}

fn write_runs(runs: &[Run], out: &mut Vec<u8>) {
    write_count(runs.len(), out);
    runs.iter().for_each(|run| run.write(out));
}
