//! The memory of one borrower's copies: segments that are written one after the other, and emptied when too much in them is dead.

use std::{cmp::Reverse, io, ops::Range, sync::Arc};

use super::{
    file::{LentFile, MAX_SEGMENTS, NotTakenOver, SEGMENT_BYTES},
    mapping::PAGE_BYTES,
    pieces::{Pieces, Stretch},
    segment::{SEGMENT_OVERHEAD_BYTES, Segment, Windows},
};

/// Where a copy's bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    segment: u32,
    /// In bytes. Less than a segment has.
    offset: u32,
}

impl Position {
    /// Where what has no bytes is: nothing ever looks there.
    pub(super) const NOWHERE: Self = Self { segment: u32::MAX, offset: 0 };

    pub(super) fn new(segment: u32, offset: u32) -> Self {
        Self { segment, offset }
    }

    /// The segment, and the offset in it in bytes.
    pub(super) fn parts(self) -> (u32, u32) {
        (self.segment, self.offset)
    }

    /// A stretch behind it, in its segment.
    fn range(self, stretch: Stretch) -> Range<usize> {
        let start = self.offset as usize + stretch.at;
        start..start + stretch.len
    }

    pub(super) fn is_in(self, segment: u32) -> bool {
        self.segment == segment
    }
}

/// Segments are emptied when what is of no use is more than this part of what lives. Under random death a byte that dies has 15 moved then, and
/// 20 with a 32nd; more would not leave enough of a twentieth for all that is counted besides (`tests/lender_memory.rs` has the sums).
const SLACK_PART: usize = 24;
/// What may be of no use however little there is: one segment, and the ends of what is written.
const SLACK_BYTES: usize = 2 * PAGE_BYTES + SEGMENT_OVERHEAD_BYTES;

/// How many segments are chosen in one look at all of them.
const CHOSEN_AT_ONCE: usize = 16;

/// A log of copies.
#[derive(Debug)]
pub(super) struct Log {
    windows: Windows,
    segments: Vec<Option<Segment>>,
    free: Vec<u32>,
    open: Option<u32>,
    live_bytes: usize,
    resident_bytes: usize,
    /// Segments that are to be emptied, the next one last.
    chosen: Vec<u32>,
    /// The one that is being emptied, and how many of its copies were looked at.
    emptying: Option<(u32, usize)>,
}

impl Log {
    /// The log in a file in which there is nothing.
    pub(super) fn new(file: Arc<LentFile>) -> Self {
        Self {
            windows: Windows::of(file),
            segments: Vec::new(),
            free: Vec::new(),
            open: None,
            live_bytes: 0,
            resident_bytes: 0,
            chosen: Vec::new(),
            emptying: None,
        }
    }

    /// The log of these copies, as another process has left it: places, where each is, and its pieces.
    pub(super) fn adopt<'a>(
        file: Arc<LentFile>,
        copies: impl Iterator<Item = (u32, Position, &'a Pieces)>,
    ) -> Result<Self, NotTakenOver> {
        let mut log = Self::new(Arc::clone(&file));
        let mut copies: Vec<_> = copies.filter(|(_, _, pieces)| !pieces.is_empty()).collect();
        copies.sort_unstable_by_key(|(_, position, _)| position.parts());
        for of_segment in copies.chunk_by(|(_, a, _), (_, b, _)| a.segment == b.segment) {
            let id = of_segment[0].1.segment;
            let mut segment = Segment::new(&mut log.windows, id)?;
            for (place, position, pieces) in of_segment {
                if position.offset as usize > SEGMENT_BYTES {
                    return Err(NotTakenOver::Damaged("a copy lies beyond its segment"));
                }
                segment.adopt(*place, pieces.iter().map(|(_, stretch)| position.range(stretch)))?;
            }
            segment.close();
            log.live_bytes += segment.live_bytes();
            log.resident_bytes += segment.resident_bytes();
            let unused = log.segments.len() as u32..id;
            file.give_back_segments(unused.clone());
            log.free.extend(unused);
            log.segments.resize_with(id as usize, || None);
            log.segments.push(Some(segment));
        }
        file.give_back_segments(log.segments.len() as u32..MAX_SEGMENTS);
        Ok(log)
    }

    /// Writes a copy, not more than an extent has.
    pub(super) fn append(&mut self, place: u32, bytes: &[u8]) -> io::Result<Position> {
        let len = bytes.len();
        if len == 0 {
            return Ok(Position::NOWHERE);
        }
        let open = match self.open {
            Some(open) if self.has_room(open, len) => open,
            _ => self.open_another()?,
        };
        let (segments, resident_bytes) = (&mut self.segments, &mut self.resident_bytes);
        let segment = segments[open as usize].as_mut().ok_or_else(|| io::Error::other("no open segment"))?;
        let before = segment.resident_bytes();
        let offset = segment.append(place, bytes)?.ok_or_else(|| io::Error::other("no room"))?;
        *resident_bytes += segment.resident_bytes() - before;
        self.live_bytes += len;
        Ok(Position { segment: open, offset: offset as u32 }) // within a segment
    }

