//! What the transports of tmem have in common, and no disk knows of.
//!
//! | file | job |
//! |---|---|
//! | `socket_file`, `error` | listening sockets and their files |
//! | `poll`, `poll_limit` | when a thread polls for requests and when it sleeps |
//! | `log_limit` | keeps a peer from filling the log |
//! | `thread_name` | names of threads |
//! | `vigil` | which thread has been at a request for how long |

mod error;
mod log_limit;
mod poll;
mod poll_limit;
mod socket_file;
pub mod thread_name;
pub mod vigil;

pub use error::SocketError;
pub use log_limit::LogLimit;
pub use poll::PollPolicy;
pub use poll_limit::{DEFAULT_POLL_LIMIT_US, PollLimit};
pub use socket_file::{DEFAULT_SOCKET_MODE, SocketFile};
