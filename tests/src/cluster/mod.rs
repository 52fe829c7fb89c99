//! Hosts that lend each other memory, and a client of one of them that knows what every page has to be.
//!
//! | file | job |
//! |---|---|
//! | `hosts` | daemons on hosts at one switch, each a node of one cluster |
//! | `etcd` | an etcd server on one of them |
//! | `traffic` | reads and writes, compared, with the longest that one took |

mod etcd;
mod hosts;
mod traffic;

pub use etcd::Etcd;
pub use hosts::{ClusterHosts, Membership};
pub use traffic::{Tally, Traffic};
