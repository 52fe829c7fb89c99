//! Peers' memory over sockets: nodes that lend, and a tier of the store that borrows.
//!
//! docs/protocol.md has the bytes, `tmem_cluster` what is computed from them. Threads block; there is no async runtime.
//!
//! | file | job |
//! |---|---|
//! | `stream` | bytes to a peer and back, plain or TLS 1.3 |
//! | `error` | what goes wrong between two peers |

mod error;
mod stream;

pub use error::PeerError;
pub use stream::{NameOf, Security, Stream};
