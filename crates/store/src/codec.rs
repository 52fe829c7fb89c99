//! How a page is turned into a payload and back.
//!
//! Fresh pages go through our own page codec, which measured a quarter faster both ways than LZ4's C library at a slightly better
//! ratio (docs/benchmarks.md). It copies the page once and works on the copy, because a guest may write to its page meanwhile: what
//! is packed is then some mix of the page's old and new bytes.

use std::cell::RefCell;

use tmem_page_codec::{Compressor, Decompressor};

use crate::{
    page::{PAGE_BYTES, PageSource, PageTarget},
    zstd,
};

/// How a payload is to be read. The number is what stands in a block's header: 4 bits, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Codec {
    /// The page as it is: it did not get smaller.
    Raw = 1,
    /// Packed by the page codec.
    Page = 2,
    /// The checksum of the payload that the page had when it was fresh (4 bytes), and one Zstandard frame without a magic number.
    Zstd = 3,
}

impl Codec {
    pub(crate) fn from_number(number: u16) -> Option<Codec> {
        match number {
            1 => Some(Codec::Raw),
            2 => Some(Codec::Page),
            3 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// What comes before the frame of [`Codec::Zstd`].
pub(crate) const FRESH_CRC_BYTES: usize = 4;

/// A payload that does not unpack to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPayload;

thread_local! {
    static COMPRESSOR: RefCell<Box<Compressor>> = RefCell::default();
    static DECOMPRESSOR: RefCell<Box<Decompressor>> = RefCell::default();
    /// A page that does not get smaller, as it was at one moment.
    static RAW: RefCell<Box<[u8; PAGE_BYTES]>> = RefCell::new(Box::new([0; PAGE_BYTES]));
}

/// Compresses a page and hands the payload to `store`: packed where that is worth it, else the page as it is.
pub(crate) fn compress<R>(page: PageSource<'_>, store: impl FnOnce(Codec, &[u8]) -> R) -> R {
    COMPRESSOR.with_borrow_mut(|compressor| {
        // SAFETY: the page is readable by PageSource's contract.
        if let Some(payload) = unsafe { compressor.compress(page.as_ptr()) } {
            return store(Codec::Page, payload);
        }
        RAW.with_borrow_mut(|raw| {
            // SAFETY: the page is readable by PageSource's contract and cannot overlap this thread's own memory.
            unsafe { page.as_ptr().copy_to_nonoverlapping(raw.as_mut_ptr(), PAGE_BYTES) };
            store(Codec::Raw, &raw[..])
        })
    })
}

/// Unpacks a payload straight into a page. Errors: it does not make a whole page, which is then as it was.
pub(crate) fn decompress(codec: Codec, payload: &[u8], page: &mut PageTarget<'_>) -> Result<(), BadPayload> {
    match codec {
        Codec::Raw => {
            let payload: &[u8; PAGE_BYTES] = payload.try_into().map_err(|_| BadPayload)?;
            // SAFETY: both are 4096 bytes; the page is writable by PageTarget's contract, and the arena, where payloads lie, is
            // never handed out as a page.
            unsafe { page.as_mut_ptr().copy_from_nonoverlapping(payload.as_ptr(), PAGE_BYTES) };
            Ok(())
        }
        Codec::Page => DECOMPRESSOR.with_borrow_mut(|decompressor| {
            // SAFETY: the page is writable by PageTarget's contract, and no variable of this program's.
            unsafe { decompressor.decompress(payload, page.as_mut_ptr()) }.map_err(|_| BadPayload)
        }),
        Codec::Zstd => zstd::decompress(payload.get(FRESH_CRC_BYTES..).ok_or(BadPayload)?, page),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(page: &[u8; PAGE_BYTES]) -> (Codec, usize) {
        let (codec, payload) = compress(page.into(), |codec, payload| (codec, payload.to_vec()));
        let mut back = [0xee; PAGE_BYTES];
        decompress(codec, &payload, &mut (&mut back).into()).unwrap();
        assert!(back == *page);
        (codec, payload.len())
    }

    #[test]
    fn text_shrinks_and_noise_stays_raw() {
        let mut text = [0; PAGE_BYTES];
        for (i, byte) in text.iter_mut().enumerate() {
            *byte = b"the quick brown fox "[i % 20];
        }
        assert!(matches!(round_trip(&text), (Codec::Page, 1..200)));
        let mut noise = [0; PAGE_BYTES];
        let mut state = 1u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        assert_eq!(round_trip(&noise), (Codec::Raw, PAGE_BYTES));
    }

    proptest! {
        // The compressor keeps its state from page to page: a long run on one thread shows that no page leaks into the next.
        #[test]
        fn r1_any_sequence_of_pages_comes_back(seeds in proptest::collection::vec((any::<u64>(), 1..64usize), 1..40)) {
            for (seed, period) in seeds {
                let mut page = [0; PAGE_BYTES];
                for (i, byte) in page.iter_mut().enumerate() {
                    *byte = (seed.rotate_left((i % period) as u32) >> (i % 7)) as u8;
                }
                round_trip(&page);
            }
        }

        #[test]
        fn r4_garbage_never_unpacks_beyond_the_page(garbage in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let mut memory = vec![0xaa; PAGE_BYTES * 3];
            let (before, rest) = memory.split_at_mut(PAGE_BYTES);
            let (page, after) = rest.split_at_mut(PAGE_BYTES);
            let page: &mut [u8; PAGE_BYTES] = page.try_into().unwrap();
            let _ = decompress(Codec::Page, &garbage, &mut page.into());
            prop_assert!(before.iter().chain(after.iter()).all(|byte| *byte == 0xaa));
        }
    }
}
