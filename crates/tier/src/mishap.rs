//! Writes that go wrong on purpose: see [`tmem_faults`]. Without its feature nothing ever does.

use std::io;

use tmem_faults::{Fault, below, delay, fails, say};
use tmem_store::TierCopy;

use crate::layout::{COPY_SECTORS, SECTOR_BYTES};

/// What becomes of a batch of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// All is well.
    None,
    /// Parts of it are written, and the disk says this error.
    Fails(i32),
    /// Parts of it are written, and the disk says that all is: what a loss of power does.
    Torn,
}

impl Mishap {
    /// What is to happen to the next batch. Takes its time where the disk is to be slow.
    pub(crate) fn of_a_batch() -> Mishap {
        delay(Fault::TierSlow);
        if fails(Fault::TierFail) {
            let errors = [libc::EIO, libc::ENOSPC];
            return Mishap::Fails(errors[below(errors.len() as u64) as usize]);
        }
        if fails(Fault::TierTorn) { Mishap::Torn } else { Mishap::None }
    }

    /// How much of the copies of one request, which stand side by side, gets to the disk, in bytes. Says which copies are not whole.
    pub(crate) fn bytes_that_arrive(self, copies: impl ExactSizeIterator<Item = TierCopy>) -> usize {
        let sectors = copies.len() * COPY_SECTORS;
        if self == Mishap::None {
            return sectors * SECTOR_BYTES;
        }
        let arrive = below(sectors as u64 + 1) as usize;
        for copy in copies.skip(arrive / COPY_SECTORS).filter(|_| self == Mishap::Torn) {
            say(format_args!("torn: place={} writing={}", copy.place, copy.writing));
        }
        arrive * SECTOR_BYTES
    }

    /// What the disk says when it is through.
    pub(crate) fn outcome(self) -> io::Result<()> {
        match self {
            Mishap::Fails(error) => Err(io::Error::from_raw_os_error(error)),
            Mishap::None | Mishap::Torn => Ok(()),
        }
    }
}

/// A read is to fail now.
pub(crate) fn of_a_read() -> io::Result<()> {
    delay(Fault::TierReadSlow);
    if fails(Fault::TierReadFail) { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
}
