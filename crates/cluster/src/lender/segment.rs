//! A stretch of memory that copies are written into, one behind the other, until it is full.

use std::{io, ops::Range};

use super::mapping::{Mapping, PAGE_BYTES};

/// What a segment has room for, in bytes: eight whole extents. What is not written to is no memory, so the room that is left at the end
/// costs nothing.
pub(super) const SEGMENT_BYTES: usize = 1 << 20;

const PAGES: usize = SEGMENT_BYTES / PAGE_BYTES;

/// What a segment takes besides the pages, in bytes: the counters below, and the kernel's page tables.
pub(super) const SEGMENT_OVERHEAD_BYTES: usize = PAGES * (2 + 8) + 128;

/// A segment. It counts the live bytes of each page, and a page without any is the system's: at once when something dies, or when the
/// segment has been written beyond it.
#[derive(Debug)]
pub(super) struct Segment {
    memory: Mapping,
    /// Up to where it is written.
    end: usize,
    live_bytes: usize,
    /// Pages that are memory.
    resident_pages: usize,
    page_live: Box<[u16; PAGES]>,
    /// The places of copies that were written into it, in order. They may have left it since.
    places: Vec<u32>,
}

impl Segment {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            memory: Mapping::new(SEGMENT_BYTES)?,
            end: 0,
            live_bytes: 0,
            resident_pages: 0,
            page_live: Box::new([0; PAGES]),
            places: Vec::new(),
        })
    }

    /// Room for a copy, behind what is there: where it is. `None`: there is not so much.
    pub(super) fn append(&mut self, place: u32, len: usize) -> Option<(usize, &mut [u8])> {
        let start = self.end;
        let end = start.checked_add(len).filter(|end| *end <= SEGMENT_BYTES)?;
        let new_pages = start.div_ceil(PAGE_BYTES)..end.div_ceil(PAGE_BYTES);
        self.memory.populate(new_pages.clone());
        self.resident_pages += new_pages.len();
        for (page, bytes) in parts(start..end) {
            self.page_live[page] += bytes; // at most PAGE_BYTES
        }
        self.places.push(place);
        self.end = end;
        self.live_bytes += len;
        Some((start, &mut self.memory.bytes_mut()[start..end]))
    }

    /// These stretches, which were live, are dead. They are in order. Pages that become empty go back together as far as they can.
    pub(super) fn kill(&mut self, dead: impl Iterator<Item = Range<usize>>) {
        let mut given = 0..0;
        for stretch in dead {
            self.live_bytes -= stretch.len();
            for (page, bytes) in parts(stretch) {
                self.page_live[page] -= bytes;
                // What is written next may go to the last page.
                if self.page_live[page] > 0 || (page + 1) * PAGE_BYTES > self.end {
                    continue;
                }
                self.resident_pages -= 1;
                // Empty pages between two are the system's already, and can be given back once more.
                if given.is_empty() || self.page_live[given.end..page].iter().any(|live| *live > 0) {
                    self.memory.give_back(std::mem::replace(&mut given, page..page));
                }
                given.end = page + 1;
            }
        }
        self.memory.give_back(given);
    }

    /// Nothing more is written to it.
    pub(super) fn seal(&mut self) {
        let last = self.end / PAGE_BYTES;
        if !self.end.is_multiple_of(PAGE_BYTES) && self.page_live[last] == 0 {
            self.resident_pages -= 1;
            self.memory.give_back(last..last + 1);
        }
        self.end = SEGMENT_BYTES;
        self.places.shrink_to_fit();
    }

    pub(super) fn bytes(&self, bytes: Range<usize>) -> &[u8] {
        &self.memory.bytes()[bytes]
    }

    /// Whether so many bytes can be appended.
    pub(super) fn has_room(&self, len: usize) -> bool {
        len <= SEGMENT_BYTES - self.end
    }

    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// What its pages take of memory, in bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        self.resident_pages * PAGE_BYTES
    }

    /// What it takes besides what lives.
    pub(super) fn slack_bytes(&self) -> usize {
        self.resident_bytes() + SEGMENT_OVERHEAD_BYTES - self.live_bytes
    }

    /// The place of the copy that was written as the so-manieth, if there were so many.
    pub(super) fn place(&self, at: usize) -> Option<u32> {
        self.places.get(at).copied()
    }
}

/// The pages of a stretch, and how many of its bytes are in each.
fn parts(bytes: Range<usize>) -> impl Iterator<Item = (usize, u16)> {
    let pages = bytes.start / PAGE_BYTES..bytes.end.div_ceil(PAGE_BYTES);
    let is_any = !bytes.is_empty();
    pages.filter(move |_| is_any).map(move |page| {
        let from = bytes.start.max(page * PAGE_BYTES);
        let to = bytes.end.min((page + 1) * PAGE_BYTES);
        (page, (to - from) as u16)
    })
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn append(segment: &mut Segment, len: usize, fill: u8) -> Range<usize> {
        let (start, bytes) = segment.append(0, len).unwrap();
        bytes.fill(fill);
        start..start + len
    }

    #[test]
    fn a_page_without_live_bytes_is_no_memory() {
        let mut segment = Segment::new().unwrap();
        let first = append(&mut segment, 3 * PAGE_BYTES + 8, 1);
        let second = append(&mut segment, 2 * PAGE_BYTES, 2);
        assert_eq!(segment.resident_bytes(), 6 * PAGE_BYTES);
        segment.kill(iter::once(first.start..100));
        assert_eq!(segment.resident_bytes(), 6 * PAGE_BYTES);
        segment.kill([100..200, 200..first.end].into_iter());
        // The page that the second begins in stays.
        assert_eq!((segment.resident_bytes(), segment.live_bytes()), (3 * PAGE_BYTES, 2 * PAGE_BYTES));
        assert!(segment.bytes(second.clone()).iter().all(|byte| *byte == 2));
        // The page that is written next stays until it is known that nothing is.
        segment.kill(iter::once(second));
        assert_eq!((segment.resident_bytes(), segment.live_bytes()), (PAGE_BYTES, 0));
        let third = append(&mut segment, 16, 3);
        assert!(segment.bytes(third.clone()).iter().all(|byte| *byte == 3));
        segment.kill(iter::once(third));
        segment.seal();
        assert_eq!(segment.resident_bytes(), 0);
    }

    #[test]
    fn it_takes_what_fits_and_no_more() {
        let mut segment = Segment::new().unwrap();
        append(&mut segment, SEGMENT_BYTES - 8, 1);
        assert!(segment.append(7, 16).is_none());
        append(&mut segment, 8, 1);
        assert!(segment.append(7, 8).is_none() && segment.append(7, usize::MAX).is_none());
        assert_eq!(segment.slack_bytes(), SEGMENT_OVERHEAD_BYTES);
        assert_eq!((segment.place(1), segment.place(2)), (Some(0), None));
    }
}
