//! A memory file, mapped: memory with a descriptor, so that another process can take it over.

use std::{
    ffi::c_void,
    fmt, io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64},
};

use rustix::{
    fs::{FallocateFlags, SeekFrom},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
};
use tmem_faults::Fault;

use crate::{
    fault_injection::{self, Point},
    files::Kept,
    mapped_ahead, memory_files,
};

/// A huge page's size and alignment, in bytes, on the machines that have them.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A sparse memory file and its mapping. Untouched parts cost nothing and read as zeroes.
pub(crate) struct MemoryFile {
    file: OwnedFd,
    start: NonNull<u8>,
    len_bytes: usize,
    /// Dropped after the mapping is gone.
    _kept: Option<Kept>,
}

// SAFETY: the mapping belongs to this value until it is dropped, and is reached only through atomics or through raw pointers
// whose users carry their own proof.
unsafe impl Send for MemoryFile {}
// SAFETY: as for Send.
unsafe impl Sync for MemoryFile {}

impl MemoryFile {
    /// Makes a memory file of `len_bytes` (a multiple of the page size, not 0), all of it untouched.
    pub(crate) fn create(name: &str, len_bytes: usize) -> io::Result<Self> {
        Self::create_spanning(name, len_bytes, len_bytes)
    }

    /// The same, but where there are not so many addresses only its beginning is mapped, a half, a quarter, and so on: `least_bytes` at least.
    pub(crate) fn create_spanning(name: &str, len_bytes: usize, least_bytes: usize) -> io::Result<Self> {
        Self::map_spanning(memory_files::memory_file_of_length(name, len_bytes)?, len_bytes, least_bytes)
    }

    /// Maps a memory file that another process made with [`MemoryFile::create_spanning`]. Errors: it is none, or not of that length, or its length could be
    /// sealed and is not, or what is in it spans more addresses than there are.
    pub(crate) fn open_spanning(file: OwnedFd, len_bytes: usize, least_bytes: usize) -> io::Result<Self> {
        memory_files::check_memory_file(&file, len_bytes)?;
        let file = Self::map_spanning(file, len_bytes, least_bytes)?;
        if file.len_bytes < len_bytes
            && rustix::fs::seek(&file.file, SeekFrom::Data(file.len_bytes as u64)).is_ok()
        {
            return Err(io::Error::other(format!(
                "it spans more addresses than the {} that there are",
                file.len_bytes
            )));
        }
        Ok(file)
    }

    #[cfg(test)]
    pub(crate) fn open(file: OwnedFd, len_bytes: usize) -> io::Result<Self> {
        Self::open_spanning(file, len_bytes, len_bytes)
    }

    fn map_spanning(file: OwnedFd, len_bytes: usize, least_bytes: usize) -> io::Result<Self> {
        let mut span_bytes = len_bytes;
        loop {
            match Self::map(&file, span_bytes) {
                Ok(start) => return Ok(Self { file, start, len_bytes: span_bytes, _kept: None }),
                Err(error) if span_bytes / 2 < least_bytes || error.raw_os_error() != Some(libc::ENOMEM) => {
                    return Err(error);
                }
                Err(_) => span_bytes /= 2,
            }
        }
    }

    /// The same file; its keeper is told when it is gone.
    pub(crate) fn kept(mut self, kept: Kept) -> Self {
        self._kept = Some(kept);
        self
    }

    fn map(file: &OwnedFd, len_bytes: usize) -> io::Result<NonNull<u8>> {
        let start = match mapped_ahead::take(file, len_bytes) {
            Some(start) => start,
            None => map_aligned(file, len_bytes)?,
        };
        // What clients store stays out of core dumps. Failing to say so is no reason to stop.
        // SAFETY: the range is the mapping just made, and this advice does not change its contents.
        let _ =
            unsafe { rustix::mm::madvise(start.as_ptr().cast::<c_void>(), len_bytes, Advice::LinuxDontDump) };
        Ok(start)
    }

