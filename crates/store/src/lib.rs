//! The page store: where pages live.
//!
//! A [`Store`] has clients, a [`Client`] has pools, a [`Pool`] has pages. Putting a page compresses it into a block of the arena
//! and enters the block in the pool's index; getting it checks the block and unpacks it straight into the caller's memory.
//! Arena and indexes are memory files that hold offsets, never pointers. There are no sockets here and no threads.
//!
//! Whoever holds the memory files ([`FileKeeper`]) can open them again when the process that used them has died at any moment
//! ([`Store::open`]): they hold all that cannot be derived, and every store to them leaves them whole.
//!
//! From the top: [`store`](Store), client, pool; below them the index (directory, entry, stamp) and the arena (heads, extents,
//! blocks, and the walks over them that compaction, eviction and recompression make), the codecs, a client's ages, the blocks that
//! equal pages share, the budget that keeps all of it under one limit, and the shares that clients have of it. Beside them: the files, the catalog of clients and pools
//! in one of them, and the opening (recovery, survey, repair).

mod account;
mod age_table;
mod ages;
mod arena;
mod block;
mod budget;
mod catalog;
mod client;
mod client_settings;
mod codec;
mod compaction;
mod counters;
mod dead_blocks;
mod dedup;
mod directory;
mod engine;
mod entry;
mod error;
mod extent_order;
mod extent_state;
mod extents;
#[cfg(any(test, feature = "fault-injection"))]
pub mod fault_injection;
#[cfg(not(any(test, feature = "fault-injection")))]
mod fault_injection;
mod files;
mod head;
mod ids;
mod index;
mod layout;
mod leaf_records;
mod mapped_ahead;
mod memory_file;
mod memory_files;
mod page;
mod patient_lock;
mod pool;
mod prefetch;
mod recompression;
mod records;
mod recovery;
mod repair;
mod reuse;
mod room_signal;
mod shares;
mod sparse;
mod stamp;
mod stock;
mod stock_keeper;
mod stocking;
mod store;
mod survey;
mod sync;
mod tier;
mod tier_blocks;
mod tier_cleaning;
mod tier_table;
mod tiering;
mod usage;
mod walk;
mod weight;
mod write_back;
mod zeroed;
mod zstd;

#[cfg(all(test, not(loom)))]
mod tests;

pub use client::{Client, ClientKind, ClientOptions, Dedup};
pub use client_settings::ClientSettings;
pub use compaction::Compaction;
pub use error::{GetError, PutError, StoreError};
pub use files::FileKeeper;
pub use ids::{ObjectId, PageIndex, PoolId};
pub use memory_files::{
    check_memory_file, memory_file_of_length, never_swap_memory_files, never_swapped, new_memory_file,
};
pub use page::{PAGE_BYTES, PageSource, PageTarget};
pub use pool::{Got, Keys, Persistence, Pool, Stored};
pub use recompression::{RECOMPRESSION_LEVELS, Recompression, RecompressionOptions};
pub use recovery::Recovery;
pub use reuse::ReuseDistances;
pub use stock_keeper::StockKeeper;
pub use store::{MAX_LIMIT_BYTES, MIN_LIMIT_BYTES, Store, StoreOptions};
pub use tier::{
    MAX_TIER_BATCH, TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierKey, TierRead, TierRun, TierState,
    TierWrite,
};
pub use tier_blocks::{are_whole_blocks, whole_blocks_bytes};
pub use tier_cleaning::Cleaning;
pub use tiering::{TierUsage, WriteBackOptions};
pub use usage::{ClientUsage, StoreUsage};
pub use weight::Weight;
pub use write_back::WriteBack;
