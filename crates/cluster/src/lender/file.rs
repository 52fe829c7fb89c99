//! The memory file of one borrower: all that is held for it, so that the lender's next process can go on with it.
//!
//! ```text
//! | header, a page | journal | another one, when the first is rewritten | segments, 1 MiB each, behind 256 GiB |
//! ```
//!
//! The header says who lent it to whom, in which epoch, and which journal counts, up to where. Most of the file is never written to, and takes no memory.
//! Another process may have it when this one is dead, and not before.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use tmem_faults::Point;
use tmem_store::{check_memory_file, memory_file_of_length};

use super::{
    keeping::Keeping,
    mapping::{Mapping, PAGE_BYTES},
};
use crate::{
    ids::{Epoch, NodeId, NodeName},
    wire::Hello,
};

/// Who lends: what is lent in one epoch is nothing that any other one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LentBy {
    /// Drawn with the cluster.
    pub cluster: u128,
    /// Which node.
    pub node: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
}

/// What was lent by the process before this one can't be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum NotTakenOver {
    /// The OS refuses, or it is no such file.
    #[error("it cannot be opened: {0}")]
    File(#[from] io::Error),
    /// The layout is not this version's.
    #[error("another version of tmem has lent it")]
    OtherLayout,
    /// It is not this node's, or not of this epoch.
    #[error("this node has lent it in another epoch, or another node has")]
    OtherLender,
    /// It is not what a lender writes.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Processes died again and again while they opened it.
    #[error("{0} processes have died while they opened it")]
    Deadly(u64),
}

/// In words of 8 bytes. The first ones never change, and have a checksum.
const LAYOUT_AT: usize = 0;
const CLUSTER_AT: usize = 1;
const NODE_AT: usize = 3;
const EPOCH_AT: usize = 4;
const STORE_AT: usize = 5;
const NAME_AT: usize = 6;
const CHECK_AT: usize = 14;
/// And its complement behind it.
const BORROWERS_EPOCH_AT: usize = 15;
/// Which journal counts, and up to where: see [`Counting`].
const JOURNAL_AT: usize = 17;
/// Not 0: what the journal says is not to be believed.
const BROKEN_AT: usize = 18;
/// How many processes have begun to open it since one was done.
const OPENINGS_AT: usize = 19;
const WORDS: usize = PAGE_BYTES / 8;

/// What a segment has, in bytes.
pub(super) const SEGMENT_BYTES: usize = 1 << 20;

/// More of them there are no addresses for in the file.
pub(super) const MAX_SEGMENTS: u32 = 1 << 24;

/// "tmemlen", and the version of the layout.
const LAYOUT: u64 = 0x6e65_6c6d_656d_7401;

/// Each process that opens it may have been killed for another reason.
const MAX_OPENINGS: u64 = 3;

/// What there are addresses for of each journal, in bytes: more than the memory of any host has entries for.
const JOURNAL_SPAN_BYTES: u64 = 1 << 36;
const SEGMENTS_FROM: u64 = 1 << 38;
const FILE_BYTES: u64 = SEGMENTS_FROM + MAX_SEGMENTS as u64 * SEGMENT_BYTES as u64;

/// Which of the two journals counts, and up to where, in one word: a bit, 37 bits, and 26 of the checksum of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counting {
    which: usize,
    end: u64,
}

const CHECK_BITS: u32 = 26;

impl Counting {
    fn word(self) -> u64 {
        let said = self.end << 1 | self.which as u64;
        let check = crc32c::crc32c(&said.to_le_bytes()) >> (u32::BITS - CHECK_BITS);
        said << CHECK_BITS | u64::from(check)
    }

    /// `None`: it is damaged.
    fn of(word: u64) -> Option<Self> {
        let said = word >> CHECK_BITS;
        let counting = Self { which: (said & 1) as usize, end: said >> 1 };
        (counting.word() == word && counting.end <= JOURNAL_SPAN_BYTES).then_some(counting)
    }
}

