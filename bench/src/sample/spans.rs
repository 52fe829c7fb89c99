//! The private memory of a process, from `/proc/PID/maps`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    ops::Range,
};

use crate::page::PAGE_BYTES;

/// Parts of an address space, in page numbers, lowest first. Read line by line: a process may have very many.
pub(super) struct Spans(io::Lines<BufReader<File>>);

impl Spans {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self(BufReader::new(File::open(format!("/proc/{pid}/maps"))?).lines()))
    }
}

impl Iterator for Spans {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Ok(line) => {
                    if let Some(span) = private_span(&line) {
                        return Some(Ok(span));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The pages of a line of `/proc/PID/maps`, if they are private and the process can read them.
fn private_span(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?.as_bytes();
    // `[vvar]`, `[vdso]` and `[vsyscall]` are the kernel's.
    if rights.first() != Some(&b'r')
        || rights.get(3) != Some(&b'p')
        || words.any(|word| word.starts_with("[v"))
    {
        return None;
    }
    let page = |address| Some(u64::from_str_radix(address, 16).ok()? / PAGE_BYTES as u64);
    Some(page(start)?..page(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_private_and_readable() {
        assert_eq!(private_span("1000-3000 rw-p 00000000 00:00 0 [heap]"), Some(1..3));
        assert_eq!(private_span("1000-3000 r-xp 00000000 08:01 7 /usr/lib/libc.so.6"), Some(1..3));
        assert_eq!(private_span("1000-3000 ---p 00000000 00:00 0"), None);
        assert_eq!(private_span("1000-3000 rw-s 00000000 00:01 5 /dev/shm/x (deleted)"), None);
        assert_eq!(private_span("7000-8000 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(private_span(""), None);
    }
}
