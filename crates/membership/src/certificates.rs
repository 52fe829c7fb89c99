//! An authority for the cluster, a certificate for each node, and TLS with them.
//!
//! Every certificate is for one name, and serves a node as lender and as borrower. Nothing but the cluster's own authority is believed, and
//! nothing but TLS 1.3 is spoken.

mod authority;
mod explain;
mod names;
mod tls;

pub(crate) use authority::Authority;
pub use explain::{explain, in_words};
pub(crate) use names::check_name;
pub use names::{peer_name, server_name};
pub(crate) use tls::{TlsFiles, fit};
pub use tls::{days_left, tls_configs};

#[cfg(test)]
mod tests;
