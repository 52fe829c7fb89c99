//! What is held, as the lender's next process finds it: entries of what has come, died and gone, one behind the other.
//!
//! ```text
//! | checksum (4) | kind (2) | count (2) | place (4) | 0 (4) |
//! |   a copy:          writing (8) | segment (4) | offset (4) | count times: start (2), units (2), at (2) | to a multiple of 8 |
//! |   what died of it:                                          count times: start (2), units (2)        | to a multiple of 8 |
//! |   it is gone |
//! |   it was dropped:  writing (8) |
//! ```
//!
//! A copy's bytes are there before its entry is, and no memory is used for anything else, or given back, before the entry is that says why. So
//! what the entries say up to the end is true at every moment. An entry of a copy replaces what was at its place. When a third of the journal is
//! of no use any more, it is written anew.

use std::{io, sync::Arc};

use tmem_store::TierCopy;

use super::{
    file::{LentFile, NotTakenOver},
    log::Position,
    mapping::PAGE_BYTES,
    pieces::{PIECE_BYTES, Pieces},
};
use crate::wire::{MAX_RUNS, Run};

const HEAD_BYTES: usize = 16;
const COPY_BYTES: usize = 16;
const RUN_BYTES: usize = 4;
const ALIGN_BYTES: usize = 8;

const COPY: u16 = 1;
const DEAD: u16 = 2;
const GONE: u16 = 3;
const DROPPED: u16 = 4;

const WRITING_BYTES: usize = 8;

/// Written anew when it has half as much again as what there is takes, and so many bytes more.
const SPARE_BYTES: u64 = 16 << 10;

/// What is written at once of a journal that is written anew.
const PART_BYTES: usize = 64 << 10;

/// The longest entry: a copy of as many pieces as an extent can have.
const MAX_ENTRY_BYTES: usize = HEAD_BYTES + COPY_BYTES + MAX_RUNS * PIECE_BYTES + ALIGN_BYTES;

/// A change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Copy { place: u32, writing: u64, position: Position, pieces: Pieces },
    Dead { place: u32, runs: Vec<Run> },
    Gone { place: u32 },
    Dropped { place: u32, writing: u64 },
}

/// What there is, to be told how long a journal of it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    pub(super) copies: usize,
    pub(super) pieces: usize,
    pub(super) dropped: usize,
}

impl Amount {
    fn journal_bytes(self) -> u64 {
        let copies = self.copies * (HEAD_BYTES + COPY_BYTES + ALIGN_BYTES) + self.pieces * PIECE_BYTES;
        (copies + self.dropped * (HEAD_BYTES + WRITING_BYTES)) as u64
    }
}

/// The journal of one borrower's file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<LentFile>,
    len_bytes: u64,
    /// Before it is as long it is not tried again to write it anew.
    tried_again_at_bytes: u64,
    /// Changes are missing that could not be entered: when it was asked so often whether it is due, it is tried again to write it anew.
    missing: Option<u32>,
    entry: Vec<u8>,
}

/// A lender looks ten times a second, whatever its borrower does.
const LOOKS_BETWEEN_TRIES: u32 = 100;

impl Journal {
    /// The journal of a file that has so much of one.
    pub(super) fn new(file: Arc<LentFile>, len_bytes: u64) -> Self {
        Self { file, len_bytes, tried_again_at_bytes: 0, missing: None, entry: Vec::new() }
    }

    /// A copy is there, its bytes are written. False: it could not be entered, so it is not.
    #[must_use]
    pub(super) fn enter_copy(
        &mut self,
        place: u32,
        writing: u64,
        position: Position,
        pieces: &Pieces,
    ) -> bool {
        self.enter(|entry| put_copy(entry, place, writing, position, pieces)).is_ok()
    }

    /// These runs of a copy are dead.
    pub(super) fn enter_dead(&mut self, place: u32, runs: impl Iterator<Item = Run> + Clone) {
        let entered = self.enter(|entry| {
            put_entry(entry, DEAD, runs.clone().count(), place, |entry| {
                runs.for_each(|run| {
                    [run.start, run.units].iter().for_each(|n| entry.extend(n.to_le_bytes()))
                });
            });
        });
        self.or_broken(entered);
    }

