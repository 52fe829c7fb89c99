//! Bytes that have come and were not used yet.

use std::io;

/// A buffer of fixed size. Memory is taken from the OS only as far as it is ever filled.
pub(crate) struct ReceiveBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self { bytes: vec![0; capacity_bytes].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What has come and was not consumed.
    pub(crate) fn available(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Done with the first bytes of what is available.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Makes room for at least `len` bytes in one piece, counted from the first one available: all that a caller waits for.
    pub(crate) fn make_room(&mut self, len: usize) {
        if self.start + len > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Has `receive` fill some of the room; gives what it gives.
    pub(crate) fn fill(&mut self, receive: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let received = receive(&mut self.bytes[self.end..])?;
        self.end += received;
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in proptest::collection::vec((0..40usize, 0..40usize, 1..32usize), 1..200)) {
            let mut buffer = ReceiveBuffer::new(64);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (fill, consume, want) in steps {
                buffer.make_room(buffer.available().len().max(want));
                buffer.fill(|room| {
                    let len = fill.min(room.len());
                    for byte in &mut room[..len] {
                        *byte = next;
                        model.push_back(next);
                        next = next.wrapping_add(1);
                    }
                    Ok(len)
                }).unwrap();
                prop_assert!(model.iter().eq(buffer.available()));
                let consume = consume.min(model.len());
                buffer.consume(consume);
                model.drain(..consume);
            }
        }
    }
}
