//! The allocator's memory, so that whoever allocates on the I/O path, or holds a lock of its, does not ask the OS.
//!
//! Requests allocate nothing of their own. But a queue's thread makes the codecs' working memory when it first needs it, and lists in the
//! store grow now and then. So all threads share one heap, which never shrinks, and has free memory from the start.

use std::io;

use crate::locked_memory;

/// What lists may grow by, in bytes: that of extents has 24 bytes for each 128 KiB that is stored.
const LISTS_BYTES: usize = 4 << 20;
/// What a queue's thread takes: a Zstandard context of 160 KiB and the buffers of the page codec.
const PER_QUEUE_BYTES: usize = 512 << 10;

/// Has all threads that are made from now on share one heap, which gives nothing back to the OS. Only a process with one thread has
/// one heap then.
#[cfg(target_env = "gnu")]
pub(crate) fn share() {
    /// The most that the allocator takes for this.
    const MMAP_THRESHOLD: libc::c_int = 32 << 20;
    // SAFETY: sets parameters of the allocator, which may be done at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn share() {}

/// Has the OS find memory for the heap of a process with so many queues more.
pub(crate) fn reserve(queues: u16) -> io::Result<()> {
    let len_bytes = LISTS_BYTES + usize::from(queues) * PER_QUEUE_BYTES;
    let mut free = Vec::<u8>::new();
    free.try_reserve_exact(len_bytes).map_err(io::Error::other)?;
    let page_bytes = 4096;
    let start = free.as_ptr().addr().next_multiple_of(page_bytes);
    let end = (free.as_ptr().addr() + len_bytes) / page_bytes * page_bytes;
    locked_memory::populate(start, end - start, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of its own per test makes what is counted this test's.
    #[test]
    fn what_was_reserved_is_there_without_the_os() {
        share();
        reserve(1).unwrap();
        let faults = || {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: all zeroes is a valid value, and the call fills it in.
            let usage = unsafe {
                libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
                usage.assume_init()
            };
            usage.ru_minflt
        };
        let before = faults();
        let memory = vec![1u8; LISTS_BYTES / 2];
        std::hint::black_box(&memory);
        assert!(faults() - before < 16, "{} faults for {} pages", faults() - before, memory.len() / 4096);
    }
}
