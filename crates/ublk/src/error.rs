//! Why a device could not be made.

use std::io;

/// Why a disk could not become a block device of this host. Once it is one, no request is an error of ours.
#[derive(Debug, thiserror::Error)]
pub enum UblkError {
    /// The kernel has no ublk, or its module is not loaded.
    #[error(
        "this kernel has no ublk (there is no /dev/ublk-control): load its module with `modprobe ublk_drv` (Linux 6.0 or later \
         with CONFIG_BLK_DEV_UBLK), or export the disk with --nbd and attach it with nbd-client"
    )]
    NoDriver,
    /// The driver is there, but not for us.
    #[error("cannot use /dev/ublk-control: {error}; run the daemon as root, or with CAP_SYS_ADMIN")]
    NotAllowed {
        /// What the system said.
        error: io::Error,
    },
    /// The number of queues is out of range.
    #[error("{queues} queues are not possible: choose 1 to {max}, or leave it to the number of CPUs")]
    Queues {
        /// What was asked for.
        queues: u16,
        /// The most there can be.
        max: u16,
    },
    /// The driver refused a command.
    #[error("the kernel's ublk driver refused to {what}: {error}; `dmesg` may say more")]
    Command {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// A device of the driver's could not be opened.
    #[error("cannot open {path}: {error}; is /dev a devtmpfs, or udev running?")]
    Open {
        /// The device.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// A thread could not tell the kernel that it serves I/O, or the kernel did not take it in.
    #[error(
        "cannot become an I/O flusher (PR_SET_IO_FLUSHER): {error}; a daemon that serves swap needs CAP_SYS_RESOURCE (root has it), \
         or the host could wait for itself"
    )]
    NotIoFlusher {
        /// What the system said.
        error: io::Error,
    },
    /// A thread of the daemon is not an I/O flusher.
    #[error(
        "the daemon's thread {thread} is not an I/O flusher, because ublk was not there when the daemon started; start the daemon \
         again"
    )]
    ThreadNotIoFlusher {
        /// The thread's name.
        thread: String,
    },
    /// The daemon's memory could not be locked.
    #[error(
        "cannot lock the daemon's memory (mlockall): {error}; a daemon that serves swap needs CAP_IPC_LOCK (root has it), or the \
         kernel could swap it out to itself"
    )]
    NotLocked {
        /// What the system said.
        error: io::Error,
    },
    /// The process that turns swap off could not be started.
    #[error(
        "cannot start the process that turns swap off: {error}; see the limits on processes and descriptors"
    )]
    Helper {
        /// What the system said.
        error: io::Error,
    },
    /// There is no memory for a queue.
    #[error("cannot get memory for a queue: {error}; free some, or give fewer queues")]
    Memory {
        /// What the system said.
        error: io::Error,
    },
    /// A queue's io_uring could not be made.
    #[error(
        "cannot make an io_uring: {error}; see the sysctl kernel.io_uring_disabled and the limit on descriptors"
    )]
    Ring {
        /// What the system said.
        error: io::Error,
    },
    /// A queue's thread could not be started, or ended at once.
    #[error("cannot start a queue's thread: {error}; check the limits on processes")]
    Thread {
        /// What the system said.
        error: io::Error,
    },
}
