//! What a vhost-user frontend can be told.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::VhostError;

/// Queues offered when nobody says otherwise. A guest uses one per CPU at most; a queue nobody uses costs
/// one sleeping thread.
pub const DEFAULT_QUEUES: u16 = 4;

/// Entries per queue when nobody says otherwise.
pub const DEFAULT_QUEUE_SIZE: u16 = 256;

/// Poll limit when nobody says otherwise, in microseconds. A guest that swaps faults again after about a
/// hundred microseconds, and waking a sleeping thread costs 55 to 70.
pub const DEFAULT_POLL_LIMIT_US: u32 = 1000;

/// Mode of the socket file when nobody says otherwise: only the daemon's own user may connect. A hypervisor
/// that runs as another user (libvirt's QEMU does) needs a wider one, together with a directory that lets
/// the right group in.
pub const DEFAULT_SOCKET_MODE: u32 = 0o600;

/// The worker threads' queue masks have 64 bits.
const MAX_QUEUES: u16 = 64;
/// A request needs three descriptors where the guest uses no indirect ones.
const MIN_QUEUE_SIZE: u16 = 4;
/// What QEMU accepts at most.
const MAX_QUEUE_SIZE: u16 = 1024;

/// How long a queue's thread goes on looking for requests before it sleeps, at most, in microseconds.
/// 0 = never. Clones share one value, and it may change while guests run.
#[derive(Clone, Debug)]
pub struct PollLimit(pub Arc<AtomicU32>);

impl PollLimit {
    /// A limit of its own, shared with nobody yet.
    pub fn from_us(limit_us: u32) -> PollLimit {
        PollLimit(Arc::new(AtomicU32::new(limit_us)))
    }

    /// The limit now, in microseconds.
    pub fn us(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Changes the limit for every frontend that shares it.
    pub fn set_us(&self, limit_us: u32) {
        self.0.store(limit_us, Ordering::Relaxed);
    }
}

impl Default for PollLimit {
    fn default() -> PollLimit {
        PollLimit::from_us(DEFAULT_POLL_LIMIT_US)
    }
}

/// Where a frontend listens and what it offers.
#[derive(Clone, Debug)]
pub struct VhostOptions {
    /// Path of the socket to make.
    pub socket: PathBuf,
    /// Queues offered to the guest, 1 to 64.
    pub queues: u16,
    /// Entries per queue: a power of two, 4 to 1024.
    pub queue_size: u16,
    /// Limit of adaptive polling.
    pub poll_limit: PollLimit,
    /// Permission bits of the socket file.
    pub socket_mode: u32,
}

impl VhostOptions {
    /// The defaults, for a socket at this path.
    pub fn new(socket: impl Into<PathBuf>) -> VhostOptions {
        VhostOptions {
            socket: socket.into(),
            queues: DEFAULT_QUEUES,
            queue_size: DEFAULT_QUEUE_SIZE,
            poll_limit: PollLimit::default(),
            socket_mode: DEFAULT_SOCKET_MODE,
        }
    }

    /// Refuses numbers that the device could not work with.
    pub(crate) fn check(&self) -> Result<(), VhostError> {
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return Err(VhostError::Queues { queues: self.queues, max: MAX_QUEUES });
        }
        let size = self.queue_size;
        if !(MIN_QUEUE_SIZE..=MAX_QUEUE_SIZE).contains(&size) || !size.is_power_of_two() {
            return Err(VhostError::QueueSize { size, min: MIN_QUEUE_SIZE, max: MAX_QUEUE_SIZE });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_impossible_queues() {
        let with =
            |queues, queue_size| VhostOptions { queues, queue_size, ..VhostOptions::new("/s") }.check();
        assert!(with(1, 4).is_ok());
        assert!(with(64, 1024).is_ok());
        for (queues, size) in [(0, 256), (65, 256), (4, 0), (4, 2), (4, 100), (4, 2048)] {
            assert!(with(queues, size).is_err(), "{queues} queues of {size}");
        }
    }

    #[test]
    fn clones_share_the_poll_limit() {
        let limit = PollLimit::from_us(5);
        limit.clone().set_us(7);
        assert_eq!(limit.us(), 7);
    }
}
