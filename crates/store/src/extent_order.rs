//! The order in which sealed extents wait to be recompressed: the one that has been still for longest first.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    extents::ExtentId,
    zeroed::{find_memory_of, zeroed},
};

/// From this many names on, and each time it has doubled, the order is rid of extents that do not wait any more.
const LONG_ORDER: usize = 1024;

/// May name extents that were given back since; whoever takes one looks.
#[derive(Debug)]
pub(crate) struct ExtentOrder {
    waiting: Mutex<VecDeque<Waiting>>,
    /// How often each extent has begun to wait: only its last place in the order counts.
    turns: Box<[AtomicU32]>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    extent: ExtentId,
    turn: u32,
    since_ms: u64,
}

impl ExtentOrder {
    pub(crate) fn new(extents: u32) -> Self {
        Self { waiting: Mutex::default(), turns: zeroed(extents as usize) }
    }

    /// Has the OS find the memory of what is to be known of an extent.
    pub(crate) fn find_memory(&self, extent: ExtentId) {
        find_memory_of(&self.turns[extent.0 as usize]);
    }

    /// An extent begins to wait, or begins anew. `is_wanted` says which extents still belong here.
    pub(crate) fn push(&self, extent: ExtentId, now_ms: u64, is_wanted: impl Fn(ExtentId) -> bool) {
        let mut waiting = self.lock();
        let turn = self.turns[extent.0 as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if waiting.len() >= LONG_ORDER && waiting.len().is_power_of_two() {
            waiting.retain(|other| self.counts(other) && is_wanted(other.extent));
        }
        waiting.push_back(Waiting { extent, turn, since_ms: now_ms });
    }

    /// Puts an extent back that was taken, as the first again.
    pub(crate) fn put_back(&self, extent: ExtentId, since_ms: u64) {
        let mut waiting = self.lock();
        let turn = self.turns[extent.0 as usize].fetch_add(1, Ordering::Relaxed) + 1;
        waiting.push_front(Waiting { extent, turn, since_ms });
    }

    /// Takes the first of such extents; gives also since when it has waited.
    pub(crate) fn take_first(&self, which: impl Fn(ExtentId) -> bool) -> Option<(ExtentId, u64)> {
        let mut waiting = self.lock();
        let at = waiting.iter().position(|waiting| which(waiting.extent) && self.counts(waiting))?;
        waiting.remove(at).map(|first| (first.extent, first.since_ms))
    }

    /// Takes the extent that has waited longest, if it has waited since `until_ms`; gives also since when.
    pub(crate) fn pop(&self, until_ms: u64) -> Option<(ExtentId, u64)> {
        let mut waiting = self.lock();
        while let Some(first) = waiting.front().copied() {
            let counts = self.counts(&first);
            if counts && first.since_ms > until_ms {
                return None;
            }
            waiting.pop_front();
            if counts {
                return Some((first.extent, first.since_ms));
            }
        }
        None
    }

    /// Names in the order, some of which may not count.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn counts(&self, waiting: &Waiting) -> bool {
        self.turns[waiting.extent.0 as usize].load(Ordering::Relaxed) == waiting.turn
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waiting_comes_first_and_only_once() {
        let order = ExtentOrder::new(10);
        for (extent, now_ms) in [(3, 0), (4, 10), (3, 20), (5, 30)] {
            order.push(ExtentId(extent), now_ms, |_| true);
        }
        assert_eq!(order.pop(9), None);
        assert_eq!(order.pop(25), Some((ExtentId(4), 10)));
        assert_eq!(order.pop(25), Some((ExtentId(3), 20)));
        assert_eq!((order.pop(25), order.pop(30), order.pop(99)), (None, Some((ExtentId(5), 30)), None));
    }

    #[test]
    fn a_long_order_forgets_what_does_not_wait() {
        let order = ExtentOrder::new(10);
        (0..100_000).for_each(|i| order.push(ExtentId(i % 10), 0, |extent| extent.0 != 3));
        assert!(order.len() <= LONG_ORDER, "{}", order.len());
        let left = std::iter::from_fn(|| order.pop(0)).count();
        assert!((9..=10).contains(&left));
    }
}
