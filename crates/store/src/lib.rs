//! The page store: where pages live.
//!
//! A [`Store`] has clients, a [`Client`] has pools, a [`Pool`] has pages. Putting a page compresses it into a block of the arena
//! and enters the block in the pool's index; getting it checks the block and unpacks it straight into the caller's memory.
//! Arena and indexes are memory files that hold offsets, never pointers. There are no sockets here and no threads.
//!
//! From the top: [`store`](Store), client, pool; below them the index (directory, entry) and the arena (extents, slots,
//! classes, block), the codec, and the budget that keeps all of it under one limit. Sharing of equal pages gets its own kind of
//! index entry, recompression its own codec number.

mod account;
mod arena;
mod block;
mod budget;
mod classes;
mod client;
mod codec;
mod counters;
mod directory;
mod engine;
mod entry;
mod error;
mod extents;
mod ids;
mod index;
mod memory_file;
mod page;
mod pool;
mod slots;
mod store;
mod sync;
mod usage;
mod zeroed;

#[cfg(all(test, not(loom)))]
mod tests;

pub use client::{Client, ClientKind, ClientOptions};
pub use error::{GetError, PutError, StoreError};
pub use ids::{ObjectId, PageIndex, PoolId};
pub use page::{PAGE_BYTES, PageSource, PageTarget};
pub use pool::{Got, Keys, Persistence, Pool};
pub use store::{Store, StoreOptions};
pub use usage::{ClientUsage, StoreUsage};
