//! Zstandard, for pages that stay: a third less memory than LZ4, for three times the time of a get and more than that of a put.
//!
//! A payload is one frame without magic number, content size, checksum and dictionary: 5 bytes more than the data. The C library
//! takes pointers, so a page is unpacked straight into the caller's memory, which a guest may write to meanwhile: the library reads
//! back what it has unpacked, but only as contents to copy; lengths, distances and tables come from the payload, and it checks
//! all of them against both buffers.

use std::{alloc::Layout, cell::OnceCell, ffi::c_int, ptr::NonNull};

use zstd_sys::{
    ZSTD_CCtx, ZSTD_DCtx, ZSTD_cParameter, ZSTD_cParameter::ZSTD_c_compressionLevel,
    ZSTD_cParameter::ZSTD_c_contentSizeFlag, ZSTD_cParameter::ZSTD_c_dictIDFlag,
    ZSTD_cParameter::ZSTD_c_experimentalParam2 as ZSTD_c_format, ZSTD_cParameter::ZSTD_c_windowLog,
    ZSTD_dParameter::ZSTD_d_experimentalParam1 as ZSTD_d_format, ZSTD_format_e::ZSTD_f_zstd1_magicless,
};

use crate::{
    codec::BadPayload,
    page::{PAGE_BYTES, PageTarget},
};

/// Levels that make sense for a page; higher ones are no denser.
pub(crate) const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Compresses pages one after the other, with the same working memory.
#[derive(Debug)]
pub(crate) struct Compressor {
    context: NonNull<ZSTD_CCtx>,
    payload: Box<[u8; PAGE_BYTES]>,
}

// SAFETY: the context belongs to this value alone and the library ties it to no thread.
unsafe impl Send for Compressor {}

impl Compressor {
    pub(crate) fn new() -> Self {
        // SAFETY: makes a context or gives null.
        let context = NonNull::new(unsafe { zstd_sys::ZSTD_createCCtx() }).unwrap_or_else(|| no_memory());
        let mut compressor = Self { context, payload: Box::new([0; PAGE_BYTES]) };
        compressor.set(ZSTD_c_windowLog, PAGE_BYTES.ilog2() as c_int);
        compressor.set(ZSTD_c_contentSizeFlag, 0);
        compressor.set(ZSTD_c_dictIDFlag, 0);
        compressor.set(ZSTD_c_format, ZSTD_f_zstd1_magicless as c_int);
        compressor
    }

    /// Compresses a page to at most so many bytes. `None`: it takes more.
    pub(crate) fn compress(
        &mut self,
        page: &[u8; PAGE_BYTES],
        level: i32,
        most_bytes: usize,
    ) -> Option<&[u8]> {
        self.set(ZSTD_c_compressionLevel, level);
        let room = most_bytes.min(PAGE_BYTES);
        // SAFETY: the context is ours; source and destination have at least that many bytes and do not overlap.
        let written = unsafe {
            zstd_sys::ZSTD_compress2(
                self.context.as_ptr(),
                self.payload.as_mut_ptr().cast(),
                room,
                page.as_ptr().cast(),
                PAGE_BYTES,
            )
        };
        // An error is a number larger than any length; the only one here is that there was not enough room.
        self.payload.get(..written).filter(|payload| !payload.is_empty() && payload.len() <= room)
    }

    fn set(&mut self, parameter: ZSTD_cParameter, value: c_int) {
        // SAFETY: the context is ours.
        let set = unsafe { zstd_sys::ZSTD_CCtx_setParameter(self.context.as_ptr(), parameter, value) };
        debug_assert_eq!(set_error(set), None);
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        // SAFETY: the context is ours and not used again.
        unsafe { zstd_sys::ZSTD_freeCCtx(self.context.as_ptr()) };
    }
}

/// A thread's working memory for unpacking, about 160 KiB, made when it first meets such a payload.
struct Decompressor(NonNull<ZSTD_DCtx>);

thread_local! {
    static DECOMPRESSOR: OnceCell<Decompressor> = const { OnceCell::new() };
}

