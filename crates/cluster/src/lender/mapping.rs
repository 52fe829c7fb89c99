//! A stretch of a memory file that has addresses in this process.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
};

/// What the system gives and takes back, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// A mapping. What was never written to takes no memory, and reads as zeroes. Who may write to which part of it is its users' business.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the addresses belong to this value alone, like a Box's; bytes are reached through `unsafe` functions only, whose callers answer for
// who has which of them.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// So many bytes of a file, whole pages, from `offset` on.
    pub(super) fn new(file: impl AsFd, offset: u64, len_bytes: usize) -> io::Result<Self> {
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_fd().as_raw_fd());
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at no given place touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), len_bytes, access, libc::MAP_SHARED, fd, offset) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            None => Err(io::Error::last_os_error()),
            Some(start) => {
                let mapping = Self { start, len_bytes };
                // A huge page would be there as a whole for the first byte. Kernels without huge pages refuse this, and need not be asked.
                mapping.advise(0..len_bytes, libc::MADV_NOHUGEPAGE);
                // What others have here stays out of core dumps.
                mapping.advise(0..len_bytes, libc::MADV_DONTDUMP);
                Ok(mapping)
            }
        }
    }

    /// A part of it. Panics if it is not within.
    ///
    /// # Safety
    /// Nobody writes to these bytes as long as the slice is used, in this process or another one.
    pub(super) unsafe fn bytes(&self, bytes: Range<usize>) -> &[u8] {
        let start = self.part(&bytes);
        // SAFETY: the part is within a mapping that lives as long as self, of a file that nobody can shorten, so its bytes are there; they are
        // always initialised (zeroes at first). The caller answers for the rest.
        unsafe { std::slice::from_raw_parts(start, bytes.len()) }
    }

    /// Where the mapping begins.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn part(&self, bytes: &Range<usize>) -> *mut u8 {
        assert!(bytes.start <= bytes.end && bytes.end <= self.len_bytes, "not within the mapping");
        // SAFETY: within the mapping, as was just looked at.
        unsafe { self.start.as_ptr().add(bytes.start) }
    }

    fn advise(&self, bytes: Range<usize>, advice: libc::c_int) {
        // SAFETY: the part is within the mapping. The advices given here keep bytes as they are.
        unsafe { libc::madvise(self.part(&bytes).cast(), bytes.len(), advice) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the addresses are this value's alone, and nobody has them after this.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}
