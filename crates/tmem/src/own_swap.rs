//! Whether this host swaps to its own daemon, or may: it does as long as a disk is on ublk.
//!
//! Then the pool must go on growing when the host has nothing left, which is when it swaps.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tmem_control::Frontend;

/// Disks on ublk, counted. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnSwap(Arc<AtomicU32>);

/// That there is one. Dropping it takes it off the count.
#[derive(Debug)]
pub(crate) struct OwnSwapDisk(OwnSwap);

impl OwnSwap {
    /// Whether there are any.
    pub(crate) fn is_possible(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// There is one more.
    pub(crate) fn add(&self) -> OwnSwapDisk {
        self.0.fetch_add(1, Ordering::Relaxed);
        OwnSwapDisk(self.clone())
    }
}

impl Drop for OwnSwapDisk {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Queues of the disks on ublk among these.
pub(crate) fn queues_of<'f>(frontends: impl Iterator<Item = &'f Frontend>) -> u16 {
    let queues = |frontend: &Frontend| match frontend {
        Frontend::Ublk { queues, .. } => queues.unwrap_or(1),
        Frontend::VhostUser { .. } | Frontend::Nbd(_) => 0,
    };
    frontends.map(queues).fold(0, u16::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_those_of_disks_on_ublk() {
        let ublk = |queues| Frontend::Ublk { queues, device: None };
        let other = Frontend::VhostUser { socket: "/run/a".into(), queues: 4 };
        assert_eq!(queues_of([ublk(Some(2)), other.clone(), ublk(None)].iter()), 3);
        assert_eq!(queues_of([other].iter()), 0);
        assert_eq!(queues_of([ublk(Some(u16::MAX)), ublk(Some(4))].iter()), u16::MAX);
    }

    #[test]
    fn it_is_possible_while_there_is_a_disk() {
        let own_swap = OwnSwap::default();
        let (one, two) = (own_swap.add(), own_swap.clone().add());
        drop(one);
        assert!(own_swap.is_possible());
        drop(two);
        assert!(!own_swap.is_possible());
    }
}
