//! One peer, as the threads that use it share it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use tmem_cluster::{NodeId, NodeName};

use super::round_trips::RoundTrips;
use crate::bell::Bell;

/// Dead stretches that a peer has yet to be told of, at most. It need not hear of all: what is beyond this stays until its extent goes.
const MOST_RELEASED: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: NodeName,
    pub(super) id: NodeId,
    /// Rung when there is something to do for its thread.
    pub(super) bell: Bell,
    /// It is no member any more.
    pub(super) is_over: AtomicBool,
    pub(super) trips: RoundTrips,
    /// Requests to read that are under way.
    pub(super) reads: AtomicU32,
    /// What it did not answer as it should.
    pub(super) errors: AtomicU64,
    trouble: Mutex<Option<String>>,
    released: Mutex<Released>,
}

/// Stretches that died, in bytes, by place and writing.
#[derive(Debug, Default)]
pub(super) struct Released {
    pub(super) dead: BTreeMap<(u32, u64), Vec<(u32, u32)>>,
    count: usize,
}

impl Peer {
    pub(super) fn new(name: NodeName) -> Self {
        Self {
            name,
            id: name.node_id(),
            bell: Bell::default(),
            is_over: AtomicBool::new(false),
            trips: RoundTrips::default(),
            reads: AtomicU32::new(0),
            errors: AtomicU64::new(0),
            trouble: Mutex::new(Some("not connected yet".to_owned())),
            released: Mutex::default(),
        }
    }

    /// What a read costs there, as far as is known, when so many others are about to be asked for: the less, the better.
    pub(super) fn cost(&self, others: usize) -> u64 {
        u64::from(self.trips.usual_us()) * (1 + u64::from(self.reads.load(Relaxed)) + others as u64)
    }

    /// The last thing that went wrong, if it still matters.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone()
    }

    /// What goes wrong from now on, or that nothing does. It is logged when it is new.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        let mut known = self.lock_trouble();
        if *known == trouble {
            return;
        }
        match &trouble {
            Some(trouble) => log::warn!("peer {}: {trouble}", self.name),
            None => log::info!("peer {}: connected", self.name),
        }
        *known = trouble;
    }

    /// A stretch of a copy that it has died.
    pub(super) fn release(&self, copy: (u32, u64), stretch: (u32, u32)) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        if released.count < MOST_RELEASED {
            released.count += 1;
            released.dead.entry(copy).or_default().push(stretch);
        }
    }

    /// What was taken could not be said.
    pub(super) fn release_again(&self, taken: Released) {
        for (copy, stretches) in taken.dead {
            stretches.into_iter().for_each(|stretch| self.release(copy, stretch));
        }
    }

    pub(super) fn take_released(&self) -> Released {
        std::mem::take(&mut *self.released.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
