//! The vhost-user-blk frontend of tmem: a guest's swap disk on a Unix socket.
//!
//! A hypervisor (QEMU, Cloud Hypervisor, user-mode Linux, …) connects to the socket, shares the guest's
//! memory and the rings of a virtio-blk device, and the guest's requests are carried out on a
//! [`SwapDisk`](tmem_disk::SwapDisk) straight from and to the guest's memory.
//!
//! | file | job |
//! |---|---|
//! | `frontend`, `connection` | who may connect, one guest after another |
//! | `private_pair` | the library's end of the control messages, which the keeper passes on |
//! | `device`, `config_space` | what the guest is offered |
//! | `vring`, `worker` | when a queue's thread works, polls and sleeps |
//! | `lost_memory` | what happens when a peer takes memory away that it shared |
//! | `queue`, `request`, `execute` | from a ring's entries to puts and gets |
//!
//! Threads, for a disk called `a`: `vhost-a` listens; with a guest come `vhost-a-ctl` for the
//! control messages and one `vhost-a-q0`, `-q1`, … per queue. None runs while the guest asks for nothing.
//!
//! Nothing that a guest puts into its rings or a peer sends over the socket is trusted: it leads to an error
//! status, a queue that is no longer served, or a closed connection, with a line in the log. So does memory
//! that a peer takes away after it has shared it.

mod coalescing;
mod config_space;
mod connection;
mod counters;
mod device;
mod error;
mod execute;
mod frontend;
mod lost_memory;
mod options;
mod private_pair;
mod queue;
mod request;
mod vring;
mod worker;

pub use counters::{Counters, VhostCounts};
pub use error::VhostError;
pub use frontend::VhostFrontend;
pub use options::{DEFAULT_QUEUE_SIZE, DEFAULT_QUEUES, VhostOptions};
pub use queue::{BrokenQueue, QueueServer, RequestRoom, Served, needs_signal};
