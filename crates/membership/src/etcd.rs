//! Who is there, as etcd has it.
//!
//! Each node keeps a key with its address as long as it keeps a lease alive, and watches the others'. A second key, without a lease, says
//! which epoch it reached at last. Discovery goes through etcd, not data: while it is away nothing changes.
//!
//! | file | job |
//! |---|---|
//! | `settings` | where etcd is, and how it is spoken to |
//! | `tls` | whom to believe that it is etcd, and as whom it knows this host |
//! | `login` | a user of etcd's |
//! | `server` | one of etcd's addresses: connections to it, and what its answers mean |
//! | `words` | what it means when it does not do as it should, and the way out |
//! | `probe` | a handshake to find out why TLS fails |
//! | `keys` | what the keys are called |
//! | `records` | what is in them |
//! | `claim` | whether a name may be taken, and in which epoch |
//! | `snapshot` | all keys, and the view that they make |
//! | `pace` | how often a node says what it has to lend |
//! | `session` | one connection: lease, registration, watch |
//! | `keeper` | sessions one after the other, in a thread |
//! | `ended` | why a session ended |
//! | `said` | which troubles the log has already |

mod claim;
mod ended;
mod keeper;
mod keys;
mod login;
mod pace;
mod probe;
mod records;
mod said;
mod server;
mod session;
mod settings;
mod snapshot;
mod tls;
mod words;

pub(crate) use keeper::{Callbacks, Keeper, Shared, Stop};
pub use settings::{DEFAULT_LEASE, EtcdSettings};
pub use tls::EtcdTls;
