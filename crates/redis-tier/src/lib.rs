//! The Redis tier: copies of the store's extents, encrypted, in a Redis or Valkey server, or a cluster of them.
//!
//! A [`RedisTier`] is a [`Tier`](tmem_store::Tier). A copy is a hash, `<prefix>:<store>:<place>:<writing>`, with a field for each of its blocks that
//! is needed: reading a block is one `HGET`, a block that is needed no more goes with `HDEL`, and a copy is written, kept and removed whole.
//! Nothing but the writing number of a copy ever leads to it, so an old value is never taken for a new one, however late a command arrives.
//! Every key expires by itself; those of copies that are needed are told to live on long before. What is in the server is of no use to
//! anybody without the memory of the store that the key is in.
//!
//! A key for each block would take 25% more memory than the blocks, a hash for each extent takes 17%, a string for each extent 20%:
//! docs/redis.md.
//!
//! | file | job |
//! |---|---|
//! | `redis_tier` | the tier as the store sees it |
//! | `options`, `address`, `error` | which servers, and what can be wrong with that |
//! | `upkeep` | trying again, removing what is not needed, telling copies to live on |
//! | `writer` | the commands that write copies and remove them |
//! | `reader`, `outage` | blocks; how long a server that does not answer is waited for |
//! | `live` | which copies there are, and which of them have to be told to live on |
//! | `keys` | names of keys and fields; encryption |
//! | `connection`, `pool` | connections to one server or to a cluster, and those that wait for readers |
//! | `inspection` | whether a server can be trusted with pages |
//! | `trouble` | what its errors say |

mod address;
mod connection;
mod error;
mod inspection;
mod keys;
mod live;
mod options;
mod outage;
mod pool;
mod reader;
mod redis_tier;
mod trouble;
mod upkeep;
mod writer;

pub use address::ServerAddress;
pub use error::RedisTierError;
pub use options::{Password, RedisTierOptions, check_prefix};
pub use redis_tier::{RedisTier, RedisTierCounters};
