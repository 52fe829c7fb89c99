//! The disk by the byte: reads and writes at any offset and of any length, in memory of this program.

use std::ops::Range;

use tmem_store::{GetError, Got, PAGE_BYTES, PageIndex, PageSource, PageTarget, Stored};

use crate::{
    error::IoError,
    swap_disk::{BLOCK_BYTES, OBJECT, SwapDisk, settle},
};

/// A page of zeroes, for those that are to be stored as such.
static ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// So many pages are forgotten while all of the disk's are held, then whoever waits for one of them has a turn: 64 MiB, some
/// milliseconds at most. To take all locks for each step of the largest disk there can be takes less than half a second.
const FORGET_PAGES: u64 = 16384;

/// A stretch of a disk of which the same is stored throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What is stored.
    pub stored: Stored,
    /// How long it is, in bytes.
    pub len_bytes: u64,
}

/// How zeroes are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroes {
    /// Whole pages are forgotten: they take no memory.
    Forget,
    /// Whole pages are stored as zeroes: they take their index entries.
    Store,
}

impl SwapDisk {
    /// Fills `target` from the disk. Errors: some of it may have been written to.
    pub fn read_bytes(&self, offset_bytes: u64, target: &mut [u8]) -> Result<(), IoError> {
        self.checked_end(offset_bytes, target.len() as u64)?;
        let mut rest = target;
        let mut at = offset_bytes;
        while !rest.is_empty() {
            let (page, within) = first_piece(at, rest.len() as u64);
            if within.len() == PAGE_BYTES {
                let (pages, more) = rest.as_chunks_mut::<PAGE_BYTES>();
                at += (pages.len() * PAGE_BYTES) as u64;
                self.read_whole(page, pages)?;
                rest = more;
                continue;
            }
            let (piece, more) = rest.split_at_mut(within.len());
            let mut bounce = [0; PAGE_BYTES];
            let got = self.pool.get(OBJECT, page, (&mut bounce).into());
            self.settle_in_order(page, (&mut bounce).into(), got)?;
            piece.copy_from_slice(&bounce[within]);
            at += piece.len() as u64;
            rest = more;
        }
        Ok(())
    }

    fn read_whole(&self, first: PageIndex, pages: &mut [[u8; PAGE_BYTES]]) -> Result<(), IoError> {
        let mut result = Ok(());
        let wanted = (first.0..).map(PageIndex).zip(pages.iter_mut().map(PageTarget::from));
        self.pool.get_many(OBJECT, wanted, |page, target, got| {
            result = result.and(self.settle_in_order(page, target, got));
        });
        result
    }

    /// Forgets whole blocks of a range, as [`SwapDisk::discard`] does, in order with what is written to them at the same time.
    pub fn discard_bytes(&self, offset_bytes: u64, len_bytes: u64) -> Result<(), IoError> {
        let end = self.checked_end(offset_bytes, len_bytes)? / BLOCK_BYTES * BLOCK_BYTES;
        let start = offset_bytes.next_multiple_of(BLOCK_BYTES);
        if start < end { self.zero_bytes(start, end - start, Zeroes::Forget) } else { Ok(()) }
    }

    /// Stores `source` on the disk. What is written to at the same time ends up in some order, byte by byte, and nothing outside of it
    /// changes. Errors: as [`SwapDisk::write`]; a page of which only a part was to be written is lost as a whole.
    pub fn write_bytes(&self, offset_bytes: u64, source: &[u8]) -> Result<(), IoError> {
        self.checked_end(offset_bytes, source.len() as u64)?;
        let mut rest = source;
        let mut at = offset_bytes;
        let mut result = Ok(());
        while !rest.is_empty() {
            let (page, within) = first_piece(at, rest.len() as u64);
            let (piece, more) = rest.split_at(within.len());
            let done = match <&[u8; PAGE_BYTES]>::try_from(piece) {
                Ok(whole) => self.put_whole(page, whole.into()),
                Err(_) => self.change_page(page, |bytes| bytes[within].copy_from_slice(piece)),
            };
            result = result.and(done);
            at += piece.len() as u64;
            rest = more;
        }
        result
    }

    /// Makes bytes read as zeroes. With [`Zeroes::Forget`] a long range costs little beyond what is stored in it; with
    /// [`Zeroes::Store`] every page of it is put. Errors: as [`SwapDisk::write_bytes`].
    pub fn zero_bytes(&self, offset_bytes: u64, len_bytes: u64, how: Zeroes) -> Result<(), IoError> {
        let end = self.checked_end(offset_bytes, len_bytes)?;
        let mut at = offset_bytes;
        let mut result = Ok(());
        while at < end {
            let (page, within) = first_piece(at, end - at);
            let whole = within.len() == PAGE_BYTES;
            if whole && how == Zeroes::Forget {
                let pages = page.0..(end / BLOCK_BYTES).min(page.0 + FORGET_PAGES);
                at = pages.end * BLOCK_BYTES;
                let _order = self.order.hold_all();
                self.pool.flush_range(OBJECT, pages);
                continue;
            }
            at += within.len() as u64;
            let done = if whole {
                self.put_whole(page, (&ZEROES).into())
            } else {
                self.change_page(page, |bytes| bytes[within].fill(0))
            };
            result = result.and(done);
        }
        result
    }

    /// What is stored at an offset, and how far from there the same: at most `len_bytes`, which must not be 0. Costs little where
    /// nothing is stored.
    pub fn extent(&self, offset_bytes: u64, len_bytes: u64) -> Result<Extent, IoError> {
        let end = self.checked_end(offset_bytes, len_bytes)?;
        let first = offset_bytes / BLOCK_BYTES;
        let (stored, pages) = self.pool.look(OBJECT, first..end.div_ceil(BLOCK_BYTES));
        let extent_end = ((first + pages) * BLOCK_BYTES).min(end);
        Ok(Extent { stored, len_bytes: extent_end - offset_bytes })
    }

    /// What a get came to. In a full pool a put may give up what the page had before it has found room for what comes: then the page seems lost
    /// for a moment, and is read again when the put is through.
    fn settle_in_order(
        &self,
        page: PageIndex,
        mut target: PageTarget<'_>,
        got: Result<Got, GetError>,
    ) -> Result<(), IoError> {
        match settle(target.reborrow(), got) {
            Err(IoError::Lost) => {
                let _order = self.order.hold(page);
                self.read_page(page, target)
            }
            result => result,
        }
    }

    fn put_whole(&self, page: PageIndex, source: PageSource<'_>) -> Result<(), IoError> {
        let _order = self.order.hold(page);
        Ok(self.pool.put(OBJECT, page, source)?)
    }

    fn change_page(
        &self,
        page: PageIndex,
        change: impl FnOnce(&mut [u8; PAGE_BYTES]),
    ) -> Result<(), IoError> {
        let _order = self.order.hold(page);
        let mut bytes = [0; PAGE_BYTES];
        self.read_page(page, (&mut bytes).into())?;
        change(&mut bytes);
        Ok(self.pool.put(OBJECT, page, (&bytes).into())?)
    }
}

/// The page that a range begins in, and which bytes of it the range has.
fn first_piece(offset_bytes: u64, len_bytes: u64) -> (PageIndex, Range<usize>) {
    let start = (offset_bytes % BLOCK_BYTES) as usize;
    let len = len_bytes.min((PAGE_BYTES - start) as u64) as usize;
    (PageIndex(offset_bytes / BLOCK_BYTES), start..start + len)
}
