//! Where the live bytes of a copy are: stretches of the extent, and where each lies behind the copy's start in memory.

use tmem_store::TIER_EXTENT_BYTES;

use crate::wire::{RUN_UNIT_BYTES, Run};

/// Bytes that follow each other in the extent and in memory. All in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// From where in the extent.
    start: u16,
    /// How many. Not 0.
    units: u16,
    /// From where behind the copy's start in memory.
    at: u16,
}

impl Piece {
    fn end(self) -> u32 {
        u32::from(self.start) + u32::from(self.units)
    }

    /// What of it lies in these units of the extent.
    fn part(self, from: u32, to: u32) -> Option<Piece> {
        let (start, end) = (u32::from(self.start).max(from), self.end().min(to));
        // Both are within the piece, whose numbers fit.
        (start < end).then(|| Piece {
            start: start as u16,
            units: (end - start) as u16,
            at: self.at + (start - u32::from(self.start)) as u16,
        })
    }
}

/// What an extent has.
const UNITS: u32 = (TIER_EXTENT_BYTES / RUN_UNIT_BYTES) as u32;

/// A stretch of memory behind a copy's start, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) at: usize,
    pub(super) len: usize,
}

/// The live pieces of a copy, in order. Between two of them bytes are missing in the extent, and there may be dead ones in memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces(Box<[Piece]>);

/// What a piece takes, in bytes.
pub(super) const PIECE_BYTES: usize = size_of::<Piece>();

impl Pieces {
    /// Runs whose bytes lie back to back. They are those of an extent: in order, with gaps between them.
    pub(super) fn packed(runs: impl Iterator<Item = Run>) -> Self {
        let mut at = 0;
        let piece = |run: Run| {
            let piece = Piece { start: run.start, units: run.units, at };
            // The last one may end at 131,072 bytes, behind which nothing begins.
            at = at.wrapping_add(run.units);
            piece
        };
        Self(runs.map(piece).collect())
    }

    /// Where it lies in memory, of bytes of the extent that are all live.
    pub(super) fn find(&self, start_bytes: usize, len_bytes: usize) -> Option<Stretch> {
        let behind = self.0.partition_point(|piece| usize::from(piece.start) * RUN_UNIT_BYTES <= start_bytes);
        let piece = self.0.get(behind.checked_sub(1)?)?;
        let from_bytes = start_bytes - usize::from(piece.start) * RUN_UNIT_BYTES;
        let is_within = from_bytes + len_bytes <= usize::from(piece.units) * RUN_UNIT_BYTES;
        is_within.then(|| Stretch { at: usize::from(piece.at) * RUN_UNIT_BYTES + from_bytes, len: len_bytes })
    }

