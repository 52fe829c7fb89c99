//! A stretch of memory that copies are written into, one behind the other, until it is full.

use std::{
    io, mem,
    ops::Range,
    sync::{Arc, Weak},
};

use super::{
    file::{LentFile, MAX_SEGMENTS, NotTakenOver, SEGMENT_BYTES},
    mapping::{Mapping, PAGE_BYTES},
};

const PAGES: usize = SEGMENT_BYTES / PAGE_BYTES;

/// What a segment takes besides the pages, in bytes: the counters below, and the kernel's page tables.
pub(super) const SEGMENT_OVERHEAD_BYTES: usize = PAGES * (2 + 8) + 128;

/// So many segments behind each other in the file get addresses together: a process can have only so many mappings.
const WINDOW_SEGMENTS: u32 = 64;

/// The addresses of a file's segments.
#[derive(Debug)]
pub(super) struct Windows {
    file: Arc<LentFile>,
    mapped: Vec<Weak<Mapping>>,
}

impl Windows {
    pub(super) fn of(file: Arc<LentFile>) -> Self {
        Self { file, mapped: Vec::new() }
    }

    /// The window that a segment is in.
    fn of_segment(&mut self, id: u32) -> io::Result<Arc<Mapping>> {
        if id >= MAX_SEGMENTS {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let which = id / WINDOW_SEGMENTS;
        if self.mapped.len() <= which as usize {
            self.mapped.resize(which as usize + 1, Weak::new());
        }
        let mapped = &mut self.mapped[which as usize];
        if let Some(window) = mapped.upgrade() {
            return Ok(window);
        }
        let window = Arc::new(self.file.map_segments(which * WINDOW_SEGMENTS, WINDOW_SEGMENTS)?);
        *mapped = Arc::downgrade(&window);
        Ok(window)
    }
}

/// A segment. It counts the live bytes of each page, and a page without any is the system's: at once when something dies, or when the
/// segment has been written beyond it.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<LentFile>,
    id: u32,
    /// Its memory, with that of others.
    window: Arc<Mapping>,
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
    /// The segment of that number, which nobody has.
    pub(super) fn new(windows: &mut Windows, id: u32) -> io::Result<Self> {
        Ok(Self {
            window: windows.of_segment(id)?,
            file: Arc::clone(&windows.file),
            id,
            end: 0,
            live_bytes: 0,
            resident_pages: 0,
            page_live: Box::new([0; PAGES]),
            places: Vec::new(),
        })
    }

    /// What another process has left in it: a copy's live stretches, in order. Copies come as they lie there.
    pub(super) fn adopt(
        &mut self,
        place: u32,
        stretches: impl Iterator<Item = Range<usize>>,
    ) -> Result<(), NotTakenOver> {
        for stretch in stretches {
            if stretch.start < self.end || stretch.end > SEGMENT_BYTES {
                return Err(NotTakenOver::Damaged("copies lie one in another"));
            }
            self.end = stretch.end;
            self.live_bytes += stretch.len();
            parts(stretch).for_each(|(page, bytes)| self.page_live[page] += bytes); // at most PAGE_BYTES
        }
        self.places.push(place);
        Ok(())
    }

    /// All was adopted that is in it. What else there may be of memory is the system's.
    pub(super) fn close(&mut self) {
        let pages = self.page_live.iter().map(|live| *live > 0);
        self.resident_pages = pages.clone().filter(|is_live| *is_live).count();
        let mut dead = 0..0;
        for (page, is_live) in pages.chain([true]).enumerate() {
            if is_live {
                self.give_back(mem::replace(&mut dead, page + 1..page + 1));
            } else {
                dead.end = page + 1;
            }
        }
        self.end = SEGMENT_BYTES;
        self.places.shrink_to_fit();
    }

    /// Writes a copy behind what is there: where it is. `None`: there is not so much room.
    pub(super) fn append(&mut self, place: u32, bytes: &[u8]) -> io::Result<Option<usize>> {
        let start = self.end;
        let Some(end) = start.checked_add(bytes.len()).filter(|end| *end <= SEGMENT_BYTES) else {
            return Ok(None);
        };
        let new_pages = start.div_ceil(PAGE_BYTES)..end.div_ceil(PAGE_BYTES);
        if let Err(error) = self.file.write(self.id, start, bytes) {
            self.give_back(new_pages);
            return Err(error);
        }
        self.resident_pages += new_pages.len();
        for (page, bytes) in parts(start..end) {
            self.page_live[page] += bytes; // at most PAGE_BYTES
        }
        self.places.push(place);
        self.end = end;
        self.live_bytes += bytes.len();
        Ok(Some(start))
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
                    self.give_back(mem::replace(&mut given, page..page));
                }
                given.end = page + 1;
            }
        }
        self.give_back(given);
    }

    /// Nothing more is written to it.
    pub(super) fn seal(&mut self) {
        let last = self.end / PAGE_BYTES;
        if !self.end.is_multiple_of(PAGE_BYTES) && self.page_live[last] == 0 {
            self.resident_pages -= 1;
            self.give_back(last..last + 1);
        }
        self.end = SEGMENT_BYTES;
        self.places.shrink_to_fit();
    }

    pub(super) fn bytes(&self, bytes: Range<usize>) -> &[u8] {
        // SAFETY: what is live in a segment is not written to again, and no other process has the file.
        unsafe { self.window.bytes(self.in_window(bytes)) }
    }

    /// All of its memory becomes the system's: nothing in it is live.
    pub(super) fn free(self) {
        self.give_back(0..PAGES);
    }

    fn give_back(&self, pages: Range<usize>) {
        self.file.give_back(self.id, pages.start * PAGE_BYTES..pages.end * PAGE_BYTES);
    }

    /// Where these bytes of it are in its window.
    fn in_window(&self, bytes: Range<usize>) -> Range<usize> {
        assert!(bytes.end <= SEGMENT_BYTES, "not within the segment");
        let start = (self.id % WINDOW_SEGMENTS) as usize * SEGMENT_BYTES;
        start + bytes.start..start + bytes.end
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
    use crate::lender::tests::file;

    fn segment() -> Segment {
        Segment::new(&mut Windows::of(file()), 70).unwrap()
    }

    fn append(segment: &mut Segment, len: usize, fill: u8) -> Range<usize> {
        let start = segment.append(0, &vec![fill; len]).unwrap().unwrap();
        start..start + len
    }

    #[test]
    fn a_page_without_live_bytes_is_no_memory() {
        let mut segment = segment();
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
        let mut segment = segment();
        append(&mut segment, SEGMENT_BYTES - 8, 1);
        assert!(segment.append(7, &[0; 16]).unwrap().is_none());
        append(&mut segment, 8, 1);
        assert!(segment.append(7, &[0; 8]).unwrap().is_none());
        assert_eq!(segment.slack_bytes(), SEGMENT_OVERHEAD_BYTES);
        assert_eq!((segment.place(1), segment.place(2)), (Some(0), None));
    }
}
