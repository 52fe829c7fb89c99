//! Waiting for the background thread, but not for what it waits for.
//!
//! A put that needs room may have to wait until the background thread is through with an extent. The thread touches memory meanwhile, of
//! its stack if nothing else, and may have to wait until the OS finds it; and the OS may be waiting for this very put, if it swaps to
//! this store. So a put's patience ends.

use std::{
    sync::{Mutex, MutexGuard, TryLockError},
    thread,
    time::{Duration, Instant},
};

/// An extent takes tens of microseconds, a turn with 32 of them some milliseconds. A busy disk takes as long as this for a write.
const PATIENCE: Duration = Duration::from_millis(50);

/// So often the CPU is handed on first, in case that the holder waits for it.
const YIELDS: u32 = 32;
const BETWEEN_TRIES: Duration = Duration::from_micros(50);

/// The lock, if it is to be had within 50 ms or so. What it guards is whole between any two operations.
pub(crate) fn lock_patiently<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let start = Instant::now();
    for tries in 0.. {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if start.elapsed() >= PATIENCE => return None,
            Err(TryLockError::WouldBlock) if tries < YIELDS => thread::yield_now(),
            Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN_TRIES),
        }
    }
    None
}

/// The most of its stack that the background thread uses, with room to spare, in bytes.
const STACK_BYTES: usize = 128 << 10;

/// Has the OS find the memory of the calling thread's stack, before it takes a lock that a put may wait for.
#[inline(never)]
pub(crate) fn touch_stack() {
    let mut stack = [0u8; STACK_BYTES];
    std::hint::black_box(&mut stack);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_a_put_does_not_wait_for_a_lock_for_ever() {
        let mutex = Mutex::new(7);
        assert_eq!(lock_patiently(&mutex).map(|guard| *guard), Some(7));
        let held = mutex.lock().unwrap();
        thread::scope(|scope| {
            // It returns while the lock is held, or this test never ends.
            assert!(scope.spawn(|| lock_patiently(&mutex).is_none()).join().unwrap());
            let waiting = scope.spawn(|| lock_patiently(&mutex).is_some());
            drop(held);
            let _either = waiting.join().unwrap();
        });
    }
}