/// A borrower's memory file.
#[derive(Debug)]
pub(super) struct LentFile {
    file: File,
    header: Mapping,
    name: String,
    keeping: Arc<Keeping>,
}

impl LentFile {
    /// A file for a borrower that has nothing yet.
    pub(super) fn create(keeping: &Arc<Keeping>, by: LentBy, to: &Hello) -> io::Result<Self> {
        let file = memory_file_of_length("tmem-lent", FILE_BYTES as usize)?;
        let (name, keeping) = (keeping.next_name(), Arc::clone(keeping));
        let made = Self { header: Mapping::new(&file, 0, PAGE_BYTES)?, file: file.into(), name, keeping };
        let header = made.header();
        let mut words = [0; CHECK_AT];
        words[LAYOUT_AT] = LAYOUT;
        (words[CLUSTER_AT], words[CLUSTER_AT + 1]) = (by.cluster as u64, (by.cluster >> 64) as u64);
        (words[NODE_AT], words[EPOCH_AT], words[STORE_AT]) = (by.node.0, by.epoch.0, to.store);
        let (name, _) = to.name.padded().as_chunks();
        for (word, bytes) in words[NAME_AT..].iter_mut().zip(name) {
            *word = u64::from_le_bytes(*bytes);
        }
        words.iter().zip(header).for_each(|(word, cell)| cell.store(*word, Relaxed));
        header[CHECK_AT].store(check(&words), Relaxed);
        header[JOURNAL_AT].store(Counting { which: 0, end: 0 }.word(), Relaxed);
        made.set_borrowers_epoch(to.epoch);
        // From here on the next process may have it.
        made.keeping.keep(&made.name, &made.file)?;
        Ok(made)
    }

    /// One that was left, with whoever has what is in it.
    pub(super) fn open(
        keeping: &Arc<Keeping>,
        by: LentBy,
        name: &str,
        file: OwnedFd,
    ) -> Result<(Self, Hello), NotTakenOver> {
        check_memory_file(&file, FILE_BYTES as usize)?;
        let header = Mapping::new(&file, 0, PAGE_BYTES)?;
        let (name, keeping) = (name.to_owned(), Arc::clone(keeping));
        let found = Self { file: file.into(), header, name, keeping };
        let hello = found.read_header(by)?;
        // What a journal was before it was written anew.
        found.punch(journal_from(1 - found.counting()?.which), JOURNAL_SPAN_BYTES);
        found.header()[OPENINGS_AT].fetch_add(1, Relaxed);
        Ok((found, hello))
    }

    /// Whether it is one that can be opened, as far as its header says.
    pub(super) fn check(by: LentBy, file: &OwnedFd) -> Result<(), NotTakenOver> {
        check_memory_file(file, FILE_BYTES as usize)?;
        let header = Mapping::new(file, 0, PAGE_BYTES)?;
        let (file, name, keeping) = (file.try_clone()?.into(), String::new(), Arc::default());
        Self { file, header, name, keeping }.read_header(by).map(drop)
    }

    fn read_header(&self, by: LentBy) -> Result<Hello, NotTakenOver> {
        let header = self.header();
        let words: [u64; CHECK_AT] = std::array::from_fn(|at| header[at].load(Relaxed));
        if words[LAYOUT_AT] != LAYOUT {
            return Err(NotTakenOver::OtherLayout);
        }
        if header[CHECK_AT].load(Relaxed) != check(&words) {
            return Err(NotTakenOver::Damaged("its header"));
        }
        let cluster = u128::from(words[CLUSTER_AT]) | u128::from(words[CLUSTER_AT + 1]) << 64;
        if by != (LentBy { cluster, node: NodeId(words[NODE_AT]), epoch: Epoch(words[EPOCH_AT]) }) {
            return Err(NotTakenOver::OtherLender);
        }
        let mut padded = [0; (CHECK_AT - NAME_AT) * 8];
        let (parts, _) = padded.as_chunks_mut();
        parts.iter_mut().zip(&words[NAME_AT..]).for_each(|(part, word)| *part = word.to_le_bytes());
        let name = NodeName::from_padded(padded).ok_or(NotTakenOver::Damaged("a name"))?;
        if header[BROKEN_AT].load(Relaxed) != 0 {
            return Err(NotTakenOver::Damaged("a change could not be entered"));
        }
        if header[OPENINGS_AT].load(Relaxed) >= MAX_OPENINGS {
            return Err(NotTakenOver::Deadly(MAX_OPENINGS));
        }
        // The process may have died between the two. It is asked for an epoch when it comes, and any will do.
        let [epoch, complement] = [0, 1].map(|word| header[BORROWERS_EPOCH_AT + word].load(Relaxed));
        let epoch = Epoch(if epoch == !complement { epoch } else { 1 });
        Ok(Hello { cluster, name, epoch, store: words[STORE_AT] })
    }

