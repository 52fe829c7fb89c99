//! Mappings of memory files that were made ahead, by a process that stands by to open a store: with the kernel's tables for the pages that are there. When
//! the store is opened, the host may have no memory for tables, and whoever fetches a page would wait for some.

use std::{
    io,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

use crate::memory_file::MemoryFile;

/// Files as the kernel knows them, with where they are mapped.
static AHEAD: Mutex<Vec<Ahead>> = Mutex::new(Vec::new());

struct Ahead {
    device: u64,
    inode: u64,
    start: usize,
    len_bytes: usize,
}

/// Maps a file of another process, and leaves the mapping to whoever opens the file in this one.
pub(crate) fn map(file: OwnedFd) -> io::Result<()> {
    let found = rustix::fs::fstat(&file)?;
    let len_bytes = usize::try_from(found.st_size).map_err(io::Error::other)?;
    let mapped = MemoryFile::open_spanning(file, len_bytes, len_bytes)?;
    mapped.touch()?;
    let ahead = Ahead {
        device: found.st_dev,
        inode: found.st_ino,
        start: mapped.into_mapping().addr().get(),
        len_bytes,
    };
    AHEAD.lock().unwrap_or_else(PoisonError::into_inner).push(ahead);
    Ok(())
}

/// The mapping of that file, if there is one. It is the caller's.
pub(crate) fn take(file: &OwnedFd, len_bytes: usize) -> Option<NonNull<u8>> {
    let mut ahead = AHEAD.lock().unwrap_or_else(PoisonError::into_inner);
    if ahead.is_empty() {
        return None;
    }
    let found = rustix::fs::fstat(file).ok()?;
    let is_it =
        |one: &Ahead| (one.device, one.inode, one.len_bytes) == (found.st_dev, found.st_ino, len_bytes);
    let at = ahead.iter().position(is_it)?;
    NonNull::new(std::ptr::with_exposed_provenance_mut(ahead.swap_remove(at).start))
}
