//! The kernel's page of zeroes.
//!
//! Where a process has only ever read its memory, the kernel shows it one page of zeroes that all processes share. The page map does
//! not tell it from a page of the process's own, but it is no memory of the process and never swapped out. Its frame number
//! tells it apart, and this program finds that out by reading memory of its own that nothing was written to. Frame numbers need
//! root: without it, such pages are taken for the process's own.

use std::{fs::File, hint::black_box, io, ops::Range};

use super::pagemap;
use crate::page::PAGE_BYTES;

/// Bytes of a huge page.
const HUGE_BYTES: usize = 2 << 20;
/// Too small for a huge page, too large for the allocator to use again what it has: fresh from the kernel.
const SMALL_BYTES: usize = 1 << 20;

/// The frames of the page of zeroes, small and huge.
#[derive(Debug)]
pub(super) struct ZeroPages {
    small: Option<u64>,
    huge: Option<Range<u64>>,
    /// As long as a process maps the huge one, it stays where it is.
    _holds_huge: Vec<u8>,
}

impl ZeroPages {
    pub(super) fn find() -> io::Result<Self> {
        let small = vec![0_u8; SMALL_BYTES];
        let holds_huge = vec![0_u8; 2 * HUGE_BYTES];
        let pagemap = File::open("/proc/self/pagemap")?;
        let page_of =
            |memory: &[u8], at: usize| (black_box(memory.as_ptr()) as usize + at) as u64 / PAGE_BYTES as u64;

        let middle = SMALL_BYTES / 2;
        black_box(black_box(&small)[middle]);
        let page = page_of(&small, middle);
        let small_frame = pagemap::frames(&pagemap, page..page + 1)?.first().copied();

        let aligned = holds_huge.as_ptr().align_offset(HUGE_BYTES).min(HUGE_BYTES);
        black_box(black_box(&holds_huge)[aligned]);
        let page = page_of(&holds_huge, aligned);
        let pages = (HUGE_BYTES / PAGE_BYTES) as u64;
        let frames = pagemap::frames(&pagemap, page..page + pages)?;
        let huge = match frames[..] {
            // All there after one read: a huge one.
            [first, .., last] if first != 0 && last == first + pages - 1 => Some(first..first + pages),
            _ => None,
        };
        Ok(Self { small: small_frame.filter(|frame| *frame != 0), huge, _holds_huge: holds_huge })
    }

    pub(super) fn contains(&self, frame: u64) -> bool {
        Some(frame) == self.small || self.huge.as_ref().is_some_and(|huge| huge.contains(&frame))
    }
}
