//! Memory for direct I/O.

use std::{ffi::c_void, io, ptr, ptr::NonNull, slice};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Page-aligned memory that is there from the start: using it never makes the OS look for memory.
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Buffer {}
// SAFETY: a shared reference gives nothing but shared slices.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Makes one, zeroed. Errors: the OS has no memory for it.
    pub(crate) fn new(len_bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping that touches nobody else's memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let buffer = Self { start, len_bytes };
        let address = start.as_ptr().cast::<c_void>();
        // Swapped out it could need the tier to come back. Where locking is not allowed, the daemon works all the same.
        // SAFETY: the range is the mapping just made; locking does not change its contents.
        let _ = unsafe { rustix::mm::mlock(address, len_bytes) };
        // What clients store stays out of core dumps.
        // SAFETY: as above.
        let _ = unsafe { rustix::mm::madvise(address, len_bytes, Advice::LinuxDontDump) };
        Ok(buffer)
    }

    /// For the kernel. Whoever uses it sees to it that nobody has a slice meanwhile.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is that long, initialised by the kernel, and lives as long as self.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len_bytes) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed for as long.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len_bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody has a slice of it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), self.len_bytes) };
    }
}
