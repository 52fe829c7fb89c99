//! Keeps this process in memory: who serves swap must not be swapped out, nor have to be read from a disk.
//!
//! Every mapping is locked as its pages are touched (`MCL_ONFAULT`): the store's files span a terabyte and are touched here and
//! there, so locking must not make them whole. That holds for what is mapped later, too. What the I/O path needs and has perhaps
//! not touched yet is touched ahead of time: the program and its libraries, its heap, and each queue's stack and buffers.

use std::{fs, hint::black_box, io};

use crate::error::UblkError;

/// The most of its stack that a queue's thread uses, with room to spare, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// Locks what this process has mapped and will map, and has the program itself read into memory.
pub(crate) fn lock_process() -> Result<(), UblkError> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes a number only; it changes no memory.
    if unsafe { libc::mlockall(flags) } != 0 {
        return Err(UblkError::NotLocked { error: io::Error::last_os_error() });
    }
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| UblkError::NotLocked { error })?;
    let mut end_of_program = None;
    for line in maps.lines() {
        let chosen = Mapping::to_populate(line);
        // Variables that are zero at the start follow those that are not, and have no name.
        let mapping =
            chosen.or_else(|| Mapping::unnamed(line).filter(|mapping| Some(mapping.start) == end_of_program));
        let Some(mapping) = mapping else { continue };
        end_of_program = mapping.writable.then_some(mapping.start + mapping.len_bytes);
        mapping.populate().map_err(|error| UblkError::NotLocked { error })?;
    }
    Ok(())
}

/// Has the OS find the memory of the calling thread's stack.
#[inline(never)]
pub(crate) fn touch_stack() {
    let mut stack = [0u8; STACK_BYTES];
    black_box(&mut stack);
}

/// Has the OS find the memory of a range of this process.
///
/// # Errors
/// It has none.
pub(crate) fn populate(start: usize, len_bytes: usize, writable: bool) -> io::Result<()> {
    let advice = if writable { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    // SAFETY: populating changes the contents of no memory, whoever's it is; a range that is not mapped is an error.
    match unsafe { libc::madvise(start as *mut libc::c_void, len_bytes, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A range of addresses of this process.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    len_bytes: usize,
    writable: bool,
}

impl Mapping {
    /// A line of `/proc/self/maps` if it is of the program, a library or the heap.
    fn to_populate(line: &str) -> Option<Self> {
        let name = line.split_ascii_whitespace().nth(5)?;
        let is_program = name.starts_with('/') && !name.starts_with("/memfd:") && !name.starts_with("/dev/");
        if is_program || name == "[heap]" { Self::private(line) } else { None }
    }

    /// A line that names nothing.
    fn unnamed(line: &str) -> Option<Self> {
        let is_unnamed = line.split_ascii_whitespace().nth(5).is_none();
        is_unnamed.then(|| Self::private(line)).flatten().filter(|mapping| mapping.writable)
    }

    fn private(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let access = fields.next().filter(|access| access.starts_with('r'))?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let len_bytes = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
        // What is mapped shared from a file is nobody's program.
        access.ends_with('p').then_some(Self { start, len_bytes, writable: access[1..].starts_with('w') })
    }

    fn populate(&self) -> io::Result<()> {
        match populate(self.start, self.len_bytes, self.writable) {
            // The mapping is gone since, or a part of it lies beyond its file's end.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EFAULT)) => {
                log::debug!("cannot have {} bytes at {:#x} in memory: {error}", self.len_bytes, self.start);
                Ok(())
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_its_libraries_and_the_heap_are_chosen() {
        let of = |line: &str| Mapping::to_populate(line);
        let mapping = |writable| Some(Mapping { start: 0x1000, len_bytes: 0x2000, writable });
        assert_eq!(of("1000-3000 r-xp 00002000 fe:00 12 /usr/bin/tmem"), mapping(false));
        assert_eq!(of("1000-3000 rw-p 00002000 fe:00 12 /usr/lib/libc.so.6"), mapping(true));
        assert_eq!(of("1000-3000 rw-p 00000000 00:00 0 [heap]"), mapping(true));
        for other in [
            "1000-3000 rw-s 00000000 00:01 9 /memfd:tmem-arena (deleted)",
            "1000-3000 rw-p 00000000 00:00 0",
            "1000-3000 ---p 00002000 fe:00 12 /usr/lib/libc.so.6",
            "1000-3000 r--s 00000000 fe:00 3 /dev/ublkc0",
            "1000-3000 r--s 00000000 fe:00 3 /var/lib/a-file",
            "1000-3000 rw-p 00000000 00:00 0 [stack]",
            "nonsense",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn what_has_no_name_is_known_as_such() {
        let unnamed = Mapping::unnamed("1000-3000 rw-p 00000000 00:00 0");
        assert_eq!(unnamed, Some(Mapping { start: 0x1000, len_bytes: 0x2000, writable: true }));
        for other in ["1000-3000 r--p 00000000 00:00 0", "1000-3000 rw-p 00000000 00:00 0 [heap]", "nonsense"]
        {
            assert_eq!(Mapping::unnamed(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_itself_can_be_populated() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mappings: Vec<_> = maps.lines().filter_map(Mapping::to_populate).collect();
        assert!(mappings.len() > 3, "{maps}");
        mappings.iter().for_each(|mapping| mapping.populate().unwrap());
        touch_stack();
    }
}
