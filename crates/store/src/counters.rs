//! Counters: kept per stripe under its lock, summed when somebody asks.

use std::ops::AddAssign;

/// What a stripe, a pool or a client holds and has done. Pages and events are counted, memory is in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) flushes: u64,
    pub(crate) refused_puts: u64,
    /// Those of them whose page does not compress well enough.
    pub(crate) incompressible_puts: u64,
    pub(crate) evicted_pages: u64,
    pub(crate) checksum_errors: u64,
    pub(crate) recompressed_pages: u64,
    pub(crate) recompression_saved_bytes: u64,
    pub(crate) recompression_kept_pages: u64,
    pub(crate) same_filled_pages: u64,
    /// Pages in blocks of their own, raw ones included.
    pub(crate) block_pages: u64,
    pub(crate) raw_pages: u64,
    /// Pages in blocks that they share with others.
    pub(crate) shared_pages: u64,
    /// All blocks of one page alone: header, payload and padding.
    pub(crate) block_bytes: u64,
    /// Pages in blocks of their own that are in a tier.
    pub(crate) tiered_pages: u64,
    /// Those blocks.
    pub(crate) tiered_bytes: u64,
    /// Pages that were moved to a tier.
    pub(crate) written_back_pages: u64,
    /// Gets that found their page in a tier.
    pub(crate) tier_gets: u64,
    /// Gets that a tier could not serve.
    pub(crate) tier_errors: u64,
    /// Index pages held.
    pub(crate) index_bytes: u64,
}

impl Counters {
    pub(crate) fn stored_pages(&self) -> u64 {
        self.same_filled_pages + self.block_pages + self.shared_pages + self.tiered_pages
    }

    /// All memory that is the pages' alone: blocks and index.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.block_bytes + self.index_bytes
    }

    /// Takes what one page counted for before out of the books and enters what it counts for now.
    pub(crate) fn replace(&mut self, before: &Counters, after: &Counters) {
        self.same_filled_pages = self.same_filled_pages + after.same_filled_pages - before.same_filled_pages;
        self.block_pages = self.block_pages + after.block_pages - before.block_pages;
        self.shared_pages = self.shared_pages + after.shared_pages - before.shared_pages;
        self.raw_pages = self.raw_pages + after.raw_pages - before.raw_pages;
        self.block_bytes = self.block_bytes + after.block_bytes - before.block_bytes;
        self.tiered_pages = self.tiered_pages + after.tiered_pages - before.tiered_pages;
        self.tiered_bytes = self.tiered_bytes + after.tiered_bytes - before.tiered_bytes;
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.puts += other.puts;
        self.gets += other.gets;
        self.flushes += other.flushes;
        self.refused_puts += other.refused_puts;
        self.incompressible_puts += other.incompressible_puts;
        self.evicted_pages += other.evicted_pages;
        self.checksum_errors += other.checksum_errors;
        self.recompressed_pages += other.recompressed_pages;
        self.recompression_saved_bytes += other.recompression_saved_bytes;
        self.recompression_kept_pages += other.recompression_kept_pages;
        self.same_filled_pages += other.same_filled_pages;
        self.block_pages += other.block_pages;
        self.shared_pages += other.shared_pages;
        self.raw_pages += other.raw_pages;
        self.block_bytes += other.block_bytes;
        self.tiered_pages += other.tiered_pages;
        self.tiered_bytes += other.tiered_bytes;
        self.written_back_pages += other.written_back_pages;
        self.tier_gets += other.tier_gets;
        self.tier_errors += other.tier_errors;
        self.index_bytes += other.index_bytes;
    }
}
