//! Peers' memory as a tier: what goes over the wire, where copies go, and what is known of them.
//!
//! Everything here is computation over what it is given: no sockets, no clocks, no threads. What a lender holds is in memory files. docs/design.md ("Peers") says why it is so,
//! docs/protocol.md has the bytes.
//!
//! | file | job |
//! |---|---|
//! | `wire` | frames and messages, to bytes and back |
//! | `placement` | which nodes get the copies of an extent |
//! | `ledger` | which copies there are, and what has to be done so that there are enough |
//! | `lender` | what a node holds for others |
//! | `ids` | names of nodes and of stretches of their lives |

// The tests' borrower speaks of the crate as those outside do.
#[cfg(test)]
extern crate self as tmem_cluster;

mod ids;
pub mod ledger;
pub mod lender;
pub mod placement;
pub mod wire;

pub use ids::{Epoch, NameError, NodeId, NodeName};
