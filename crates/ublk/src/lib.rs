//! The ublk frontend of tmem: a disk as a block device of this very host, `/dev/ublkbN`, above all as its own swap.
//!
//! The kernel's driver (`ublk_drv`, Linux 6.0 and later) hands each request of the block device to a thread here, through
//! io_uring. A device has a queue for each CPU, and each queue a thread of its own.
//!
//! | file | job |
//! |---|---|
//! | `frontend`, `options` | a device from its birth to its end |
//! | `control`, `abi`, `parameters` | the driver's control commands, and how a disk is described to it |
//! | `queue`, `ring`, `buffers` | a queue's thread: fetches requests, polls, sleeps |
//! | `request`, `execute` | from a request of the driver's to puts, gets and flushes |
//! | `process`, `io_flusher`, `locked_memory`, `heap`, `oom` | what keeps a host from waiting for itself when it swaps to its own daemon |
//! | `stand_by` | a process that is ready to follow one that serves swap |
//! | `left_devices`, `lost_pages` | devices whose daemon died: who takes them over, and what is lost |
//! | `in_use` | whether a device is swap or mounted |
//! | `swap_off` | the process that turns it off |
//!
//! **Who serves swap must not wait for swap.** When the host runs out of memory, the kernel writes pages to this device and
//! counts on its answers to get memory back. So the threads of the I/O path allocate nothing, log nothing, touch only memory that
//! is there and locked, and have told the kernel (`PR_SET_IO_FLUSHER`) that what they allocate in it must not wait for I/O.
//! The store's part is that a put takes memory which was found ahead of it, or is refused at once.

mod abi;
mod buffers;
mod control;
mod error;
mod execute;
mod frontend;
mod heap;
mod in_use;
mod io_flusher;
mod left_devices;
mod locked_memory;
mod lost_pages;
mod oom;
mod options;
mod parameters;
mod process;
mod queue;
mod request;
mod ring;
mod stand_by;
mod swap_off;

pub use control::is_available;
pub use error::UblkError;
pub use frontend::UblkFrontend;
pub use left_devices::end_left_devices;
pub use options::UblkOptions;
pub use process::{is_prepared, prepare_ordinary_process, prepare_process};
pub use stand_by::{Reserve, stand_by};
