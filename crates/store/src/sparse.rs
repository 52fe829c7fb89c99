//! A table larger than a small host's memory, of which hardly any is ever touched.
//!
//! Its memory is not the allocator's, because the OS would refuse that: it expects a program to use what it allocates.

use std::{alloc::Layout, fmt, ops::Deref, ptr, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags};

use crate::zeroed::Zeroed;

/// Values that were zero once.
pub(crate) struct Sparse<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: the memory is the table's alone, so it is as good as a box of values.
unsafe impl<T: Send> Send for Sparse<T> {}
// SAFETY: as for Send.
unsafe impl<T: Sync> Sync for Sparse<T> {}

/// `len` zeroed values, at least one, in memory that the OS only finds when they are written.
pub(crate) fn sparse<T: Zeroed>(len: usize) -> Sparse<T> {
    let Ok(layout) = Layout::array::<T>(len) else { std::alloc::handle_alloc_error(Layout::new::<T>()) };
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: a fresh mapping at an address the kernel picks touches no memory of ours.
    let mapped = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), layout.size(), access, flags) };
    match mapped.ok().and_then(|start| NonNull::new(start.cast::<T>())) {
        Some(start) => Sparse { start, len },
        None => std::alloc::handle_alloc_error(layout),
    }
}

impl<T> Deref for Sparse<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many values of T, valid as zeroes, in a mapping that is aligned to a page and the table's own.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Sparse<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, which nobody borrows any more. Dropping the values does nothing.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

impl<T> fmt::Debug for Sparse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sparse").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_table_larger_than_any_host_is_zeroes_until_written() {
        let table = sparse::<AtomicU32>(1 << 42);
        assert_eq!(table.len(), 1 << 42);
        table[(1 << 42) - 1].store(7, Ordering::Relaxed);
        assert_eq!(table[(1 << 42) - 1].load(Ordering::Relaxed), 7);
        assert_eq!(table[1 << 41].load(Ordering::Relaxed), 0);
    }
}
