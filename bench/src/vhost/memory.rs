//! Memory that the server maps too: the pages to write and a buffer for every read in flight.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr::NonNull,
};

use super::PAGE_BYTES;
use crate::error::BenchError;

/// A shared memory file, mapped: first the pages to write, then the read buffers, one page per slot.
///
/// The server is trusted not to write to the pages, as any server is with a guest's memory; the verification would show
/// it. Nothing here is handed out as a reference while a request that writes to it is in flight.
pub(super) struct SharedMemory {
    start: NonNull<u8>,
    bytes: usize,
    content_pages: usize,
    file: OwnedFd,
}

impl SharedMemory {
    /// Makes memory with `content` at its start and `slots` buffers behind it.
    pub(super) fn new(content: &[u8], slots: usize) -> Result<Self, BenchError> {
        let bytes = content.len() + slots * PAGE_BYTES;
        Self::map(content, bytes).map_err(|error| BenchError::Memory { bytes, error })
    }

    fn map(content: &[u8], bytes: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string, the result is checked.
        let fd = unsafe { libc::memfd_create(c"tmem-bench".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: plain system calls on our own descriptor; results are checked.
        let start = unsafe {
            if libc::ftruncate(fd, bytes as libc::off_t) != 0 {
                return Err(io::Error::last_os_error());
            }
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            libc::mmap(std::ptr::null_mut(), bytes, access, flags, fd, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        // SAFETY: the mapping is `bytes` long, at least as long as the content, and ours alone until it is shared.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(content).cast(), content.len()) };
        Ok(Self { start, bytes, content_pages: content.len() / PAGE_BYTES, file })
    }

    /// How many pages of content there are.
    pub(super) fn content_pages(&self) -> usize {
        self.content_pages
    }

    /// Address and length of the whole, for the server's memory table.
    pub(super) fn region(&self) -> (usize, usize, RawFd) {
        (self.start.as_ptr() as usize, self.bytes, self.file.as_raw_fd())
    }

    /// Where page `index` of the content lies.
    pub(super) fn content_page(&self, index: usize) -> *mut u8 {
        assert!(index < self.content_pages, "page {index} of {}", self.content_pages);
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.start.as_ptr().add(index * PAGE_BYTES) }
    }

    /// Where the buffer of `slot` lies.
    pub(super) fn buffer(&self, slot: usize) -> *mut u8 {
        let offset = (self.content_pages + slot) * PAGE_BYTES;
        assert!(offset + PAGE_BYTES <= self.bytes, "slot {slot}");
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Whether the buffer of `slot` holds page `index` of the content. The slot's read must be done.
    pub(super) fn buffer_is_page(&self, slot: usize, index: usize) -> bool {
        let (buffer, page) = (self.buffer(slot), self.content_page(index));
        // SAFETY: both lie within the mapping, a page each; memcmp makes no reference of memory the server shares.
        unsafe { libc::memcmp(buffer.cast(), page.cast(), PAGE_BYTES) == 0 }
    }

    /// Fills the buffer of `slot` with a byte that the disk will have to overwrite.
    pub(super) fn soil(&self, slot: usize) {
        // SAFETY: the buffer is a page within the mapping, and no request is in flight for the slot.
        unsafe { self.buffer(slot).write_bytes(0xa5, PAGE_BYTES) };
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, not used after this.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_buffers_lie_apart() {
        let content: Vec<u8> = (0..3 * PAGE_BYTES).map(|i| (i / 11) as u8).collect();
        let memory = SharedMemory::new(&content, 2).unwrap();
        assert_eq!(memory.content_pages(), 3);
        memory.soil(1);
        assert!(!memory.buffer_is_page(1, 2));
        // SAFETY: both are pages of the mapping and do not overlap.
        unsafe { memory.buffer(1).copy_from_nonoverlapping(memory.content_page(2), PAGE_BYTES) };
        assert!(memory.buffer_is_page(1, 2));
        assert!(!memory.buffer_is_page(1, 0));
        assert!(!memory.buffer_is_page(0, 2));
    }

    #[test]
    #[should_panic(expected = "slot 2")]
    fn a_slot_too_many_is_caught() {
        SharedMemory::new(&[1; PAGE_BYTES], 2).unwrap().buffer(2);
    }
}
