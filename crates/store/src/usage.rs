//! What the store and its clients hold and have done: the numbers people see.

use crate::{
    account::Account, block::HEADER_BYTES, client::ClientKind, counters::Counters, page::PAGE_BYTES,
};

/// What the whole store holds, at one moment. While pages come and go its parts are of slightly different moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// The most memory the store may hold, in bytes.
    pub limit_bytes: u64,
    /// Memory that clients' pages take, in bytes, index included: the sum over all clients.
    pub used_bytes: u64,
    /// Memory held from the OS, in bytes: used and slack. Never above the limit, unless that was lowered.
    pub held_bytes: u64,
    /// Pages stored.
    pub stored_pages: u64,
    /// What the stored pages would take as they are, in bytes.
    pub logical_bytes: u64,
    /// What the stored pages take compressed, in bytes: payloads, each rounded up to 8 bytes with its header.
    pub compressed_bytes: u64,
    /// Index and block headers, in bytes: the part of `used_bytes` that is not compressed pages.
    pub metadata_bytes: u64,
}

/// What one client holds and has done, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientUsage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ClientKind,
    /// The most memory its pages may take, in bytes.
    pub cap_bytes: Option<u64>,
    /// Memory that its pages take, in bytes, index included.
    pub used_bytes: u64,
    /// Pages stored.
    pub stored_pages: u64,
    /// The most pages that were stored at one time.
    pub peak_stored_pages: u64,
    /// Pages of one repeated word: they need nothing but their index entry.
    pub same_filled_pages: u64,
    /// Pages that did not get smaller and are stored as they are.
    pub raw_pages: u64,
    /// What the stored pages would take as they are, in bytes.
    pub logical_bytes: u64,
    /// What the stored pages take compressed, in bytes: payloads, each rounded up to 8 bytes with its header.
    pub compressed_bytes: u64,
    /// Index and block headers, in bytes.
    pub metadata_bytes: u64,
    /// Pages accepted.
    pub puts: u64,
    /// Gets, whether or not there was a page.
    pub gets: u64,
    /// Pages forgotten on request.
    pub flushes: u64,
    /// Pages that were not accepted.
    pub refused_puts: u64,
    /// Ephemeral pages dropped to make room.
    pub evicted_pages: u64,
    /// Gets that found a damaged page.
    pub checksum_errors: u64,
}

impl ClientUsage {
    pub(crate) fn new(account: &Account, sum: &Counters) -> Self {
        let header_bytes = sum.block_pages * HEADER_BYTES as u64;
        Self {
            name: account.options.name.clone(),
            kind: account.options.kind,
            cap_bytes: account.options.cap_bytes,
            used_bytes: sum.used_bytes(),
            stored_pages: sum.stored_pages(),
            peak_stored_pages: account.peak_stored_pages(),
            same_filled_pages: sum.same_filled_pages,
            raw_pages: sum.raw_pages,
            logical_bytes: sum.stored_pages() * PAGE_BYTES as u64,
            compressed_bytes: sum.block_bytes - header_bytes,
            metadata_bytes: sum.index_bytes + header_bytes,
            puts: sum.puts,
            gets: sum.gets,
            flushes: sum.flushes,
            refused_puts: sum.refused_puts,
            evicted_pages: sum.evicted_pages,
            checksum_errors: sum.checksum_errors,
        }
    }
}

impl StoreUsage {
    pub(crate) fn new(limit_bytes: u64, held_bytes: u64, clients: &[ClientUsage]) -> Self {
        let sum = |field: fn(&ClientUsage) -> u64| clients.iter().map(field).sum();
        Self {
            limit_bytes,
            held_bytes,
            used_bytes: sum(|client| client.used_bytes),
            stored_pages: sum(|client| client.stored_pages),
            logical_bytes: sum(|client| client.logical_bytes),
            compressed_bytes: sum(|client| client.compressed_bytes),
            metadata_bytes: sum(|client| client.metadata_bytes),
        }
    }
}
