//! Memory that comes from the system by the page and goes back to it by the page.

use std::{
    io,
    ops::Range,
    ptr::{self, NonNull},
};

/// What the system gives and takes back, in bytes.
pub(super) const PAGE_BYTES: usize = 4096;

/// Zeroed memory of this process. What was never written to takes none.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the memory belongs to this value alone, like a Box's, and is reached through references to it only.
unsafe impl Send for Mapping {}
// SAFETY: as above; what a shared reference gives out is only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// So many bytes, whole pages.
    pub(super) fn new(len_bytes: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at no given place touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), len_bytes, access, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            None => Err(io::Error::last_os_error()),
            Some(start) => {
                let mapping = Self { start, len_bytes };
                // A huge page would be there as a whole for the first byte. Kernels without huge pages refuse this, and need not be asked.
                mapping.advise(0..len_bytes, libc::MADV_NOHUGEPAGE);
                Ok(mapping)
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: start and length are those of a mapping that lives as long as self, its bytes are always initialised (zeroes at
        // first), and nobody writes while self is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len_bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and self is borrowed by this caller alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len_bytes) }
    }

    /// The pages of this stretch become zeroes, and their memory the system's.
    pub(super) fn give_back(&mut self, pages: Range<usize>) {
        if pages.is_empty() {
            return;
        }
        let bytes = pages.start * PAGE_BYTES..pages.end * PAGE_BYTES;
        // The first is for locked memory, too, and not known before Linux 5.18.
        if !self.advise(bytes.clone(), libc::MADV_DONTNEED_LOCKED) {
            self.advise(bytes, libc::MADV_DONTNEED);
        }
    }

    /// Asks for the pages of this stretch in one go, which is cheaper than a fault for each. Only helps, and may fail.
    pub(super) fn populate(&mut self, pages: Range<usize>) {
        if pages.len() > 1 {
            self.advise(pages.start * PAGE_BYTES..pages.end * PAGE_BYTES, libc::MADV_POPULATE_WRITE);
        }
    }

    fn advise(&self, bytes: Range<usize>, advice: libc::c_int) -> bool {
        let Some(within) = self.bytes().get(bytes) else { return false };
        let (start, len) = (within.as_ptr().cast_mut().cast(), within.len());
        // SAFETY: the stretch is within the mapping. The advices given here keep bytes as they are, or make zeroes of them, which only
        // `give_back` does, with self borrowed by it alone.
        unsafe { libc::madvise(start, len, advice) == 0 }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's alone, and nobody has it after this.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_zeroes_and_the_rest_stays() {
        let mut mapping = Mapping::new(4 * PAGE_BYTES).unwrap();
        mapping.populate(0..4);
        mapping.bytes_mut().fill(7);
        mapping.give_back(1..3);
        let sums: Vec<usize> = mapping
            .bytes()
            .chunks(PAGE_BYTES)
            .map(|page| page.iter().map(|byte| usize::from(*byte)).sum())
            .collect();
        assert_eq!(sums, [7 * PAGE_BYTES, 0, 0, 7 * PAGE_BYTES]);
    }
}
