//! Copies for peers of what the other tier writes meanwhile. A thread of their own sends them, so that a peer that takes long holds up nobody: what it has
//! not got is repaired.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use super::{borrower::Borrower, packed::Packed};

/// Hands one batch after the other to the thread.
#[derive(Default)]
pub(super) struct Copier {
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Default)]
struct Desk {
    batch: Option<Vec<Packed<'static>>>,
    /// From when a batch is given until all that peers say of it was heard.
    is_busy: bool,
    is_over: bool,
}

/// Starts the thread.
pub(super) fn start(borrower: &Arc<Borrower>) -> io::Result<JoinHandle<()>> {
    let borrower = Arc::clone(borrower);
    std::thread::Builder::new().name("peer-copies".to_owned()).spawn(move || {
        while let Some(batch) = borrower.copier.take() {
            borrower.send_once(&batch);
            borrower.copier.done();
        }
    })
}

impl Copier {
    /// Gives the thread a batch, unless it is at the one before. Gives whether it did.
    pub(super) fn give(&self, batch: impl FnOnce() -> Option<Vec<Packed<'static>>>) -> bool {
        // One thread gives.
        if self.lock().is_busy {
            return false;
        }
        let Some(batch) = batch() else { return false };
        let mut desk = self.lock();
        (desk.batch, desk.is_busy) = (Some(batch), true);
        self.changed.notify_all();
        true
    }

    /// Waits until the thread has heard all of the batch, so long at most.
    pub(super) fn wait(&self, most: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), most, |desk| desk.is_busy && !desk.is_over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// The next batch. `None`: it is over.
    fn take(&self) -> Option<Vec<Packed<'static>>> {
        let waiting = |desk: &mut Desk| desk.batch.is_none() && !desk.is_over;
        let desk = self.changed.wait_while(self.lock(), waiting);
        desk.unwrap_or_else(PoisonError::into_inner).batch.take()
    }

    fn done(&self) {
        self.lock().is_busy = false;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
