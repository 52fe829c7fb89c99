//! What a ublk frontend can be told.

use tmem_transport::PollLimit;

use crate::error::UblkError;

/// Requests that a queue has at once, at most. Swap writes as many as it can; each has its buffer, locked in memory.
pub(crate) const QUEUE_DEPTH: u16 = 64;

/// The longest request, in bytes: what swap reads ahead at a time, by default. With [`QUEUE_DEPTH`] that makes 2 MiB of buffers a
/// queue.
pub(crate) const MAX_REQUEST_BYTES: u32 = 32 << 10;

/// As many as the driver takes.
const MAX_QUEUES: u16 = 4096;

/// What a device offers.
#[derive(Clone, Debug, Default)]
pub struct UblkOptions {
    /// Queues, 1 to 4096, each with a thread and 2 MiB of buffers. None: one for each CPU. The driver makes no more than that.
    pub queues: Option<u16>,
    /// Which daemon makes it: one that dies leaves its devices to the next with the same text here. Its runtime directory, say.
    pub owner: String,
    /// The process before this one has left the disk's pages, not the device alone.
    pub pages_are_left: bool,
    /// Limit of adaptive polling.
    pub poll_limit: PollLimit,
}

impl UblkOptions {
    /// How many queues to ask for.
    pub(crate) fn queues(&self) -> Result<u16, UblkError> {
        match self.queues {
            Some(queues) if (1..=MAX_QUEUES).contains(&queues) => Ok(queues),
            Some(queues) => Err(UblkError::Queues { queues, max: MAX_QUEUES }),
            None => {
                let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                Ok(u16::try_from(cpus).unwrap_or(MAX_QUEUES).min(MAX_QUEUES))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_impossible_queues() {
        let with = |queues| UblkOptions { queues, ..UblkOptions::default() }.queues();
        assert!(matches!(with(Some(0)), Err(UblkError::Queues { queues: 0, .. })));
        assert!(matches!(with(Some(4097)), Err(UblkError::Queues { .. })));
        assert_eq!((with(Some(1)).unwrap(), with(Some(4096)).unwrap()), (1, 4096));
        assert!(with(None).unwrap() >= 1);
    }
}