impl Decompressor {
    fn new() -> Self {
        // SAFETY: makes a context or gives null.
        let context = NonNull::new(unsafe { zstd_sys::ZSTD_createDCtx() }).unwrap_or_else(|| no_memory());
        // SAFETY: the context was just made.
        let set = unsafe {
            zstd_sys::ZSTD_DCtx_setParameter(context.as_ptr(), ZSTD_d_format, ZSTD_f_zstd1_magicless as c_int)
        };
        debug_assert_eq!(set_error(set), None);
        Self(context)
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the context is ours and not used again.
        unsafe { zstd_sys::ZSTD_freeDCtx(self.0.as_ptr()) };
    }
}

/// Unpacks a payload straight into a page. Errors: it does not make a whole page; what the page holds is then undefined.
pub(crate) fn decompress(payload: &[u8], page: &mut PageTarget<'_>) -> Result<(), BadPayload> {
    let unpacked = DECOMPRESSOR.with(|decompressor| {
        let context = decompressor.get_or_init(Decompressor::new);
        // SAFETY: the context is this thread's and not in use; the library reads the payload's bytes only and writes at most 4096
        // bytes, which the page has.
        unsafe {
            zstd_sys::ZSTD_decompressDCtx(
                context.0.as_ptr(),
                page.as_mut_ptr().cast(),
                PAGE_BYTES,
                payload.as_ptr().cast(),
                payload.len(),
            )
        }
    });
    if unpacked == PAGE_BYTES { Ok(()) } else { Err(BadPayload) }
}

fn no_memory() -> ! {
    std::alloc::handle_alloc_error(Layout::new::<[u8; PAGE_BYTES]>())
}

/// The library's word for what went wrong.
fn set_error(returned: usize) -> Option<usize> {
    // SAFETY: takes a number.
    (unsafe { zstd_sys::ZSTD_isError(returned) } != 0).then_some(returned)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(seed: u8) -> [u8; PAGE_BYTES] {
        std::array::from_fn(|i| b"so cold that nobody wants it "[i % 29].wrapping_add(seed & (i / 512) as u8))
    }

    #[test]
    fn r1_pages_of_every_level_come_back() {
        let mut compressor = Compressor::new();
        for level in LEVELS {
            for seed in 0..20 {
                let page = text(seed);
                let payload = compressor.compress(&page, level, PAGE_BYTES).expect("text shrinks");
                assert!(payload.len() < 600, "{} bytes at level {level}", payload.len());
                let mut back = [0xee; PAGE_BYTES];
                assert_eq!(decompress(payload, &mut (&mut back).into()), Ok(()));
                assert!(back == page);
            }
        }
    }

    #[test]
    fn what_takes_more_than_it_may_is_not_compressed() {
        let mut compressor = Compressor::new();
        let bytes = compressor.compress(&text(3), 5, PAGE_BYTES).map(<[u8]>::len).expect("text shrinks");
        assert_eq!(compressor.compress(&text(3), 5, bytes - 1), None);
        assert_eq!(compressor.compress(&text(3), 5, 0), None);
        assert!(compressor.compress(&text(3), 5, PAGE_BYTES).is_some());
    }

    proptest! {
        #[test]
        fn r4_garbage_never_unpacks_beyond_the_page(
            garbage in proptest::collection::vec(any::<u8>(), 0..2000), seed: u8, flips in proptest::collection::vec(any::<u16>(), 0..4),
        ) {
            let mut damaged = Compressor::new().compress(&text(seed), 5, PAGE_BYTES).expect("text shrinks").to_vec();
            for flip in flips {
                let bit = usize::from(flip) % (damaged.len() * 8);
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
            for payload in [&garbage, &damaged] {
                let mut memory = vec![0xaa; PAGE_BYTES * 3];
                let (before, rest) = memory.split_at_mut(PAGE_BYTES);
                let (page, after) = rest.split_at_mut(PAGE_BYTES);
                let page: &mut [u8; PAGE_BYTES] = page.try_into().expect("4096 bytes");
                let _ = decompress(payload, &mut page.into());
                prop_assert!(before.iter().chain(after.iter()).all(|byte| *byte == 0xaa));
            }
        }
    }
}
