//! Peers' memory over sockets: nodes that lend, and a tier of the store that borrows.
//!
//! docs/protocol.md has the bytes, `tmem_cluster` what is computed from them. Threads block; there is no async runtime.
//!
//! | file | job |
//! |---|---|
//! | `stream` | bytes to a peer and back, plain or TLS 1.3 |
//! | `greeting` | who is there: hellos, and what is checked in them |
//! | `borrowing` | peers' memory as a tier of the store |
//! | `lending` | this host's idle memory for others |
//! | `connection` | a borrower's connection to one lender |
//! | `polling` | looking for bytes a short while before sleeping |
//! | `clock` | milliseconds that only go forward |
//! | `bell` | something to sleep by that others can ring |
//! | `error` | what goes wrong between two peers |

mod bell;
mod borrowing;
mod clock;
mod connection;
mod error;
mod greeting;
mod lending;
mod polling;
mod stream;

pub use borrowing::{BorrowingStatus, Member, PeerState, PeerStatus, PeerTier, PeerTierOptions};
pub use error::PeerError;
pub use greeting::{Identity, say};
pub use lending::{
    BorrowerStatus, Forgotten, LendingCounts, LendingOptions, LendingServer, LendingStatus, NotForgotten,
};
pub use stream::{InWords, NameOf, Security, Stream};
pub use tmem_cluster::{
    lender::{FILE_PREFIX as LENT_PREFIX, Lender, LentBy, give_up},
    wire::Hello,
};
