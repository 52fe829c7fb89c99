//! Large tables of counters that cost nothing until they are touched.

use std::{alloc::Layout, ptr, sync::atomic::AtomicU32};

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

/// Has the OS find the memory that a value is in, and the page tables that lead there. Adding nothing to the value would not do it:
/// compilers make a load of that, or nothing at all. If it fails, whoever writes the value waits for the OS.
pub(crate) fn find_memory_of<T>(value: &T) {
    const PAGE_BYTES: usize = 4096;
    let page = ptr::from_ref(value).map_addr(|address| address & !(PAGE_BYTES - 1)).cast_mut().cast();
    // SAFETY: the page has a value that is borrowed, so it is mapped; populating it changes the contents of no memory.
    let _ = unsafe { rustix::mm::madvise(page, PAGE_BYTES, rustix::mm::Advice::LinuxPopulateWrite) };
}

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