    /// These stretches of a copy, which were live, are dead. They are in order.
    pub(super) fn kill(&mut self, position: Position, dead: impl Iterator<Item = Stretch>) {
        let Some(segment) = self.segment_mut(position.segment) else { return };
        let before = (segment.resident_bytes(), segment.live_bytes());
        segment.kill(dead.map(|stretch| position.range(stretch)));
        let (resident_bytes, live_bytes) = (segment.resident_bytes(), segment.live_bytes());
        self.resident_bytes -= before.0 - resident_bytes;
        self.live_bytes -= before.1 - live_bytes;
        if live_bytes == 0 {
            self.drop_segment(position.segment);
        }
    }

    /// A stretch of a copy.
    pub(super) fn bytes(&self, position: Position, stretch: Stretch) -> &[u8] {
        match self.segments.get(position.segment as usize) {
            Some(Some(segment)) => segment.bytes(position.range(stretch)),
            _ => &[],
        }
    }

    /// Copies a copy to the end of the log, its live pieces back to back: where it is then, and its pieces. It still is where it was, too.
    pub(super) fn copy_to_end(
        &mut self,
        place: u32,
        from: Position,
        pieces: &Pieces,
    ) -> io::Result<(Position, Pieces)> {
        if self.open == Some(from.segment) {
            self.open = None;
        }
        let mut bytes = Vec::with_capacity(pieces.live_bytes());
        pieces.iter().for_each(|(_, stretch)| bytes.extend_from_slice(self.bytes(from, stretch)));
        Ok((self.append(place, &bytes)?, pieces.repacked()))
    }

    /// Whether too much memory is of no use.
    pub(super) fn is_slack(&self) -> bool {
        self.held_bytes() - self.live_bytes > self.live_bytes / SLACK_PART + SLACK_BYTES
    }

    /// The place of a copy that should be moved so that a segment becomes empty, as far as it is still in that segment. `None`: nothing to gain.
    pub(super) fn next_to_move(&mut self) -> Option<(u32, u32)> {
        loop {
            let (id, at) = match self.emptying {
                Some(emptying) => emptying,
                None => (self.choose()?, 0),
            };
            match self.segment_mut(id).and_then(|segment| segment.place(at)) {
                Some(place) => {
                    self.emptying = Some((id, at + 1));
                    return Some((place, id));
                }
                None => self.emptying = None,
            }
        }
    }

    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// All memory that it takes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.resident_bytes + (self.segments.len() - self.free.len()) * SEGMENT_OVERHEAD_BYTES
    }

    /// The segment with the most to gain for what has to be moved. It is sealed.
    fn choose(&mut self) -> Option<u32> {
        loop {
            if let Some(id) = self.chosen.pop() {
                // It may be gone since, or be another one.
                if self.segment_mut(id).is_some_and(|segment| segment.slack_bytes() >= PAGE_BYTES) {
                    self.seal(id);
                    return Some(id);
                }
                continue;
            }
            let mut worth: Vec<(u64, u32)> = (self.segments.iter().enumerate())
                .filter_map(|(id, segment)| {
                    let segment = segment.as_ref()?;
                    let slack = segment.slack_bytes();
                    // Moving what has less than a page of it may gain nothing.
                    let gain = (slack as u64) << 20;
                    (slack >= PAGE_BYTES).then(|| (gain / segment.live_bytes().max(1) as u64, id as u32))
                })
                .collect();
            if worth.is_empty() {
                return None;
            }
            let count = worth.len().min(CHOSEN_AT_ONCE);
            worth.select_nth_unstable_by_key(count - 1, |(worth, _)| Reverse(*worth));
            worth.truncate(count);
            worth.sort_unstable();
            self.chosen = worth.into_iter().map(|(_, id)| id).collect();
        }
    }

    fn segment_mut(&mut self, id: u32) -> Option<&mut Segment> {
        self.segments.get_mut(id as usize)?.as_mut()
    }

    fn has_room(&self, id: u32, len: usize) -> bool {
        matches!(self.segments.get(id as usize), Some(Some(segment)) if segment.has_room(len))
    }

    fn open_another(&mut self) -> io::Result<u32> {
        let id = self.free.last().copied().unwrap_or(self.segments.len() as u32);
        let segment = Segment::new(&mut self.windows, id)?;
        self.free.pop();
        if let Some(open) = self.open {
            self.seal(open);
        }
        match self.segments.get_mut(id as usize) {
            Some(free) => *free = Some(segment),
            None => self.segments.push(Some(segment)),
        }
        self.open = Some(id);
        Ok(id)
    }

    fn seal(&mut self, id: u32) {
        if let Some(segment) = self.segment_mut(id) {
            let before = segment.resident_bytes();
            segment.seal();
            let after = segment.resident_bytes();
            self.resident_bytes -= before - after;
        }
        if self.open == Some(id) {
            self.open = None;
        }
    }

    fn drop_segment(&mut self, id: u32) {
        if let Some(segment) = self.segments[id as usize].take() {
            self.resident_bytes -= segment.resident_bytes();
            segment.free();
            self.free.push(id);
        }
        if self.open == Some(id) {
            self.open = None;
        }
        if self.emptying.is_some_and(|(emptying, _)| emptying == id) {
            self.emptying = None;
        }
    }
}
