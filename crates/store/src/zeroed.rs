//! Large tables of counters that cost nothing until they are touched.

use std::{alloc::Layout, sync::atomic::AtomicU32};

use crate::{extent_state::ExtentState, index::PageState};

/// Types for which zeroed memory is a valid value.
///
/// # Safety
/// All-zero bytes are a valid value, and dropping it does nothing.
pub(crate) unsafe trait Zeroed: Sized {}

// SAFETY: an integer in a cell.
unsafe impl Zeroed for AtomicU32 {}
// SAFETY: one atomic word, transparent. (Loom's stand-in for it is not; its models make no tables.)
#[cfg(not(loom))]
unsafe impl Zeroed for ExtentState {}
#[cfg(loom)]
// SAFETY: never used; it only lets the crate build for loom.
unsafe impl Zeroed for ExtentState {}

// SAFETY: as for ExtentState.
#[cfg(not(loom))]
unsafe impl Zeroed for PageState {}
#[cfg(loom)]
// SAFETY: as for ExtentState.
unsafe impl Zeroed for PageState {}

/// `len` zeroed values, in memory that the OS only finds when they are written.
pub(crate) fn zeroed<T: Zeroed>(len: usize) -> Box<[T]> {
    let Ok(layout) = Layout::array::<T>(len) else { return Box::new([]) };
    if layout.size() == 0 {
        return Box::new([]);
    }
    // SAFETY: the layout is not empty.
    let start = unsafe { std::alloc::alloc_zeroed(layout) };
    if start.is_null() {
        std::alloc::handle_alloc_error(layout);
    }
    // SAFETY: freshly allocated for exactly `len` values of T by the allocator that Box uses, all of them valid as zeroes.
    unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start.cast::<T>(), len)) }
}
