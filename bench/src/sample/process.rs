//! Copying the resident anonymous pages of a process.

use std::{
    fs::File,
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::FileExt,
    time::Instant,
};

use serde::Serialize;

use super::{pagemap::Pagemap, share::Share, spans::Spans};
use crate::{error::BenchError, interrupt::Interrupt, page::PAGE_BYTES, progress::Progress};

/// How many pages' entries are looked at in one go: keeps this program's memory small, however large the process.
const WINDOW_PAGES: u64 = 8192;

/// A process whose memory this program may read.
pub(crate) struct Process {
    pid: u32,
    pagemap: Pagemap,
    memory: File,
}

/// How much was copied, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Taken {
    /// Pages copied.
    pub(crate) pages: u64,
    /// Resident anonymous pages of the process.
    #[serde(rename = "resident_anonymous_pages")]
    pub(crate) resident_pages: u64,
    /// Pages of its private mappings, in memory or not.
    pub(crate) mapped_pages: u64,
    /// Pages that went between the look at them and their copy.
    pub(crate) vanished_pages: u64,
}

impl Process {
    /// Errors: there is none of this number, or its memory may not be read.
    pub(crate) fn open(pid: u32) -> Result<Self, BenchError> {
        let denied = |error| BenchError::process(pid, error);
        let memory = File::open(format!("/proc/{pid}/mem")).map_err(denied)?;
        Ok(Self { pid, pagemap: Pagemap::open(pid).map_err(denied)?, memory })
    }

    /// Hands copies of up to `limit_pages` pages to `sink`, in the order of their addresses, some whole pages at a time.
    /// Errors: there are no such pages, the process ended, what `sink` says, or an interrupt.
    pub(crate) fn copy(
        &self,
        limit_pages: Option<u64>,
        interrupt: &Interrupt,
        mut sink: impl FnMut(&[u8]) -> Result<(), BenchError>,
    ) -> Result<Taken, BenchError> {
        let mut taken = Taken::default();
        for span in self.spans()? {
            taken.mapped_pages += pages_of(&span.map_err(|error| self.failed(error))?);
        }
        let mut progress = Progress::new(format!("looking at the memory of process {}", self.pid));
        let mut seen_pages = 0;
        self.each_window(interrupt, |window, resident| {
            seen_pages += pages_of(&window);
            progress.update(Instant::now(), seen_pages as f64 / taken.mapped_pages.max(1) as f64);
            taken.resident_pages += resident.iter().filter(|resident| **resident).count() as u64;
            Ok(())
        })?;
        if taken.resident_pages == 0 {
            return Err(BenchError::NoAnonymousPages(self.pid));
        }
        drop(progress);

        let mut progress = Progress::new(format!("copying the memory of process {}", self.pid));
        let mut share = Share::new(taken.resident_pages, limit_pages);
        let mut copier = Copier { process: self, bytes: Vec::new(), still: Vec::new() };
        self.each_window(interrupt, |window, resident| {
            for stretch in stretches(window, resident, share.stretch_pages()) {
                interrupt.check()?;
                let wanted = share.take(pages_of(&stretch));
                let copied = copier.copy(stretch.start..stretch.start + wanted, &mut sink)?;
                taken.pages += copied;
                taken.vanished_pages += wanted - copied;
                progress.update(Instant::now(), share.done());
            }
            Ok(())
        })?;
        if taken.pages == 0 {
            return Err(BenchError::ProcessEnded(self.pid));
        }
        Ok(taken)
    }

    fn spans(&self) -> Result<Spans, BenchError> {
        Spans::open(self.pid).map_err(|error| self.failed(error))
    }

