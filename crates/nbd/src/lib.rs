//! The NBD frontend of tmem: swap disks as exports of an NBD server, on Unix sockets and TCP.
//!
//! The protocol is that of <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, fixed newstyle only, with structured
//! replies, extended headers (its branch `extension-ext-header`), block status and TLS.
//!
//! | file | job |
//! |---|---|
//! | `server`, `listener`, `address` | which disk is exported where, and who may connect |
//! | `exports`, `attendance`, `places` | the disks of a listener, the connections that use them, and how many there may be |
//! | `connection` | one connection, from the first byte to the last |
//! | `handshake`, `option` | what the client asks for before it gets an export |
//! | `transmission`, `execute` | requests: read, carried out, answered |
//! | `request`, `reply`, `buffer`, `protocol` | the bytes of both |
//! | `link`, `socket`, `tls` | how bytes come and go |
//!
//! Threads: `nbd-listen` for each address; one for each connection, `nbd-DISK` once it has chosen its export. None runs while clients
//! ask for nothing.
//!
//! Nothing that a client sends is trusted: it leads to an error reply or a closed connection, with a line in the log. How much memory a
//! connection takes does not depend on what the client sends, because payloads go through buffers of fixed size.

mod address;
mod attendance;
mod buffer;
mod connection;
mod counters;
mod error;
mod execute;
mod exports;
mod handshake;
mod link;
mod listener;
mod option;
mod places;
mod protocol;
mod reply;
mod request;
mod server;
mod socket;
mod tls;
mod transmission;

pub use address::NbdAddress;
pub use connection::{Start, serve_link};
pub use counters::NbdCounts;
pub use error::NbdError;
pub use exports::Exports;
pub use handshake::{Headers, Security};
pub use link::{Link, Wait};
pub use server::{Closed, NbdExport, NbdOptions, NbdServer};
pub use tls::{TlsFiles, TlsIdentity};
