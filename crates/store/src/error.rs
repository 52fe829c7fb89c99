//! What can go wrong.

use std::io;

use crate::{
    entry::MAX_ARENA_BYTES, recompression::RECOMPRESSION_LEVELS, records::MAX_NAME_BYTES, tier::TierError,
    weight::Weight,
};

/// A store, client or pool could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The memory file could not be made.
    #[error(
        "cannot make the memory file for {what}: {source} (is the limit on open files or address space too low?)"
    )]
    Memory {
        /// What it was for.
        what: &'static str,
        /// What the OS said.
        source: io::Error,
    },
    /// The limit is out of bounds.
    #[error("a pool limit of {limit_bytes} bytes is out of bounds: give 1 MiB to {} GiB", MAX_ARENA_BYTES >> 30)]
    Limit {
        /// The limit asked for, in bytes.
        limit_bytes: u64,
    },
    /// The client's name is taken.
    #[error("a client named '{name}' exists already: pick another name or remove it first")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no client of that name.
    #[error("there is no client named '{name}'")]
    NoSuchClient {
        /// The name.
        name: String,
    },
    /// The client's cap is out of bounds.
    #[error("a cap of {cap_bytes} bytes is more than a pool can hold: give up to {} GiB, or none", MAX_ARENA_BYTES >> 30)]
    Cap {
        /// The cap asked for, in bytes.
        cap_bytes: u64,
    },
    /// The client's weight is out of bounds.
    #[error("`{text}` is not a weight: give {} to {}", Weight::RANGE.start(), Weight::RANGE.end())]
    Weight {
        /// What was asked for.
        text: String,
    },
    /// The pool's size is out of bounds.
    #[error("{pages} pages are more than a pool can have or none at all: give 1 to {}", u32::MAX)]
    PoolSize {
        /// The pages asked for.
        pages: u64,
    },
    /// The level of recompression is out of bounds.
    #[error(
        "a recompression level of {level} is out of bounds: give {} to {}",
        RECOMPRESSION_LEVELS.start(),
        RECOMPRESSION_LEVELS.end()
    )]
    RecompressionLevel {
        /// The level asked for.
        level: i32,
    },
    /// All pool numbers are taken.
    #[error("no more than {} pools can exist at one time: remove a client first", u16::MAX)]
    TooManyPools,
    /// All places for clients are taken.
    #[error("no more than {} clients can exist at one time: remove one first", 1 << 16)]
    TooManyClients,
    /// The client's name does not fit into the catalog.
    #[error("a client's name has {MAX_NAME_BYTES} bytes at most: shorten '{name}'")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// A store is to be opened without one of its memory files.
    #[error("the store's memory file '{name}' is missing: without it the store cannot be opened")]
    FileMissing {
        /// Its name.
        name: String,
    },
    /// A store is to be opened with a file that cannot be its own.
    #[error("memory file '{name}' cannot belong to the store: {problem}; nothing was changed")]
    File {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is a tier already.
    #[error("tier '{name}': the store has a tier already; it can have one")]
    SecondTier {
        /// The second one's name.
        name: String,
    },
    /// A tier is smaller than what was written to it before.
    #[error(
        "tier '{name}' has room for {places} extents, and pages are in the first {needed_places}; give it the size it had"
    )]
    TierTooSmall {
        /// Its name.
        name: String,
        /// What it has places for.
        places: u32,
        /// What is needed.
        needed_places: u32,
    },
    /// The store was made by a version that lays its memory out in another way.
    #[error(
        "the store's memory files have another layout ({what}: {found:#x} instead of {expected:#x}); nothing was changed: go on \
         with the version that made them, or empty the store first"
    )]
    Layout {
        /// What differs.
        what: &'static str,
        /// What the files say.
        found: u64,
        /// What this version needs.
        expected: u64,
    },
}

/// A page was not stored. What was stored under its key before is gone, too: a get finds no older page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The store's limit is reached, or the host has no memory left.
    #[error("refused: the pool is full")]
    Full,
    /// The client's cap is reached.
    #[error("refused: the client's cap is reached")]
    OverCap,
    /// The pool is nearly full, and what is left is for clients that have not had their share of it.
    #[error("refused: the pool is nearly full and the client is over its share")]
    OverShare,
    /// Its payload is longer than the store keeps.
    #[error("refused: the page does not compress well enough")]
    Incompressible,
    /// The client is frozen.
    #[error("refused: the client is frozen")]
    Frozen,
    /// The pool has no such page, or no place for more.
    #[error("refused: the pool has no such page")]
    NoSuchPage,
    /// The pool was destroyed.
    #[error("refused: the pool was destroyed")]
    Destroyed,
}

/// A page could not be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// The last put of this page was refused, so its contents never came.
    #[error("the page's last put was refused")]
    Refused,
    /// The stored page or its index entry is damaged.
    #[error("the stored page is damaged")]
    Damaged,
    /// The page is in a tier that cannot be read at present. It may be there later.
    #[error("the page is in a tier that cannot be read at present")]
    TierUnavailable,
    /// The pool has no such page.
    #[error("the pool has no such page")]
    NoSuchPage,
    /// The pool was destroyed.
    #[error("the pool was destroyed")]
    Destroyed,
}

impl From<TierError> for GetError {
    fn from(error: TierError) -> Self {
        match error {
            TierError::Damaged => GetError::Damaged,
            TierError::Unavailable(_) => GetError::TierUnavailable,
        }
    }
}