    /// Goes through the private memory once and says of each window's pages whether they are resident and anonymous.
    fn each_window(
        &self,
        interrupt: &Interrupt,
        mut visit: impl FnMut(Range<u64>, &[bool]) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let mut resident = Vec::new();
        for span in self.spans()? {
            let span = span.map_err(|error| self.failed(error))?;
            for start in span.clone().step_by(WINDOW_PAGES as usize) {
                interrupt.check()?;
                let window = start..span.end.min(start + WINDOW_PAGES);
                self.pagemap.resident(window.clone(), &mut resident).map_err(|error| self.failed(error))?;
                visit(window, &resident)?;
            }
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> BenchError {
        match error.kind() {
            // Its memory is gone, or its folder in /proc.
            ErrorKind::UnexpectedEof | ErrorKind::NotFound => BenchError::ProcessEnded(self.pid),
            _ if error.raw_os_error() == Some(libc::ESRCH) => BenchError::ProcessEnded(self.pid),
            _ => BenchError::process(self.pid, error),
        }
    }
}

struct Copier<'a> {
    process: &'a Process,
    bytes: Vec<u8>,
    still: Vec<bool>,
}

impl Copier<'_> {
    /// Copies pages that were just seen to be resident; returns how many still were after the copy.
    fn copy(
        &mut self,
        pages: Range<u64>,
        sink: &mut impl FnMut(&[u8]) -> Result<(), BenchError>,
    ) -> Result<u64, BenchError> {
        self.bytes.resize(pages_of(&pages) as usize * PAGE_BYTES, 0);
        let memory = &self.process.memory;
        let address = |page: u64| page * PAGE_BYTES as u64;
        let mut lost = Vec::new();
        if memory.read_exact_at(&mut self.bytes, address(pages.start)).is_err() {
            // Part of it was unmapped: see which pages there are.
            for (page, bytes) in pages.clone().zip(self.bytes.chunks_exact_mut(PAGE_BYTES)) {
                if memory.read_exact_at(bytes, address(page)).is_err() {
                    lost.push(page);
                }
            }
        }
        let looked = self.process.pagemap.resident(pages.clone(), &mut self.still);
        looked.map_err(|error| self.process.failed(error))?;
        for page in lost {
            self.still[(page - pages.start) as usize] = false;
        }
        let mut copied = 0;
        for run in stretches(0..pages_of(&pages), &self.still, u64::MAX) {
            copied += pages_of(&run);
            sink(&self.bytes[run.start as usize * PAGE_BYTES..run.end as usize * PAGE_BYTES])?;
        }
        Ok(copied)
    }
}

/// The runs of `true` in `chosen`, which stands for the pages of `window`; none longer than `most_pages`.
fn stretches(window: Range<u64>, chosen: &[bool], most_pages: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += chosen[at..].iter().position(|chosen| *chosen)?;
        let start = at;
        at +=
            chosen[at..].iter().take_while(|chosen| **chosen).count().min(usize::try_from(most_pages).ok()?);
        Some(window.start + start as u64..window.start + at as u64)
    })
}

fn pages_of(pages: &Range<u64>) -> u64 {
    pages.end - pages.start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_at_the_longest_stretch() {
        let chosen: Vec<bool> = "01101111110".bytes().map(|byte| byte == b'1').collect();
        let runs = |most| stretches(100..111, &chosen, most).collect::<Vec<_>>();
        assert_eq!(runs(u64::MAX), [101..103, 104..110]);
        assert_eq!(runs(4), [101..103, 104..108, 108..110]);
        assert_eq!(stretches(0..0, &[], 1).count(), 0);
    }

    #[test]
    fn own_memory_is_found_where_it_lies() {
        let mark: Vec<u8> = (0..8 * PAGE_BYTES).map(|i| (i / 7) as u8).collect();
        let mut pages = Vec::new();
        let process = Process::open(std::process::id()).unwrap();
        let keep = |copied: &[u8]| {
            pages.extend_from_slice(copied);
            Ok(())
        };
        let taken = process.copy(None, &Interrupt::default(), keep).unwrap();
        assert_eq!(pages.len() as u64, taken.pages * PAGE_BYTES as u64);
        // A run of the marked bytes, at the place within a page where it lies in memory.
        let within = mark.as_ptr() as usize % PAGE_BYTES;
        let needle = &mark[PAGE_BYTES..2 * PAGE_BYTES - within];
        assert!(pages.chunks_exact(PAGE_BYTES).any(|page| page[within..].starts_with(needle)));
    }
}
