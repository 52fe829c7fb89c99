//! What the store and its clients hold and have done: the numbers people see.

use crate::{
    account::Account,
    block::HEADER_BYTES,
    client::{ClientKind, Dedup},
    counters::Counters,
    dedup::DomainUsage,
    page::PAGE_BYTES,
    reuse::ReuseDistances,
    weight::Weight,
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
    /// Pages whose blocks were compressed harder because they were cold: the sum over the clients that there are.
    pub recompressed_pages: u64,
    /// Memory that this gave back, in bytes.
    pub recompression_saved_bytes: u64,
    /// Cold pages whose blocks were left as they were, because compressing them harder gained too little.
    pub recompression_kept_pages: u64,
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
    /// Its share of the limit, relative to others'.
    pub weight: Weight,
    /// Its part of the limit by its weight, in bytes.
    pub share_bytes: u64,
    /// Whether its puts are refused.
    pub frozen: bool,
    /// With whose pages its own may share blocks.
    pub dedup: Dedup,
    /// Memory that its pages take, in bytes, index included. Of what it shares with others, its part by the number of its pages.
    pub used_bytes: u64,
    /// Pages stored.
    pub stored_pages: u64,
    /// The most pages that were stored at one time.
    pub peak_stored_pages: u64,
    /// Pages of one repeated word: they need nothing but their index entry.
    pub same_filled_pages: u64,
    /// Pages that share a block with others of the same contents.
    pub dedup_pages: u64,
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
    /// Those of them whose page does not compress well enough.
    pub incompressible_puts: u64,
    /// Ephemeral pages dropped to make room.
    pub evicted_pages: u64,
    /// Gets that found a damaged page.
    pub checksum_errors: u64,
    /// Pages whose blocks were compressed harder because they were cold.
    pub recompressed_pages: u64,
    /// Memory that this gave back, in bytes.
    pub recompression_saved_bytes: u64,
    /// Cold pages whose blocks were left as they were, because compressing them harder gained too little.
    pub recompression_kept_pages: u64,
    /// Pages of its own blocks that are in a tier, not in memory.
    pub tiered_pages: u64,
    /// What they take there, in bytes.
    pub tiered_bytes: u64,
    /// Pages moved to a tier so far.
    pub written_back_pages: u64,
    /// Gets that found their page in a tier.
    pub tier_gets: u64,
    /// Gets that the tier could not serve.
    pub tier_errors: u64,
    /// How far back its gets reached.
    pub reuse_distances: ReuseDistances,
}

impl ClientUsage {
    pub(crate) fn new(account: &Account, share_bytes: u64, sum: &Counters, shared: SharedPart) -> Self {
        let header_bytes = sum.block_pages * HEADER_BYTES as u64;
        let settings = account.settings();
        Self {
            name: account.name.clone(),
            kind: account.kind,
            cap_bytes: settings.cap_bytes,
            weight: settings.weight,
            share_bytes,
            frozen: settings.frozen,
            dedup: account.dedup.clone(),
            used_bytes: sum.used_bytes() + shared.compressed_bytes + shared.metadata_bytes,
            stored_pages: sum.stored_pages(),
            peak_stored_pages: account.peak_stored_pages(),
            same_filled_pages: sum.same_filled_pages,
            dedup_pages: sum.shared_pages,
            raw_pages: sum.raw_pages,
            logical_bytes: sum.stored_pages() * PAGE_BYTES as u64,
            compressed_bytes: sum.block_bytes - header_bytes + shared.compressed_bytes,
            metadata_bytes: sum.index_bytes + header_bytes + shared.metadata_bytes,
            puts: sum.puts,
            gets: sum.gets,
            flushes: sum.flushes,
            refused_puts: sum.refused_puts,
            incompressible_puts: sum.incompressible_puts,
            evicted_pages: sum.evicted_pages,
            checksum_errors: sum.checksum_errors,
            recompressed_pages: sum.recompressed_pages,
            recompression_saved_bytes: sum.recompression_saved_bytes,
            recompression_kept_pages: sum.recompression_kept_pages,
            tiered_pages: sum.tiered_pages,
            tiered_bytes: sum.tiered_bytes,
            written_back_pages: sum.written_back_pages,
            tier_gets: sum.tier_gets,
            tier_errors: sum.tier_errors,
            reuse_distances: account.ages.reuse_distances(),
        }
    }
}

/// A client's part of what its dedup domain holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SharedPart {
    compressed_bytes: u64,
    metadata_bytes: u64,
}

/// The entry that says where a shared block is, in bytes.
const CELL_BYTES: u64 = 8;

impl SharedPart {
    /// Of the client whose pools in the domain have these counters.
    pub(crate) fn of(sum: &Counters, domain: &DomainUsage) -> Self {
        let part = |bytes: u64, own: u64, all: u64| {
            (u128::from(bytes) * u128::from(own.min(all)) / u128::from(all.max(1))) as u64
        };
        let header_bytes = domain.shared_blocks * HEADER_BYTES as u64;
        let compressed_bytes = domain.shared_block_bytes.saturating_sub(header_bytes);
        let cell_bytes = header_bytes + domain.shared_blocks * CELL_BYTES;
        let (own, all) = (sum.shared_pages, domain.shared_pages);
        Self {
            compressed_bytes: part(compressed_bytes, own, all),
            metadata_bytes: part(cell_bytes, own, all)
                + part(domain.table_bytes, sum.block_pages + sum.shared_pages, domain.table_pages),
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
            recompressed_pages: sum(|client| client.recompressed_pages),
            recompression_saved_bytes: sum(|client| client.recompression_saved_bytes),
            recompression_kept_pages: sum(|client| client.recompression_kept_pages),
        }
    }
}
