//! Cuts a request's segments into pages: in place where a page lies in one piece, through a bounce buffer where it does not.

use std::ptr::NonNull;

use tmem_store::{PAGE_BYTES, PageSource, PageTarget};

use crate::segment::Segment;

/// A position in a list of segments.
pub(crate) struct Pieces<'s, 'm> {
    segments: &'s [Segment<'m>],
    /// The segment the position is in, and the byte in it.
    segment: usize,
    offset: usize,
}

impl<'s, 'm> Pieces<'s, 'm> {
    pub(crate) fn new(segments: &'s [Segment<'m>]) -> Self {
        Self { segments, segment: 0, offset: 0 }
    }

    /// Hands the next page's bytes to `put`. The segments hold at least one more page.
    pub(crate) fn read_page<R>(&mut self, put: impl FnOnce(PageSource<'_>) -> R) -> R {
        if let Some(start) = self.whole_page() {
            // SAFETY: the segment has a page there, readable by its contract.
            return put(unsafe { PageSource::from_raw(start) });
        }
        let mut bounce = [0; PAGE_BYTES];
        self.copy_each(|done, piece, len| {
            // SAFETY: the piece is readable by the segment's contract; the bounce buffer has room for all pieces of a page.
            unsafe { piece.as_ptr().copy_to_nonoverlapping(bounce.as_mut_ptr().add(done), len) };
        });
        put(PageSource::from(&bounce))
    }

    /// Has `get` fill the next page's bytes. The segments hold at least one more page.
    pub(crate) fn write_page<R>(&mut self, get: impl FnOnce(PageTarget<'_>) -> R) -> R {
        if let Some(start) = self.whole_page() {
            // SAFETY: the segment has a page there, writable by its contract.
            return get(unsafe { PageTarget::from_raw(start) });
        }
        let mut bounce = [0; PAGE_BYTES];
        let result = get(PageTarget::from(&mut bounce));
        self.copy_each(|done, piece, len| {
            // SAFETY: the piece is writable by the segment's contract; the pieces together are one page of the bounce buffer.
            unsafe { piece.as_ptr().copy_from_nonoverlapping(bounce.as_ptr().add(done), len) };
        });
        result
    }

    /// The next page to be filled, if it lies in one segment. Moves past it.
    pub(crate) fn whole_target(&mut self) -> Option<PageTarget<'m>> {
        // SAFETY: the segment has a page there, writable for `'m` by its contract.
        self.whole_page().map(|start| unsafe { PageTarget::from_raw(start) })
    }

    /// The next page, if it lies in one segment. Moves past it.
    fn whole_page(&mut self) -> Option<NonNull<u8>> {
        self.skip_used_up();
        let segment = self.segments.get(self.segment)?;
        if segment.len() - self.offset < PAGE_BYTES {
            return None;
        }
        let start = segment.at(self.offset);
        self.offset += PAGE_BYTES;
        Some(start)
    }

    /// Calls `copy` with (bytes before it, start, length) of each piece of the next page. Moves past it.
    fn copy_each(&mut self, mut copy: impl FnMut(usize, NonNull<u8>, usize)) {
        let mut done = 0;
        while done < PAGE_BYTES {
            self.skip_used_up();
            let Some(segment) = self.segments.get(self.segment) else { return };
            let len = (segment.len() - self.offset).min(PAGE_BYTES - done);
            copy(done, segment.at(self.offset), len);
            self.offset += len;
            done += len;
        }
    }

    fn skip_used_up(&mut self) {
        while self.segments.get(self.segment).is_some_and(|segment| segment.len() == self.offset) {
            self.segment += 1;
            self.offset = 0;
        }
    }
}
