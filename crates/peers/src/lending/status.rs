//! Who has how much, for people.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tmem_cluster::{Epoch, NodeName};

use super::Shared;

/// How this node lends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LendingStatus {
    /// How much may be lent in all, as the host's memory is now, in bytes.
    pub limit_bytes: u64,
    /// All memory that is taken for borrowers, in bytes.
    pub held_bytes: u64,
    /// What of it is needed.
    pub needed_bytes: u64,
    /// How much may still be lent.
    pub free_bytes: u64,
    /// What was done for all borrowers since the start.
    pub counts: LendingCounts,
    /// Who has something, or is connected, by name.
    pub borrowers: Vec<BorrowerStatus>,
}

/// What one borrower has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BorrowerStatus {
    /// Who.
    pub name: NodeName,
    /// In which epoch it was last here.
    pub epoch: Epoch,
    /// From where it is connected. `None`: it is not.
    pub address: Option<String>,
    /// How many copies.
    pub copies: usize,
    /// The bytes of them that are needed.
    pub needed_bytes: u64,
    /// All memory that is taken for them, in bytes.
    pub held_bytes: u64,
    /// Copies that are asked back and were not dropped yet.
    pub recalled_copies: usize,
    /// The needed bytes of these.
    pub recalled_bytes: u64,
    /// Copies that were dropped, and the borrower has not said that it knows.
    pub dropped_copies: usize,
    /// What was done on its connection.
    pub counts: LendingCounts,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LendingCounts {
    /// Copies that were put.
    pub puts: u64,
    /// Their bytes.
    pub put_bytes: u64,
    /// Copies for which there was no room.
    pub refused_puts: u64,
    /// Gets that were answered with bytes, whole copies among them.
    pub gets: u64,
    /// Gets of what is not there.
    pub missed_gets: u64,
    /// Copies of which something, or the whole, was flushed.
    pub flushes: u64,
    /// Copies that were asked back.
    pub recalls: u64,
}

/// The same, counted by one thread and read by others.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) puts: AtomicU64,
    pub(super) put_bytes: AtomicU64,
    pub(super) refused_puts: AtomicU64,
    pub(super) gets: AtomicU64,
    pub(super) missed_gets: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) recalls: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> LendingCounts {
        LendingCounts {
            puts: self.puts.load(Relaxed),
            put_bytes: self.put_bytes.load(Relaxed),
            refused_puts: self.refused_puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            missed_gets: self.missed_gets.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
            recalls: self.recalls.load(Relaxed),
        }
    }
}

impl std::ops::AddAssign for LendingCounts {
    fn add_assign(&mut self, more: Self) {
        self.puts += more.puts;
        self.put_bytes += more.put_bytes;
        self.refused_puts += more.refused_puts;
        self.gets += more.gets;
        self.missed_gets += more.missed_gets;
        self.flushes += more.flushes;
        self.recalls += more.recalls;
    }
}

pub(super) fn of(shared: &Shared) -> LendingStatus {
    let (seats, mut counts) = shared.seats.seated();
    seats.iter().for_each(|seat| counts += seat.counters.read());
    let mut borrowers: Vec<BorrowerStatus> = (shared.lender.usage().into_iter())
        .map(|borrower| {
            let seat = seats.iter().find(|seat| seat.hello.name == borrower.name);
            BorrowerStatus {
                name: borrower.name,
                epoch: borrower.epoch,
                address: seat.map(|seat| seat.stream.remote().to_owned()),
                copies: borrower.usage.copies,
                needed_bytes: borrower.usage.needed_bytes,
                held_bytes: borrower.usage.held_bytes,
                recalled_copies: borrower.usage.recalled_copies,
                recalled_bytes: borrower.usage.recalled_bytes,
                dropped_copies: borrower.usage.dropped_copies,
                counts: seat.map(|seat| seat.counters.read()).unwrap_or_default(),
            }
        })
        .collect();
    borrowers.sort_unstable_by_key(|borrower| borrower.name);
    LendingStatus {
        limit_bytes: shared.lender.limit_bytes(),
        held_bytes: shared.lender.held_bytes(),
        needed_bytes: borrowers.iter().map(|borrower| borrower.needed_bytes).sum(),
        free_bytes: shared.lender.free_bytes(),
        counts,
        borrowers,
    }
}
