//! The swap disk: a thin block device whose blocks are pages of one persistent pool.
//!
//! Block requests become puts, gets and flushes: a written block is put, a read block is fetched (or reads as zeroes if nothing
//! was ever written there), a discarded block is flushed. All transports serve their clients through [`SwapDisk`].

mod bytes;
mod error;
mod page_order;
mod pieces;
mod segment;
mod swap_disk;
mod swap_header;
#[cfg(test)]
mod tests;

pub use bytes::{Extent, Zeroes};
pub use error::{DiskError, IoError};
pub use segment::Segment;
pub use swap_disk::{BLOCK_BYTES, DiskOptions, Format, SwapDisk};
pub use tmem_store::Stored;
