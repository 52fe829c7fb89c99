//! Large tables of counters that cost nothing until they are touched.

use std::sync::atomic::AtomicU32;

/// `len` zeroes, in memory that the OS only finds when they are written.
pub(crate) fn zeroed(len: usize) -> Box<[AtomicU32]> {
    let zeroes = vec![0u32; len].into_boxed_slice();
    // SAFETY: AtomicU32 has the size, alignment and bit validity of u32.
    unsafe { Box::from_raw(Box::into_raw(zeroes) as *mut [AtomicU32]) }
}