    /// How much of the file there are addresses for, in bytes.
    pub(crate) fn span_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Has the OS make its tables for the pages that the file has, by reading one in each stretch that has a table of its own. Later uses of the others
    /// ask for no memory then.
    pub(crate) fn touch(&self) -> io::Result<()> {
        for held in self.held_ranges() {
            let held = held?;
            let mut at = held.start;
            while at < held.end {
                let place = self.at(at, 1).ok_or(io::ErrorKind::InvalidInput)?;
                // SAFETY: inside the mapping. Others may be writing there; what is read is of no interest.
                unsafe { place.as_ptr().read_volatile() };
                at = (at + 1).next_multiple_of(HUGE_PAGE_BYTES);
            }
        }
        Ok(())
    }

    /// The mapping without the file. It stays for as long as this process does, unless it is taken up by another.
    pub(crate) fn into_mapping(self) -> NonNull<u8> {
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: dropped once, because the whole never is.
        unsafe { ptr::drop_in_place(&raw mut this.file) };
        this.start.as_ptr().expose_provenance();
        this.start
    }

    /// Where byte `offset` is. Errors: `None` when `offset..offset + len_bytes` is not inside the file.
    pub(crate) fn at(&self, offset: usize, len_bytes: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len_bytes)?;
        if end > self.len_bytes {
            return None;
        }
        // SAFETY: offset is inside the mapping, checked above.
        Some(unsafe { self.start.add(offset) })
    }

    /// The whole file as 8-byte cells.
    pub(crate) fn as_u64s(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page aligned, lives as long as self, every bit pattern is a valid AtomicU64, and this file is
        // only ever reached as AtomicU64 by those who call this.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<AtomicU64>(), self.len_bytes / 8) }
    }

    /// The whole file as 4-byte cells.
    pub(crate) fn as_u32s(&self) -> &[AtomicU32] {
        // SAFETY: as for as_u64s.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<AtomicU32>(), self.len_bytes / 4) }
    }

    /// The whole file as 2-byte cells.
    pub(crate) fn as_u16s(&self) -> &[AtomicU16] {
        // SAFETY: as for as_u64s.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<AtomicU16>(), self.len_bytes / 2) }
    }

    /// Makes the OS find the memory of a range now. Errors: the OS has none; then nothing was promised.
    pub(crate) fn populate(&self, offset: usize, len_bytes: usize) -> io::Result<()> {
        let start = self.at(offset, len_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        fault_injection::point(Point::Memory);
        if tmem_faults::fails(Fault::RefuseMemory) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // SAFETY: the range is inside the mapping; populating does not change what it holds.
        unsafe {
            rustix::mm::madvise(start.as_ptr().cast::<c_void>(), len_bytes, Advice::LinuxPopulateWrite)
        }?;
        Ok(())
    }

    /// Has the OS put a range, whose memory it holds already, into huge pages. Both ends are multiples of [`HUGE_PAGE_BYTES`].
    /// Whoever touches the range meanwhile waits, a millisecond or so. Errors: the OS has none to give, or does not do it.
    pub(crate) fn collapse(&self, offset: usize, len_bytes: usize) -> io::Result<()> {
        let start = self.at(offset, len_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the range is inside the mapping; collapsing does not change what it holds.
        match unsafe { libc::madvise(start.as_ptr().cast::<c_void>(), len_bytes, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives the memory of a range back to the OS; it reads as zeroes afterwards.
    pub(crate) fn give_back(&self, offset: usize, len_bytes: usize) -> io::Result<()> {
        fault_injection::point(Point::Memory);
        if tmem_faults::fails(Fault::RefuseMemory) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, punch, offset as u64, len_bytes as u64)?;
        Ok(())
    }

    /// The parts of the file that the OS holds memory for, in bytes. What lies between them was never touched.
    pub(crate) fn held_ranges(&self) -> impl Iterator<Item = io::Result<Range<usize>>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let range = self.held_range_from(at).transpose()?;
            at = range.as_ref().map_or(self.len_bytes as u64, |range| range.end);
            Some(range.map(|range| range.start as usize..range.end as usize))
        })
    }

    fn held_range_from(&self, at: u64) -> io::Result<Option<Range<u64>>> {
        if at >= self.len_bytes as u64 {
            return Ok(None);
        }
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start))?;
        Ok(Some(start..end))
    }

    /// Bytes that the OS holds for the file.
    #[cfg(test)]
    pub(crate) fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_blocks as u64 * 512)
    }
}

