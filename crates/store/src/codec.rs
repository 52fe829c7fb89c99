//! How a page is turned into a payload and back.
//!
//! LZ4 through the C library: it takes pointers, so a guest's page is read in place though the guest may write to it meanwhile,
//! which no Rust slice allows; and it measured faster than `lz4_flex` (docs/benchmarks.md). Whatever a page changes into while
//! it is being compressed, the library stays within both buffers: its hash table holds positions, never pointers, and lengths
//! are bounded by the positions; the payload then unpacks to some mix of the page's old and new bytes.

use std::{
    cell::RefCell,
    ffi::{c_char, c_int, c_void},
};

use crate::page::{PAGE_BYTES, PageSource, PageTarget};

/// How a payload is to be read. The number is what stands in a block's header: 4 bits, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Codec {
    /// The page as it is: it did not get smaller.
    Raw = 1,
    /// One LZ4 block.
    Lz4 = 2,
}

impl Codec {
    pub(crate) fn from_number(number: u16) -> Option<Codec> {
        match number {
            1 => Some(Codec::Raw),
            2 => Some(Codec::Lz4),
            _ => None,
        }
    }
}

/// A payload that does not unpack to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPayload;

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

/// `LZ4_STREAM_MINSIZE` of the library: 2^14 + 32 bytes, here in 8-byte words because it must be aligned so.
const STATE_WORDS: usize = ((1 << 14) + 32) / 8;

struct Scratch {
    state: [u64; STATE_WORDS],
    payload: [u8; PAGE_BYTES],
}

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> =
        RefCell::new(Box::new(Scratch { state: [0; STATE_WORDS], payload: [0; PAGE_BYTES] }));
}

/// The largest payload that is worth unpacking at every get; a page that needs more is kept as it is. 1/32 of a page less is
/// what it must save.
const WORTHWHILE_BYTES: usize = PAGE_BYTES - PAGE_BYTES / 32;

/// Compresses a page and hands the payload to `store`: LZ4 where that is worth it, else the page as it is.
pub(crate) fn compress<R>(page: PageSource<'_>, store: impl FnOnce(Codec, &[u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the state has the size and alignment the library wants, which sets it up itself; the page
        // is readable by PageSource's contract; the destination has room for that many bytes.
        let written = unsafe {
            LZ4_compress_fast_extState(
                scratch.state.as_mut_ptr().cast(),
                page.as_ptr().cast(),
                scratch.payload.as_mut_ptr().cast(),
                PAGE_BYTES as c_int,
                WORTHWHILE_BYTES as c_int,
                1,
            )
        };
        if written > 0 && written as usize <= WORTHWHILE_BYTES {
            return store(Codec::Lz4, &scratch.payload[..written as usize]);
        }
        // SAFETY: the page is readable by PageSource's contract and cannot overlap this thread's scratch.
        unsafe { page.as_ptr().copy_to_nonoverlapping(scratch.payload.as_mut_ptr(), PAGE_BYTES) };
        store(Codec::Raw, &scratch.payload)
    })
}

/// Unpacks a payload straight into a page. Errors: it does not make a whole page; what the page holds is then undefined.
pub(crate) fn decompress(codec: Codec, payload: &[u8], page: &mut PageTarget<'_>) -> Result<(), BadPayload> {
    match codec {
        Codec::Raw => {
            let payload: &[u8; PAGE_BYTES] = payload.try_into().map_err(|_| BadPayload)?;
            // SAFETY: both are 4096 bytes; the page is writable by PageTarget's contract, and the arena, where payloads lie, is
            // never handed out as a page.
            unsafe { page.as_mut_ptr().copy_from_nonoverlapping(payload.as_ptr(), PAGE_BYTES) };
            Ok(())
        }
        Codec::Lz4 => {
            // SAFETY: the library reads the payload's bytes only and writes at most 4096 bytes, which the page has.
            let unpacked = unsafe {
                lz4_sys::LZ4_decompress_safe(
                    payload.as_ptr().cast(),
                    page.as_mut_ptr().cast(),
                    payload.len() as c_int,
                    PAGE_BYTES as c_int,
                )
            };
            if unpacked == PAGE_BYTES as c_int { Ok(()) } else { Err(BadPayload) }
        }
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
        assert!(matches!(round_trip(&text), (Codec::Lz4, 1..200)));
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
            let _ = decompress(Codec::Lz4, &garbage, &mut page.into());
            prop_assert!(before.iter().chain(after.iter()).all(|byte| *byte == 0xaa));
        }
    }
}
