//! Which pages of a process are resident and anonymous, from `/proc/PID/pagemap`.

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::FileExt,
};

use super::zero_pages::ZeroPages;

/// An entry's bit for a page that is in memory.
const PRESENT: u64 = 1 << 63;
/// An entry's bit for a page of a file or of shared memory, not of the process alone.
const FILE_OR_SHARED: u64 = 1 << 61;
/// An entry's bits with the page's frame number; 0 for those who may not see it.
const FRAME: u64 = (1 << 55) - 1;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 8;

/// The map of one process.
pub(super) struct Pagemap {
    file: File,
    zero_pages: ZeroPages,
}

impl Pagemap {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { file: File::open(format!("/proc/{pid}/pagemap"))?, zero_pages: ZeroPages::find()? })
    }

    /// Says for each page of `pages` whether it is resident, anonymous and not the kernel's page of zeroes.
    /// Errors: [`ErrorKind::UnexpectedEof`] when the process has ended.
    pub(super) fn resident(&self, pages: Range<u64>, resident: &mut Vec<bool>) -> io::Result<()> {
        resident.clear();
        entries(&self.file, pages, |entry| {
            let own = entry & (PRESENT | FILE_OR_SHARED) == PRESENT;
            resident.push(own && !self.zero_pages.contains(entry & FRAME));
        })
    }
}

/// The frame number of each page that is in memory.
pub(super) fn frames(pagemap: &File, pages: Range<u64>) -> io::Result<Vec<u64>> {
    let mut frames = Vec::new();
    entries(pagemap, pages, |entry| {
        if entry & PRESENT != 0 {
            frames.push(entry & FRAME);
        }
    })?;
    Ok(frames)
}

/// Reads entries, a bounded number at a time.
fn entries(pagemap: &File, pages: Range<u64>, mut take: impl FnMut(u64)) -> io::Result<()> {
    let mut raw = [0; 512 * ENTRY_BYTES];
    let mut next = pages.start;
    while next < pages.end {
        let wanted = raw.len().min(((pages.end - next) as usize).saturating_mul(ENTRY_BYTES));
        let read = pagemap.read_at(&mut raw[..wanted], next * ENTRY_BYTES as u64)?;
        let (whole, _) = raw[..read].as_chunks::<ENTRY_BYTES>();
        if whole.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        whole.iter().for_each(|entry| take(u64::from_ne_bytes(*entry)));
        next += whole.len() as u64;
    }
    Ok(())
}
