//! Who comes first at a page that is written in part.
//!
//! A write of part of a page is a get, a change and a put. If another write of the page came in between, the put would undo it outside
//! of its own bytes. So such a write holds the page's lock from its get to its put, and a write of the whole page holds it during its
//! put. Reads need it only where a page seems lost: in a full pool a put may give up what was there before it has room for what comes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tmem_store::PageIndex;

/// Locks, each for every so many-th page: neighbours have different ones.
const LOCKS: usize = 64;

/// The locks of a disk's pages.
#[derive(Debug)]
pub(crate) struct PageOrder([Mutex<()>; LOCKS]);

impl Default for PageOrder {
    fn default() -> Self {
        Self([const { Mutex::new(()) }; LOCKS])
    }
}

impl PageOrder {
    /// Holds one page.
    pub(crate) fn hold(&self, page: PageIndex) -> MutexGuard<'_, ()> {
        lock(&self.0[(page.0 % LOCKS as u64) as usize])
    }

    /// Holds all pages. Always in the same order, and whoever holds one page asks for no other, so nobody waits for each other.
    pub(crate) fn hold_all(&self) -> [MutexGuard<'_, ()>; LOCKS] {
        std::array::from_fn(|i| lock(&self.0[i]))
    }
}

/// There is nothing behind the lock that a panic could leave half done.
fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
