//! The keeper: a small process that holds whatever must outlive the one that serves, and starts that one again when it dies.
//!
//! It holds memory files and listening sockets by name, and the control connections of vhost-user guests, whose messages it passes on. It
//! remembers those messages that make up a session, so that it can tell them to the next worker: guests never learn that there was
//! another. What the files contain and what is asked of a disk is none of its business.
//!
//! | file | job |
//! |---|---|
//! | `keeper`, `patience`, `hired`, `spare`, `process`, `restarts`, `signals` | starts workers, watches them, puts another in the place of one that is gone |
//! | `upgrading` | what has become of a program that was to take over |
//! | `post_mortem` | where the threads of a hung worker are |
//! | `log_lines`, `own_memory` | what is said without asking for memory, and memory that stays |
//! | `holder` | what is held, and what a worker may ask for |
//! | `parcel`, `fd_store` | the same with the service manager, for the keeper's own death |
//! | `manager` | how that is told anything |
//! | `errands`, `sockets` | what takes paths and privileges: listening sockets, and opening the tier |
//! | `relay`, `channel` | passes the messages of one guest on |
//! | `session`, `replay`, `vhost_user` | what a guest's session consists of |
//! | `descriptors` | bytes with descriptors over a socket, for both |
//! | `wire`, `client` | what keeper and worker say to each other, and the worker's end of it |
//! | `estate` | what a worker was left by the one before, until somebody wants it |
//! | `in_process` | the same without processes, for programs that need only the relay |
//!
//! **It must not fail.** All memory is taken at the start: tables have fixed sizes, and what does not fit is refused, to the guest or the worker that
//! asked. A test counts allocations. Nothing that a guest or a worker sends is trusted.

mod channel;
mod client;
mod descriptors;
mod errands;
mod estate;
mod fd_store;
mod hired;
mod holder;
mod in_process;
mod keeper;
mod log_lines;
mod manager;
mod own_memory;
mod parcel;
mod post_mortem;
mod process;
mod relay;
mod replay;
mod restarts;
mod session;
mod signals;
mod sockets;
mod spare;
mod upgrading;
mod vhost_user;
mod wire;

pub use client::{Bound, Client, GuestEnds, Inventory, KeptConnection};
pub use estate::{Estate, socket_name};
pub use fd_store::is_heir;
pub use holder::{MAX_CONNECTIONS, MAX_FILES};
pub use in_process::in_process;
pub use keeper::{Keeper, KeeperError, KeeperOptions};
pub use manager::{Busy, Manager};
pub use process::{Program, SOCKET_VARIABLE};
pub use sockets::MAX_SOCKET_PATH_BYTES;
pub use upgrading::Upgrading;
pub use wire::MAX_NAME_BYTES;