    /// A copy was asked back, and dropped; its borrower has not said that it knows.
    pub(super) fn enter_dropped(&mut self, place: u32, writing: u64) {
        let entered = self.enter(|entry| put_dropped(entry, place, writing));
        self.or_broken(entered);
    }

    /// A copy is not there any more, or its borrower knows that it was dropped.
    pub(super) fn enter_gone(&mut self, place: u32) {
        let entered = self.enter(|entry| put_entry(entry, GONE, 0, place, |_| ()));
        self.or_broken(entered);
    }

    /// Whether it should be written anew for what there is. Asked after each change, and now and then without one.
    pub(super) fn is_due(&mut self, amount: Amount) -> bool {
        let is_missing = self.missing == Some(0);
        self.missing = self.missing.map(|left| left.saturating_sub(1));
        let needed_bytes = amount.journal_bytes();
        let most_bytes = if needed_bytes == 0 { 0 } else { needed_bytes + needed_bytes / 2 + SPARE_BYTES };
        let is_long = self.len_bytes > most_bytes && self.len_bytes >= self.tried_again_at_bytes;
        is_long || is_missing
    }

    /// Writes it anew: these copies are what there is, and these were dropped. Where that fails it goes on as it is.
    pub(super) fn write_anew<'a>(
        &mut self,
        copies: impl Iterator<Item = (u32, u64, Position, &'a Pieces)>,
        dropped: impl Iterator<Item = TierCopy>,
    ) {
        match self.try_write_anew(copies, dropped) {
            Ok(len_bytes) => {
                (self.len_bytes, self.tried_again_at_bytes, self.missing) = (len_bytes, 0, None);
            }
            Err(_) => {
                self.tried_again_at_bytes = self.len_bytes + SPARE_BYTES;
                self.missing = self.missing.map(|_| LOOKS_BETWEEN_TRIES);
            }
        }
    }

    fn try_write_anew<'a>(
        &self,
        copies: impl Iterator<Item = (u32, u64, Position, &'a Pieces)>,
        dropped: impl Iterator<Item = TierCopy>,
    ) -> io::Result<u64> {
        let mut another = self.file.begin_another();
        let mut part = Vec::with_capacity(PART_BYTES + MAX_ENTRY_BYTES);
        for (place, writing, position, pieces) in copies {
            put_copy(&mut part, place, writing, position, pieces);
            if part.len() >= PART_BYTES {
                another.write(&part)?;
                part.clear();
            }
        }
        dropped.for_each(|copy| put_dropped(&mut part, copy.place, copy.writing));
        another.write(&part)?;
        Ok(another.take_over())
    }

    /// The memory that it takes, in bytes.
    pub(super) fn held_bytes(&self) -> u64 {
        self.len_bytes.next_multiple_of(PAGE_BYTES as u64)
    }

    fn enter(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.entry.clear();
        put(&mut self.entry);
        self.file.enter(&self.entry)?;
        self.len_bytes += self.entry.len() as u64;
        Ok(())
    }

    fn or_broken(&mut self, entered: io::Result<()>) {
        if entered.is_err() {
            self.missing.get_or_insert(0);
            self.file.mark_broken();
        }
    }
}

fn put_copy(out: &mut Vec<u8>, place: u32, writing: u64, position: Position, pieces: &Pieces) {
    put_entry(out, COPY, pieces.count(), place, |out| {
        let (segment, offset) = position.parts();
        out.extend(writing.to_le_bytes());
        out.extend(segment.to_le_bytes());
        out.extend(offset.to_le_bytes());
        pieces.write(out);
    });
}

fn put_dropped(out: &mut Vec<u8>, place: u32, writing: u64) {
    put_entry(out, DROPPED, 0, place, |out| out.extend(writing.to_le_bytes()));
}

fn put_entry(out: &mut Vec<u8>, kind: u16, count: usize, place: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind.to_le_bytes());
    out.extend((count as u16).to_le_bytes()); // at most an extent's units
    out.extend(place.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
    let check = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&check.to_le_bytes());
}

/// What a journal says, in order.
pub(super) fn entries(journal: &[u8]) -> impl Iterator<Item = Result<Entry, NotTakenOver>> {
    let mut rest = journal;
    std::iter::from_fn(move || {
        let before = (!rest.is_empty()).then_some(rest)?;
        let taken = take_entry(&mut rest).ok_or(NotTakenOver::Damaged("its journal"));
        if taken.is_err() {
            rest = &before[..0];
        }
        Some(taken)
    })
}

