//! What is to be said, in order. Whoever finds nobody sending sends, until nothing is left.

use std::{
    io,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tmem_cluster::wire::{Encoder, WireError};

use crate::stream::Stream;

/// With so much waiting to be sent, in bytes, whoever has a lot to say waits: two of the largest frames.
const MOST_BYTES: usize = 4 << 20;

/// A buffer larger than this is given back when it has been sent, in bytes.
const KEPT_BYTES: usize = 256 << 10;

/// How often those who wait for room look whether the connection still is.
const LOOK_UP: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// How long it is, for those who only want to know that. Set under its lock.
    queued_bytes: AtomicUsize,
    /// Rung when less is waiting.
    sent: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// For whoever sends, empty.
    spare: Vec<u8>,
    is_sending: bool,
}

impl Outbox {
    /// Adds a frame.
    pub(super) fn add(
        &self,
        frame: impl FnOnce(&mut Encoder<'_>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let mut queue = self.lock();
        let added = frame(&mut Encoder::new(&mut queue.bytes));
        self.queued_bytes.store(queue.bytes.len(), Relaxed);
        added
    }

    /// What was added and is not being sent, in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Relaxed)
    }

    /// Sends what was added. If somebody else is sending already, that one does.
    pub(super) fn send(&self, stream: &Stream) -> io::Result<()> {
        let mut queue = self.lock();
        if queue.is_sending {
            return Ok(());
        }
        queue.is_sending = true;
        let mut sent = Ok(());
        while sent.is_ok() && !queue.bytes.is_empty() {
            let spare = std::mem::take(&mut queue.spare);
            let mut bytes = std::mem::replace(&mut queue.bytes, spare);
            self.queued_bytes.store(0, Relaxed);
            drop(queue);
            sent = stream.send(&bytes);
            bytes.clear();
            bytes.shrink_to(KEPT_BYTES);
            self.sent.notify_all();
            queue = self.lock();
            queue.spare = bytes;
        }
        // After an error nobody sends any more: the peer would take it for the rest of what was cut off.
        queue.is_sending = sent.is_err();
        sent
    }

    /// Waits until not too much is waiting to be sent, or `is_over`.
    pub(super) fn wait_for_room(&self, is_over: impl Fn() -> bool) {
        let mut queue = self.lock();
        while queue.bytes.len() > MOST_BYTES && !is_over() {
            queue = self.sent.wait_timeout(queue, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn wake(&self) {
        self.sent.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