/// Maps a file where huge pages can be mapped: at a multiple of their size, found within an address range that is that much too
/// large.
fn map_aligned(file: &OwnedFd, len_bytes: usize) -> io::Result<NonNull<u8>> {
    let reserved_bytes = len_bytes.checked_add(HUGE_PAGE_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
    // SAFETY: a fresh mapping at an address the kernel picks touches no memory of ours.
    let reserved = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            reserved_bytes,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )?
    };
    let before = reserved.addr().next_multiple_of(HUGE_PAGE_BYTES) - reserved.addr();
    let after = HUGE_PAGE_BYTES - before;
    // SAFETY: all three ranges lie within the one just reserved, which nobody else knows of: the middle is replaced by the file,
    // the ends are given back. Unmapping cannot fail on such ranges; if it did, address space would be lost and nothing else.
    unsafe {
        let start = reserved.byte_add(before);
        let mapped = rustix::mm::mmap(start, len_bytes, access, flags | MapFlags::FIXED, file, 0);
        if before > 0 {
            let _ = rustix::mm::munmap(reserved, before);
        }
        if after > 0 {
            let _ = rustix::mm::munmap(start.byte_add(len_bytes), after);
        }
        if mapped.is_err() {
            let _ = rustix::mm::munmap(start, len_bytes);
        }
        NonNull::new(mapped?.cast::<u8>()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // SAFETY: start and len are those of the mapping made by map_aligned, and nobody borrows self any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), self.len_bytes) };
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;
    use std::sync::atomic::Ordering;

    #[test]
    fn r7_memory_given_back_is_with_the_os_again() {
        let file = MemoryFile::create("test", 1 << 20).unwrap();
        assert_eq!(file.allocated_bytes().unwrap(), 0, "untouched memory costs something");
        file.populate(0, 1 << 16).unwrap();
        assert_eq!(file.allocated_bytes().unwrap(), 1 << 16);
        file.as_u64s()[5].store(7, Ordering::Relaxed);
        file.give_back(0, 1 << 16).unwrap();
        assert_eq!(file.allocated_bytes().unwrap(), 0);
        assert_eq!(file.as_u64s()[5].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_what_was_touched_is_held() {
        let file = MemoryFile::create("test", 1 << 20).unwrap();
        let held = || file.held_ranges().collect::<io::Result<Vec<_>>>().unwrap();
        assert!(held().is_empty());
        for at in [0, 4096, 65536, (1 << 20) - 1] {
            file.populate(at / 4096 * 4096, 4096).unwrap();
        }
        assert_eq!(held(), [0..8192, 65536..69632, (1 << 20) - 4096..1 << 20]);
    }

    #[test]
    fn where_addresses_are_few_the_beginning_is_mapped() {
        let (len_bytes, least_bytes) = (1 << 47, 1 << 30);
        let file = MemoryFile::create_spanning("test", len_bytes, least_bytes).unwrap();
        let span_bytes = file.span_bytes();
        assert!((least_bytes..len_bytes).contains(&span_bytes), "{span_bytes}");
        assert!(file.at(span_bytes - 8, 8).is_some() && file.at(span_bytes - 7, 8).is_none());
        file.as_u64s()[span_bytes / 8 - 1].store(7, Ordering::Relaxed);
        let open = |least_bytes| {
            let copy = file.as_fd().try_clone_to_owned().unwrap();
            MemoryFile::open_spanning(copy, len_bytes, least_bytes)
        };
        drop(open(len_bytes).map(|_| ()).unwrap_err());
        let span_again = open(least_bytes).map(|opened| opened.span_bytes());
        match span_again {
            // Both at once may not fit; then the second must not pretend that it has all.
            Ok(again) => assert_eq!(again, span_bytes),
            Err(error) => assert!(error.to_string().contains("spans more addresses"), "{error}"),
        }
    }

    #[test]
    fn only_a_sealed_memory_file_of_the_right_length_is_taken_over() {
        let file = MemoryFile::create("test", 8192).unwrap();
        file.as_u64s()[1000].store(7, Ordering::Relaxed);
        let again = |len_bytes| MemoryFile::open(file.as_fd().try_clone_to_owned().unwrap(), len_bytes);
        assert_eq!(again(8192).unwrap().as_u64s()[1000].load(Ordering::Relaxed), 7);
        assert!(again(4096).is_err() && again(16384).is_err());
        assert!(rustix::fs::ftruncate(&file, 0).is_err(), "a file that is mapped can be cut short");
        let unsealed =
            rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, 8192).unwrap();
        assert!(MemoryFile::open(unsealed, 8192).is_err());
        assert!(MemoryFile::open(std::fs::File::open("/dev/null").unwrap().into(), 8192).is_err());
    }

    /// What the kernel says of its pages: none is among those that could be swapped out. In a process of its own, because all memory files of a
    /// process are such files from then on.
    #[test]
    fn a_file_that_is_never_swapped_is_like_any_other_and_cannot_be_evicted() {
        const ALONE: &str = "TMEM_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name =
                "memory_file::tests::a_file_that_is_never_swapped_is_like_any_other_and_cannot_be_evicted";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let ended = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "yes").output().unwrap();
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success() && said.contains("1 passed"), "{ended:?}");
            return;
        }
        if let Err(error) = memory_files::never_swap_memory_files() {
            assert!(
                matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL | libc::ENOSYS)),
                "{error}"
            );
            return;
        }
        let file = MemoryFile::create("test", 4 << 20).unwrap();
        file.populate(0, 1 << 20).unwrap();
        file.as_u64s()[1000].store(7, Ordering::Relaxed);
        assert_eq!(file.allocated_bytes().unwrap(), 1 << 20);
        let again = |len_bytes| MemoryFile::open(file.as_fd().try_clone_to_owned().unwrap(), len_bytes);
        assert!(again(8192).is_err());
        let again = again(4 << 20).unwrap();
        assert_eq!(again.as_u64s()[1000].load(Ordering::Relaxed), 7);
        // The kernel takes no page of it, however it is asked to.
        // SAFETY: the range is the mapping; paging out changes nothing of its contents.
        unsafe { libc::madvise(file.start.as_ptr().cast(), 4 << 20, libc::MADV_PAGEOUT) };
        assert_eq!(again.as_u64s()[1000].load(Ordering::Relaxed), 7);
        file.give_back(0, 1 << 20).unwrap();
        assert_eq!(file.allocated_bytes().unwrap(), 0);
        assert_eq!(again.as_u64s()[1000].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_was_mapped_ahead_is_opened_where_it_is_mapped() {
        let file = MemoryFile::create("test", 8 << 20).unwrap();
        file.as_u64s()[1000].store(7, Ordering::Relaxed);
        let held = file.allocated_bytes().unwrap();
        let same = || file.as_fd().try_clone_to_owned().unwrap();
        mapped_ahead::map(same()).unwrap();
        assert_eq!(file.allocated_bytes().unwrap(), held, "looking at it takes nothing");
        let other = MemoryFile::create("test", 8 << 20).unwrap();
        assert_eq!(other.as_u64s()[1000].load(Ordering::Relaxed), 0);
        let again = MemoryFile::open(same(), 8 << 20).unwrap();
        assert_eq!(again.as_u64s()[1000].load(Ordering::Relaxed), 7);
        let third = MemoryFile::open(same(), 8 << 20).unwrap();
        assert_ne!(again.start, third.start, "a mapping has one owner");
    }

    #[test]
    fn nothing_outside_the_file_can_be_reached() {
        let file = MemoryFile::create("test", 4096).unwrap();
        assert!(file.at(0, 4096).is_some());
        assert!(file.at(1, 4096).is_none());
        assert!(file.at(usize::MAX, 2).is_none());
    }
}