    /// It was opened, and this process lives.
    pub(super) fn is_open(&self) {
        self.header()[OPENINGS_AT].store(0, Relaxed);
    }

    /// The borrower's epoch when it was last here.
    pub(super) fn set_borrowers_epoch(&self, epoch: Epoch) {
        self.header()[BORROWERS_EPOCH_AT].store(epoch.0, Relaxed);
        self.header()[BORROWERS_EPOCH_AT + 1].store(!epoch.0, Relaxed);
    }

    /// A change could not be entered: who opens this must not believe what it says, until it is written anew.
    pub(super) fn mark_broken(&self) {
        self.header()[BROKEN_AT].store(1, Relaxed);
    }

    /// Has nobody ever open a file that was left, whatever it is.
    pub(super) fn spoil(file: &OwnedFd) {
        if let Ok(file) = file.try_clone() {
            // One that cannot be written to is none that can be opened.
            let _ = File::from(file).write_all_at(&[1], BROKEN_AT as u64 * 8);
        }
    }

    /// What the journal says that counts.
    pub(super) fn journal(&self) -> Result<Vec<u8>, NotTakenOver> {
        let Counting { which, end } = self.counting()?;
        // Memory that there is, and not what a wrong bit says.
        if end > self.file.metadata()?.blocks() * 512 {
            return Err(NotTakenOver::Damaged("its journal is longer than the file"));
        }
        let mut bytes = vec![0; end as usize];
        self.file.read_exact_at(&mut bytes, journal_from(which))?;
        Ok(bytes)
    }

    /// Enters a change behind those that were entered.
    pub(super) fn enter(&self, entry: &[u8]) -> io::Result<()> {
        let Counting { which, end } = self.counting().map_err(io::Error::other)?;
        self.write_journal(which, end, entry)?;
        step();
        let end = end + entry.len() as u64;
        self.header()[JOURNAL_AT].store(Counting { which, end }.word(), Release);
        Ok(())
    }

