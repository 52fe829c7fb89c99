//! Pages as clients hand them over: 4 KiB of somebody else's memory, which may change under our hands.

use std::{marker::PhantomData, ptr::NonNull};

use crate::prefetch::prefetch_to_write;

/// The unit of everything, in bytes.
pub const PAGE_BYTES: usize = 4096;

const WORDS: usize = PAGE_BYTES / 8;

/// A page to read from. Its owner (a guest, say) may write to it at any time; whatever is read is then some mix of old and new.
#[derive(Clone, Copy, Debug)]
pub struct PageSource<'a> {
    start: NonNull<u8>,
    memory: PhantomData<&'a [u8]>,
}

/// A page to write to. Its owner may touch it at any time.
#[derive(Debug)]
pub struct PageTarget<'a> {
    start: NonNull<u8>,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> PageSource<'a> {
    /// A page at any address, aligned or not.
    ///
    /// # Safety
    /// 4096 bytes from `start` are mapped and readable for `'a`. Others may change them meanwhile, if they are not this
    /// program's own variables (shared memory of a guest).
    pub unsafe fn from_raw(start: NonNull<u8>) -> Self {
        Self { start, memory: PhantomData }
    }

    pub(crate) fn as_ptr(self) -> *const u8 {
        self.start.as_ptr()
    }

    /// The 32-bit word that the whole page repeats, if it does.
    pub(crate) fn same_filled(self) -> Option<u32> {
        let first = self.word(0);
        // Most pages that differ at all differ at the end or in the middle: two reads settle them.
        if self.word(WORDS - 1) != first
            || self.word(WORDS / 2) != first
            || first >> 32 != first & 0xffff_ffff
        {
            return None;
        }
        (1..WORDS).all(|i| self.word(i) == first).then_some(first as u32)
    }

    fn word(self, i: usize) -> u64 {
        debug_assert!(i < WORDS);
        // SAFETY: i < WORDS, so the 8 bytes are inside the page, which is readable by the contract of from_raw.
        unsafe { self.start.as_ptr().cast::<u64>().add(i).read_unaligned() }
    }
}

impl<'a> PageTarget<'a> {
    /// A page at any address, aligned or not.
    ///
    /// # Safety
    /// 4096 bytes from `start` are mapped and writable for `'a`, and nothing in this program holds a reference to them.
    pub unsafe fn from_raw(start: NonNull<u8>) -> Self {
        Self { start, memory: PhantomData }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Has the CPU load the page ahead of its being written to, which takes a tenth off a get into a page that is in no cache.
    pub(crate) fn prefetch(&self) {
        (0..PAGE_BYTES).step_by(64).for_each(|at| prefetch_to_write(self.start.as_ptr().wrapping_add(at)));
    }

    /// The same page, lent on.
    pub fn reborrow(&mut self) -> PageTarget<'_> {
        PageTarget { start: self.start, memory: PhantomData }
    }

    /// Fills the page with zeroes: what a block that was never written reads as.
    pub fn fill_zero(&mut self) {
        self.fill(0);
    }

    /// Repeats a 32-bit word over the whole page.
    pub(crate) fn fill(&mut self, word: u32) {
        let bytes = word.to_ne_bytes();
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            // SAFETY: the page is writable by the contract of from_raw.
            unsafe { self.start.as_ptr().write_bytes(bytes[0], PAGE_BYTES) };
            return;
        }
        for i in 0..PAGE_BYTES / 4 {
            // SAFETY: as above; i stays inside the page.
            unsafe { self.start.as_ptr().cast::<u32>().add(i).write_unaligned(word) };
        }
    }
}

impl<'a> From<&'a [u8; PAGE_BYTES]> for PageSource<'a> {
    fn from(page: &'a [u8; PAGE_BYTES]) -> Self {
        Self { start: NonNull::from(page).cast(), memory: PhantomData }
    }
}

impl<'a> From<&'a mut [u8; PAGE_BYTES]> for PageTarget<'a> {
    fn from(page: &'a mut [u8; PAGE_BYTES]) -> Self {
        Self { start: NonNull::from(page).cast(), memory: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_word_is_found_and_restored() {
        for word in [0, 0x4141_4141, 0x1234_5678, u32::MAX] {
            let mut page = [7; PAGE_BYTES];
            PageTarget::from(&mut page).fill(word);
            assert!(page.chunks(4).all(|chunk| chunk == word.to_ne_bytes()));
            assert_eq!(PageSource::from(&page).same_filled(), Some(word));
        }
    }

    #[test]
    fn one_different_byte_anywhere_is_seen() {
        for at in 0..PAGE_BYTES {
            let mut page = [0x55; PAGE_BYTES];
            page[at] ^= 1;
            assert_eq!(PageSource::from(&page).same_filled(), None, "byte {at}");
        }
    }
}
