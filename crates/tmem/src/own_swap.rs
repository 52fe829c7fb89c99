//! Whether this host swaps to its own daemon, or may: it does as long as a disk is on ublk.
//!
//! Then the pool must go on growing when the host has nothing left, which is when it swaps.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

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

#[cfg(test)]
mod tests {
    use super::*;

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
