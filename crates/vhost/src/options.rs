//! What a vhost-user frontend can be told.

use std::path::PathBuf;
use std::sync::Arc;

use tmem_keeper::Estate;
use tmem_transport::{DEFAULT_SOCKET_MODE, PollLimit};

use crate::error::VhostError;

/// Queues offered when nobody says otherwise. A guest uses one per CPU at most; a queue nobody uses costs
/// one sleeping thread.
pub const DEFAULT_QUEUES: u16 = 4;

/// Entries per queue when nobody says otherwise.
pub const DEFAULT_QUEUE_SIZE: u16 = 256;

/// The worker threads' queue masks have 64 bits.
const MAX_QUEUES: u16 = 64;
/// A request needs three descriptors where the guest uses no indirect ones.
const MIN_QUEUE_SIZE: u16 = 4;
/// What QEMU accepts at most.
const MAX_QUEUE_SIZE: u16 = 1024;

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
    /// What the process before this one left: the socket, and the guest.
    pub estate: Arc<Estate>,
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
            estate: Arc::default(),
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
}
