//! Bare LZ4: what any keeper that uses it must spend at least. The same C library that the store uses, called the same way.
//!
//! A get is one decompression from blocks that lie side by side, and a copy of the page to its target; a put is one compression, kept
//! nowhere. Pages of one repeated word are filled in, and pages that do not get smaller are copied, as the store does.

use std::{
    cell::RefCell,
    ffi::{c_char, c_int, c_void},
    ops::Range,
};

use super::keeper::Keeper;
use crate::{
    error::BenchError,
    page::{PAGE_BYTES, Page},
};

unsafe extern "C" {
    // Part of the library but not of the crate's bindings: compresses with working memory of the caller's.
    fn LZ4_compress_fast_extState(
        state: *mut c_void,
        source: *const c_char,
        dest: *mut c_char,
        source_bytes: c_int,
        dest_capacity: c_int,
        acceleration: c_int,
    ) -> c_int;
}

/// `LZ4_STREAM_MINSIZE` of the library, in 8-byte words because it must be aligned so.
const STATE_WORDS: usize = ((1 << 14) + 32) / 8;

struct Scratch {
    state: [u64; STATE_WORDS],
    block: [u8; PAGE_BYTES],
    page: Page,
}

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> = RefCell::new(Box::new(Scratch {
        state: [0; STATE_WORDS],
        block: [0; PAGE_BYTES],
        page: Page::filled(0),
    }));
}

/// How a page is kept.
enum Kept {
    /// Repeats this byte or one word, which costs the same to fill in.
    SameFilled([u8; 8]),
    /// Did not get smaller.
    Raw(Range<usize>),
    Compressed(Range<usize>),
}

/// Blocks of pages that were compressed beforehand.
pub(super) struct Lz4 {
    blocks: Vec<u8>,
    kept: Vec<Kept>,
}

impl Lz4 {
    pub(super) fn new(pages: &[Page]) -> Self {
        let mut blocks = Vec::new();
        let kept = pages.iter().map(|page| {
            let start = blocks.len();
            if let (true, [word, ..]) = (page.is_same_filled(), page.0.as_chunks().0) {
                return Kept::SameFilled(*word);
            }
            SCRATCH.with_borrow_mut(|scratch| match compress(scratch, page) {
                Some(block) => {
                    blocks.extend_from_slice(block);
                    Kept::Compressed(start..blocks.len())
                }
                None => {
                    blocks.extend_from_slice(&page.0);
                    Kept::Raw(start..blocks.len())
                }
            })
        });
        let kept = kept.collect();
        Self { blocks, kept }
    }
}

impl Keeper for Lz4 {
    const NAME: &'static str = "bare LZ4";

    fn put(&self, place: usize, page: &Page) -> Result<(), BenchError> {
        if !matches!(self.kept[place], Kept::SameFilled(_)) {
            SCRATCH.with_borrow_mut(|scratch| {
                std::hint::black_box(compress(scratch, page));
            });
        }
        Ok(())
    }

    fn get(&self, place: usize, target: &mut Page) -> Result<(), BenchError> {
        match &self.kept[place] {
            Kept::SameFilled(word) => target.0.as_chunks_mut().0.fill(*word),
            Kept::Raw(block) => target.0.copy_from_slice(&self.blocks[block.clone()]),
            Kept::Compressed(block) => {
                let block = &self.blocks[block.clone()];
                SCRATCH.with_borrow_mut(|scratch| {
                    // SAFETY: both buffers are as long as told, and the library stays within them.
                    let unpacked = unsafe {
                        lz4_sys::LZ4_decompress_safe(
                            block.as_ptr().cast(),
                            scratch.page.0.as_mut_ptr().cast(),
                            block.len() as c_int,
                            PAGE_BYTES as c_int,
                        )
                    };
                    if unpacked != PAGE_BYTES as c_int {
                        return Err(BenchError::WrongPage { keeper: Self::NAME, place });
                    }
                    target.0.copy_from_slice(&scratch.page.0);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

/// Compresses a page; nothing if it does not get smaller.
fn compress<'a>(scratch: &'a mut Scratch, page: &Page) -> Option<&'a [u8]> {
    // SAFETY: the state has the size and alignment the library wants, which sets it up itself; both buffers are as long as told.
    let len = unsafe {
        LZ4_compress_fast_extState(
            scratch.state.as_mut_ptr().cast(),
            page.0.as_ptr().cast(),
            scratch.block.as_mut_ptr().cast(),
            PAGE_BYTES as c_int,
            PAGE_BYTES as c_int - 1,
            1,
        )
    };
    (len > 0).then(|| &scratch.block[..len as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_pages_come_back() {
        let mut random = crate::random::Random::new(3);
        let mut noise = Page::filled(0);
        noise.0.fill_with(|| random.number() as u8);
        let mut text = Page::filled(b' ');
        text.0[..10].copy_from_slice(b"some words");
        let pages = [Page::filled(9), noise, text];
        let lz4 = Lz4::new(&pages);
        assert!(matches!(lz4.kept[..], [Kept::SameFilled(_), Kept::Raw(_), Kept::Compressed(_)]));
        for (place, page) in pages.iter().enumerate() {
            let mut target = Page::filled(1);
            lz4.put(place, page).unwrap();
            lz4.get(place, &mut target).unwrap();
            assert!(target.0 == page.0, "{place}");
        }
    }
}