    /// Begins a journal in place of the one that counts, which still does.
    pub(super) fn begin_another(&self) -> AnotherJournal<'_> {
        let which = self.counting().map_or(0, |counting| 1 - counting.which);
        AnotherJournal { file: self, which, len_bytes: 0, counts: false }
    }

    /// Writes to a segment's memory.
    pub(super) fn write(&self, segment: u32, at: usize, bytes: &[u8]) -> io::Result<()> {
        self.write_at(bytes, segment_from(segment) + at as u64)
    }

    /// A stretch of a segment's memory becomes zeroes, and the system's.
    pub(super) fn give_back(&self, segment: u32, bytes: Range<usize>) {
        if !bytes.is_empty() {
            step();
            self.punch(segment_from(segment) + bytes.start as u64, bytes.len() as u64);
        }
    }

    /// The memory of whole segments becomes the system's.
    pub(super) fn give_back_segments(&self, segments: Range<u32>) {
        self.punch(segment_from(segments.start), segment_from(segments.end) - segment_from(segments.start));
    }

    /// Addresses of segments, so many from one on.
    pub(super) fn map_segments(&self, first: u32, count: u32) -> io::Result<Mapping> {
        Mapping::new(&self.file, segment_from(first), count as usize * SEGMENT_BYTES)
    }

    fn write_journal(&self, which: usize, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at + bytes.len() as u64 > JOURNAL_SPAN_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.write_at(bytes, journal_from(which) + at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        step();
        #[cfg(test)]
        super::tests::dying::may_write()?;
        self.file.write_all_at(bytes, at)
    }

    fn counting(&self) -> Result<Counting, NotTakenOver> {
        let word = self.header()[JOURNAL_AT].load(Acquire);
        Counting::of(word).ok_or(NotTakenOver::Damaged("which journal counts"))
    }

    /// If this fails, it costs memory that is not counted, until something else is written there, and nothing else.
    fn punch(&self, start: u64, len_bytes: u64) {
        #[cfg(test)]
        if super::tests::dying::is_dead() {
            return;
        }
        let (fd, mode) = (self.file.as_raw_fd(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
        // SAFETY: a system call that takes numbers. Nobody has a reference to the bytes: those who call this know them to be dead.
        unsafe { libc::fallocate(fd, mode, start as libc::off_t, len_bytes as libc::off_t) };
    }

    fn header(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: the mapping is a page, aligned, of a file that stays as long as it is; atomics may be shared, with other processes as well.
        unsafe { self.header.start().cast().as_ref() }
    }
}

impl Drop for LentFile {
    fn drop(&mut self) {
        self.keeping.release(&self.name);
    }
}

/// A journal that is being written in place of another one. Dropped before it counts, it is nothing.
pub(super) struct AnotherJournal<'a> {
    file: &'a LentFile,
    which: usize,
    len_bytes: u64,
    counts: bool,
}

impl AnotherJournal<'_> {
    pub(super) fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        self.file.write_journal(self.which, self.len_bytes, entries)?;
        self.len_bytes += entries.len() as u64;
        Ok(())
    }

    /// It counts from now on. Gives how long it is, in bytes.
    pub(super) fn take_over(mut self) -> u64 {
        let header = self.file.header();
        step();
        let counting = Counting { which: self.which, end: self.len_bytes };
        header[JOURNAL_AT].store(counting.word(), Release);
        self.counts = true;
        // It says all there is, whatever could not be entered before.
        header[BROKEN_AT].store(0, Release);
        step();
        self.len_bytes
    }
}

impl Drop for AnotherJournal<'_> {
    fn drop(&mut self) {
        let other = if self.counts { 1 - self.which } else { self.which };
        self.file.punch(journal_from(other), JOURNAL_SPAN_BYTES);
    }
}

/// Where the so-manieth journal begins in the file.
fn journal_from(which: usize) -> u64 {
    PAGE_BYTES as u64 + which as u64 * JOURNAL_SPAN_BYTES
}

/// Where a segment begins.
fn segment_from(segment: u32) -> u64 {
    SEGMENTS_FROM + u64::from(segment) * SEGMENT_BYTES as u64
}

fn check(words: &[u64; CHECK_AT]) -> u64 {
    words.iter().fold(0, |check, word| crc32c::crc32c_append(check, &word.to_le_bytes())).into()
}

/// The process may die here. In between it never is in a state that it could not die in.
fn step() {
    tmem_faults::pass(Point::Lend);
    #[cfg(test)]
    super::tests::dying::step();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_journal_counts_is_known_or_known_not_to_be() {
        for counting in [
            Counting { which: 0, end: 0 },
            Counting { which: 1, end: 16 },
            Counting { which: 1, end: JOURNAL_SPAN_BYTES },
        ] {
            let word = counting.word();
            assert_eq!(Counting::of(word), Some(counting));
            assert!((0..64).all(|bit| Counting::of(word ^ 1 << bit).is_none()), "{counting:?}");
        }
        assert!(Counting::of(0).is_none_or(|counting| counting.end == 0));
    }
}
