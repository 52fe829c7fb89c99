//! Memory of a queue: a buffer for each tag, and the descriptors that the driver writes.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

use crate::{abi::Descriptor, abi::MAX_QUEUE_DEPTH, locked_memory};

const PAGE_BYTES: usize = 4096;

/// A mapping of this value's own.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: memory is no thread's own.
unsafe impl Send for Mapping {}

impl Mapping {
    /// # Safety
    /// The pointer is what `mmap` gave for a new mapping of `len_bytes`.
    unsafe fn new(mapped: *mut libc::c_void, len_bytes: usize) -> io::Result<Self> {
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(mapped.cast()) {
            Some(start) => Ok(Self { start, len_bytes }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Fresh memory that the OS has found.
    pub(crate) fn populated(len_bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address the kernel picks touches no memory of ours.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), len_bytes, access, flags, -1, 0) };
        // SAFETY: just mapped.
        let mapping = unsafe { Self::new(mapped, len_bytes) }?;
        locked_memory::populate(mapping.start.addr().get(), len_bytes, true)?;
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}

/// Memory for buffers of queues to come.
static MADE_AHEAD: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());

/// Has memory found for the buffers of one more queue.
pub(crate) fn make_ahead(tags: u16, bytes_per_tag: usize) -> io::Result<()> {
    let mapping = Mapping::populated(usize::from(tags) * bytes_per_tag)?;
    MADE_AHEAD.lock().unwrap_or_else(PoisonError::into_inner).push(mapping);
    Ok(())
}

/// A buffer for each tag of a queue, all in memory. The kernel copies from and to them in system calls of the queue's thread.
pub(crate) struct Buffers {
    mapping: Mapping,
    bytes_per_tag: usize,
}

impl Buffers {
    /// Buffers for so many tags. Their length is a multiple of a page.
    pub(crate) fn new(tags: u16, bytes_per_tag: usize) -> io::Result<Self> {
        let len_bytes = usize::from(tags) * bytes_per_tag;
        let mut ahead = MADE_AHEAD.lock().unwrap_or_else(PoisonError::into_inner);
        let mapping = match ahead.pop_if(|mapping| mapping.len_bytes == len_bytes) {
            Some(mapping) => mapping,
            None => Mapping::populated(len_bytes)?,
        };
        Ok(Self { mapping, bytes_per_tag })
    }

    /// Where a tag's buffer is, for the driver.
    pub(crate) fn address(&self, tag: u16) -> u64 {
        self.mapping.start.addr().get() as u64 + u64::from(tag) * self.bytes_per_tag as u64
    }

    /// A tag's buffer. Between a request and its result the kernel leaves it alone.
    pub(crate) fn of(&mut self, tag: u16) -> &mut [u8] {
        let offset = usize::from(tag) * self.bytes_per_tag;
        assert!(
            offset + self.bytes_per_tag <= self.mapping.len_bytes,
            "the driver named a tag beyond the queue"
        );
        // SAFETY: inside the mapping, borrowed as long as self is; the kernel writes to it only while the tag has no request,
        // in system calls of this thread.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start.add(offset).as_ptr(), self.bytes_per_tag) }
    }
}

/// What the driver says of each tag's request.
pub(crate) struct Descriptors {
    mapping: Mapping,
    tags: u16,
}

impl Descriptors {
    /// Maps those of a queue from the device's character device.
    pub(crate) fn map(device: &File, queue: u16, tags: u16) -> io::Result<Self> {
        let bytes_of = |tags: u16| (usize::from(tags) * size_of::<Descriptor>()).next_multiple_of(PAGE_BYTES);
        let len_bytes = bytes_of(tags);
        let offset = usize::from(queue) * bytes_of(MAX_QUEUE_DEPTH);
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a fresh mapping at an address the kernel picks touches no memory of ours.
        let mapped = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len_bytes,
                libc::PROT_READ,
                flags,
                device.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        // SAFETY: just mapped.
        Ok(Self { mapping: unsafe { Mapping::new(mapped, len_bytes) }?, tags })
    }

    /// The request of a tag that was told to have one.
    pub(crate) fn of(&self, tag: u16) -> Descriptor {
        assert!(tag < self.tags, "the driver named a tag beyond the queue");
        // SAFETY: inside the mapping and aligned; any bytes are a descriptor. The kernel wrote it before it told of the request.
        unsafe { self.mapping.start.cast::<Descriptor>().add(usize::from(tag)).read_volatile() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_has_a_buffer_of_its_own() {
        let mut buffers = Buffers::new(4, 8192).unwrap();
        for tag in 0..4 {
            assert_eq!(buffers.address(tag), buffers.of(tag).as_ptr() as u64);
            buffers.of(tag).fill(tag as u8 + 1);
        }
        for tag in 0..4 {
            assert!(buffers.of(tag).iter().all(|byte| *byte == tag as u8 + 1));
        }
    }

    #[test]
    fn memory_that_was_found_ahead_is_used_where_it_fits() {
        make_ahead(4, 8192).unwrap();
        let place = MADE_AHEAD.lock().unwrap().last().unwrap().start;
        assert_ne!(Buffers::new(3, 8192).unwrap().mapping.start, place);
        assert_eq!(Buffers::new(4, 8192).unwrap().mapping.start, place);
        assert!(MADE_AHEAD.lock().unwrap().is_empty());
    }

    #[test]
    #[should_panic(expected = "beyond the queue")]
    fn a_tag_beyond_the_queue_has_none() {
        Buffers::new(4, 4096).unwrap().of(4);
    }
}