fn take_entry(rest: &mut &[u8]) -> Option<Entry> {
    let (head, behind) = rest.split_first_chunk::<HEAD_BYTES>()?;
    let [c0, c1, c2, c3, k0, k1, n0, n1, p0, p1, p2, p3, ..] = *head;
    let (kind, count) = (u16::from_le_bytes([k0, k1]), usize::from(u16::from_le_bytes([n0, n1])));
    let place = u32::from_le_bytes([p0, p1, p2, p3]);
    let body_bytes = match kind {
        COPY => COPY_BYTES + count * PIECE_BYTES,
        DEAD => count * RUN_BYTES,
        GONE => 0,
        DROPPED => WRITING_BYTES,
        _ => return None,
    };
    let (padded, next) = behind.split_at_checked(body_bytes.next_multiple_of(ALIGN_BYTES))?;
    let check = crc32c::crc32c(&rest[4..HEAD_BYTES + padded.len()]);
    if check != u32::from_le_bytes([c0, c1, c2, c3]) {
        return None;
    }
    *rest = next;
    let body = &padded[..body_bytes];
    match kind {
        COPY => {
            let (writing, body) = body.split_first_chunk()?;
            let (segment, body) = body.split_first_chunk()?;
            let (offset, body) = body.split_first_chunk()?;
            let position = Position::new(u32::from_le_bytes(*segment), u32::from_le_bytes(*offset));
            let pieces = Pieces::read(body)?;
            Some(Entry::Copy { place, writing: u64::from_le_bytes(*writing), position, pieces })
        }
        DEAD => {
            let (runs, _) = body.as_chunks::<RUN_BYTES>();
            let run = |[s0, s1, u0, u1]: &[u8; RUN_BYTES]| Run {
                start: u16::from_le_bytes([*s0, *s1]),
                units: u16::from_le_bytes([*u0, *u1]),
            };
            Some(Entry::Dead { place, runs: runs.iter().map(run).collect() })
        }
        DROPPED => Some(Entry::Dropped { place, writing: u64::from_le_bytes(*body.first_chunk()?) }),
        _ => Some(Entry::Gone { place }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let runs = [Run { start: 3, units: 5 }, Run { start: 10, units: 1 }, Run { start: 70, units: 9 }];
        let mut journal = Vec::new();
        put_copy(&mut journal, 7, 1 << 40, Position::new(5, 4096), &Pieces::packed(runs.into_iter()));
        put_copy(&mut journal, 8, 9, Position::NOWHERE, &Pieces::default());
        put_entry(&mut journal, DEAD, 1, 7, |out| out.extend([3, 0, 2, 0]));
        put_entry(&mut journal, GONE, 0, 8, |_| ());
        put_dropped(&mut journal, 9, 77);
        journal
    }

    #[test]
    fn what_was_entered_is_read() {
        let journal = written();
        let read: Vec<Entry> = entries(&journal).map(Result::unwrap).collect();
        let [Entry::Copy { place: 7, writing, position, pieces }, rest @ ..] = &read[..] else {
            panic!("{read:?}")
        };
        assert_eq!((*writing, *position, pieces.count()), (1 << 40, Position::new(5, 4096), 3));
        let empty =
            Entry::Copy { place: 8, writing: 9, position: Position::NOWHERE, pieces: Pieces::default() };
        let dead = Entry::Dead { place: 7, runs: vec![Run { start: 3, units: 2 }] };
        assert_eq!(rest, [empty, dead, Entry::Gone { place: 8 }, Entry::Dropped { place: 9, writing: 77 }]);
    }

    #[test]
    fn no_flipped_bit_and_no_cut_changes_what_is_read_unseen() {
        let journal = written();
        for bit in 0..journal.len() * 8 {
            let mut flipped = journal.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read: Vec<_> = entries(&flipped).collect();
            assert!(read.len() <= 5 && read.last().unwrap().is_err(), "bit {bit}: {read:?}");
        }
        let ends: Vec<usize> =
            (0..journal.len()).filter(|at| entries(&journal[..*at]).all(|entry| entry.is_ok())).collect();
        assert_eq!(ends.len(), 5, "between entries: {ends:?}");
    }
}
