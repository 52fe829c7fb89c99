//! The disk-file tier: copies of the store's extents, encrypted, in one file or block device.
//!
//! A [`FileTier`] is a [`Tier`](tmem_store::Tier). Behind a header of 4 KiB it has places of 33 sectors. A sector is 4080 bytes of an extent,
//! encrypted with AES-256-GCM, and the tag, so any block can be read and checked by itself. The key is the store's and never on the
//! disk; what is in the file is of no use to anybody without the memory that the key is in. All I/O is direct and goes through io_uring,
//! so a disk that hangs is noticed. All memory, some 6 MiB, is taken at the start: writing needs none when the host has none.
//!
//! [`CopyCipher`] and [`Health`] are for other tiers, too.
//!
//! | file | job |
//! |---|---|
//! | `file_tier` | the tier as the store sees it |
//! | `disk`, `header`, `error` | finding, checking and opening the file or device |
//! | `opener` | who opens its path |
//! | `health`, `trouble` | states, and the way back to ready |
//! | `writer` | batches: encrypted and written at the same time |
//! | `reader`, `lanes`, `windows` | blocks: many readers at once, read-ahead of neighbours |
//! | `discarded` | places that the file system may have back |
//! | `cipher`, `sectors`, `layout` | encryption; what is where |
//! | `mishap` | writes and reads that go wrong on purpose |
//! | `queue`, `buffer` | io_uring, with memory of its own and an end to waiting |

mod buffer;
mod cipher;
mod discarded;
mod disk;
mod error;
mod file_tier;
mod header;
mod health;
mod lanes;
mod layout;
mod mishap;
mod opener;
mod queue;
mod reader;
mod sectors;
mod trouble;
mod windows;
mod writer;

pub use cipher::{CopyCipher, TAG_BYTES};
pub use disk::TierOptions;
pub use error::FileTierError;
pub use file_tier::{FileTier, FileTierCounters};
pub use health::{Health, Trouble};
pub use layout::MIN_TIER_BYTES;
pub use opener::TierOpener;