    /// Each run, and where its bytes lie.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Run, Stretch)> + Clone {
        self.0.iter().map(|piece| {
            let run = Run { start: piece.start, units: piece.units };
            (run, Stretch { at: usize::from(piece.at) * RUN_UNIT_BYTES, len: run.bytes() })
        })
    }

    /// What these runs of the extent have that is live is no more: where that lies, in order.
    pub(super) fn kill(&mut self, runs: impl Iterator<Item = Run>) -> Vec<Stretch> {
        let mut died = Vec::new();
        let mut left = Vec::with_capacity(self.0.len() + 8);
        let mut pieces = self.0.iter().copied();
        let mut piece = pieces.next();
        for run in runs {
            let (from, to) = (u32::from(run.start), u32::from(run.start) + u32::from(run.units));
            while let Some(now) = piece {
                left.extend(now.part(0, from));
                if let Some(dead) = now.part(from, to) {
                    let (at, len) = (usize::from(dead.at), usize::from(dead.units));
                    died.push(Stretch { at: at * RUN_UNIT_BYTES, len: len * RUN_UNIT_BYTES });
                }
                // What is behind this run is for the next one.
                piece = now.part(to, u32::MAX);
                if piece.is_some() {
                    break;
                }
                piece = pieces.next();
            }
        }
        left.extend(piece.into_iter().chain(pieces));
        self.0 = left.into_boxed_slice();
        died
    }

    /// The same runs back to back.
    pub(super) fn repacked(&self) -> Self {
        Self::packed(self.iter().map(|(run, _)| run))
    }

    /// As a journal has them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let numbers = self.0.iter().flat_map(|piece| [piece.start, piece.units, piece.at]);
        numbers.for_each(|number| out.extend(number.to_le_bytes()));
    }

    /// What was written so. `None`: these are no pieces of an extent.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<PIECE_BYTES>();
        let piece = |[s0, s1, u0, u1, a0, a1]: &[u8; PIECE_BYTES]| Piece {
            start: u16::from_le_bytes([*s0, *s1]),
            units: u16::from_le_bytes([*u0, *u1]),
            at: u16::from_le_bytes([*a0, *a1]),
        };
        let pieces: Box<[Piece]> = chunks.iter().map(piece).collect();
        let behind = |piece: &Piece| u32::from(piece.at) + u32::from(piece.units);
        let in_order =
            pieces.array_windows().all(|[a, b]| a.end() <= b.start.into() && behind(a) <= b.at.into());
        let fit = |piece: &Piece| piece.units > 0 && piece.end() <= UNITS && behind(piece) <= UNITS;
        (rest.is_empty() && in_order && pieces.iter().all(fit)).then_some(Self(pieces))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// How many bytes are live.
    pub(super) fn live_bytes(&self) -> usize {
        self.0.iter().map(|piece| usize::from(piece.units) * RUN_UNIT_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[(u16, u16)]) -> impl Iterator<Item = Run> {
        runs.iter().map(|(start, units)| Run { start: *start, units: *units })
    }

    fn live(pieces: &Pieces) -> Vec<(u16, u16, usize)> {
        pieces.iter().map(|(run, stretch)| (run.start, run.units, stretch.at / RUN_UNIT_BYTES)).collect()
    }

    #[test]
    fn what_died_is_cut_out_and_the_rest_stays_where_it_is() {
        let mut pieces = Pieces::packed(runs(&[(10, 10), (30, 10), (50, 1)]));
        // Before everything; the first's middle; from one into the next; twice in one; what was not there.
        let dead = pieces.kill(runs(&[(0, 2), (12, 3), (18, 14), (33, 1), (35, 1), (60, 9)]));
        let dead: Vec<_> = dead.iter().map(|stretch| (stretch.at / 8, stretch.len / 8)).collect();
        assert_eq!(
            live(&pieces),
            [(10, 2, 0), (15, 3, 5), (32, 1, 12), (34, 1, 14), (36, 4, 16), (50, 1, 20)]
        );
        assert_eq!(dead, [(2, 3), (8, 2), (10, 2), (13, 1), (15, 1)]);
        assert_eq!(pieces.live_bytes(), 12 * 8);
        assert_eq!(live(&pieces.repacked()).last(), Some(&(50, 1, 11)));
    }

    #[test]
    fn they_are_read_as_they_were_written_and_nothing_else_is_pieces() {
        let mut pieces = Pieces::packed(runs(&[(0, 16_000), (16_100, 284)]));
        pieces.kill(runs(&[(5, 7)]));
        let mut bytes = Vec::new();
        pieces.write(&mut bytes);
        assert_eq!(Pieces::read(&bytes), Some(pieces));
        let read =
            |numbers: &[u16]| Pieces::read(&numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
        assert!(
            read(&[]).is_some() && read(&[0, 16_384, 0]).is_some() && read(&[9, 1, 0, 10, 1, 1]).is_some()
        );
        for wrong in [
            &[0, 0, 0][..],
            &[1, 16_384, 0],
            &[0, 16_384, 1],
            &[9, 2, 0, 10, 1, 2],
            &[9, 2, 0, 11, 1, 1],
            &[11, 1, 0, 9, 1, 1],
            &[1, 2],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn bytes_are_found_within_one_piece_alone() {
        let mut pieces = Pieces::packed(runs(&[(0, 16_384)]));
        assert_eq!(pieces.find(0, 131_072), Some(Stretch { at: 0, len: 131_072 }));
        assert_eq!(pieces.find(131_071, 1), Some(Stretch { at: 131_071, len: 1 }));
        assert_eq!(pieces.find(131_071, 2), None);
        pieces.kill(runs(&[(1, 1)]));
        assert_eq!(pieces.find(0, 8), Some(Stretch { at: 0, len: 8 }));
        assert_eq!((pieces.find(0, 9), pieces.find(8, 1), pieces.find(15, 2)), (None, None, None));
        assert_eq!(pieces.find(17, 3), Some(Stretch { at: 17, len: 3 }));
        assert_eq!(pieces.repacked().find(17, 3), Some(Stretch { at: 9, len: 3 }));
        pieces.kill(runs(&[(0, 16_384)]));
        assert!(pieces.is_empty() && pieces.find(0, 0).is_none());
    }
}
