//! Which pages of a device were lost with the process that served it.
//!
//! A device that was taken over goes on with an empty disk. What was written before is not there any more, and must not be read as
//! zeroes: it is an error, until the page is written again, or given up.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use tmem_disk::BLOCK_BYTES;

const PER_WORD: u64 = u64::BITS as u64;

/// A bit for each page that is lost. Empty, where none is.
#[derive(Debug, Default)]
pub(crate) struct LostPages(Box<[AtomicU64]>);

impl LostPages {
    /// All pages of a disk of that size.
    pub(crate) fn all(size_bytes: u64) -> Self {
        let words = (size_bytes / BLOCK_BYTES).div_ceil(PER_WORD);
        Self((0..words).map(|_| AtomicU64::new(u64::MAX)).collect())
    }

    /// Whether any page of a range of bytes is lost.
    pub(crate) fn has_any(&self, offset_bytes: u64, len_bytes: u64) -> bool {
        self.words(offset_bytes, len_bytes).any(|(word, mask)| word.load(Ordering::Acquire) & mask != 0)
    }

    /// The pages of a range of bytes hold something else now: what was just stored, or nothing. Parts of pages at its ends do not count.
    pub(crate) fn forget(&self, offset_bytes: u64, len_bytes: u64) {
        for (word, mask) in self.words(offset_bytes, len_bytes) {
            if word.load(Ordering::Relaxed) & mask != 0 {
                word.fetch_and(!mask, Ordering::Release);
            }
        }
    }

    /// The words that have bits of whole pages of a range, each with those bits.
    fn words(&self, offset_bytes: u64, len_bytes: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let end = offset_bytes.saturating_add(len_bytes) / BLOCK_BYTES;
        let pages = offset_bytes.div_ceil(BLOCK_BYTES)..end.min(self.0.len() as u64 * PER_WORD);
        let words =
            if pages.is_empty() { 0..0 } else { pages.start / PER_WORD..pages.end.div_ceil(PER_WORD) };
        words.map(move |word| (&self.0[word as usize], mask_of(word, &pages)))
    }
}

/// Of a word's 64 pages, those in the range.
fn mask_of(word: u64, pages: &Range<u64>) -> u64 {
    let first = pages.start.saturating_sub(word * PER_WORD).min(PER_WORD);
    let last = (pages.end - word * PER_WORD).min(PER_WORD);
    let below = |bit: u64| if bit == PER_WORD { u64::MAX } else { (1 << bit) - 1 };
    below(last) & !below(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_none_is_lost_nothing_is_looked_at() {
        let none = LostPages::default();
        assert!(!none.has_any(0, 1 << 40));
        none.forget(0, 1 << 40);
    }

    #[test]
    fn a_page_is_lost_until_it_is_forgotten() {
        const PAGES: u64 = 300;
        for range in [0..1, 63..65, 64..128, 5..299, 299..300, 0..300, 7..7] {
            let lost = LostPages::all(PAGES * BLOCK_BYTES);
            lost.forget(range.start * BLOCK_BYTES, (range.end - range.start) * BLOCK_BYTES);
            for page in 0..PAGES {
                assert_eq!(
                    lost.has_any(page * BLOCK_BYTES, BLOCK_BYTES),
                    !range.contains(&page),
                    "{range:?}, {page}"
                );
            }
            assert_eq!(lost.has_any(0, PAGES * BLOCK_BYTES), range != (0..300));
        }
    }

    #[test]
    fn parts_of_pages_stay_lost() {
        let lost = LostPages::all(1 << 20);
        lost.forget(4096 - 512, 4096 + 1024);
        assert!(lost.has_any(0, 4096) && !lost.has_any(4096, 4096) && lost.has_any(8192, 4096));
    }
}
