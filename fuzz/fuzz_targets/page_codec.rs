//! Any bytes as a payload: they make a page or are refused, and nothing else. Any bytes as a page: it comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tmem_page_codec::{Compressor, Decompressor, PAGE_BYTES};

fuzz_target!(|data: &[u8]| {
    let mut decompressor = Decompressor::default();
    let mut target = Box::new([0xa5; PAGE_BYTES]);
    // SAFETY: the target is ours alone.
    if unsafe { decompressor.decompress(data, target.as_mut_ptr()) }.is_err() {
        assert!(target.iter().all(|byte| *byte == 0xa5), "a bad payload reached the page");
    }

    let mut page = Box::new([0; PAGE_BYTES]);
    let len = data.len().min(PAGE_BYTES);
    page[..len].copy_from_slice(&data[..len]);
    let mut compressor = Compressor::default();
    // SAFETY: both are ours alone.
    if let Some(payload) = unsafe { compressor.compress(page.as_ptr()) } {
        unsafe { decompressor.decompress(payload, target.as_mut_ptr()) }.expect("a payload just made");
        assert!(target == page);
    }
});
