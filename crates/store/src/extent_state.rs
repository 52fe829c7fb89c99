//! How much of an extent is in use, and by whom: one atomic word.
//!
//! ```text
//!          reserve, free, commit             seal                  last user leaves
//!   free ───────────────────────▶ open ─────────────▶ sealed ──────────────────────▶ free
//!                                                      │  ▲
//!                                                  pin │  │ unpin
//!                                                      ▼  │
//!                                                     pinned (being emptied)
//! ```
//!
//! Users are live bytes and pins; a block that was reserved and not yet committed pins its extent, too, and so does a get. Whoever takes the last user
//! away from a sealed extent learns so from the operation that did it, exactly once, and gives the extent back.

use crate::sync::{AtomicU64, Ordering};

/// ```text
/// | sealed (1) | damaged (1) | complete (1) | recovered (1) | populated (1) | pins (27) | live bytes (32) |
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct ExtentState(AtomicU64);

/// What an extent's state was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) live_bytes: u32,
    pub(crate) pins: u32,
    pub(crate) sealed: bool,
    /// A block in it is damaged, so its blocks cannot all be found by walking it.
    pub(crate) damaged: bool,
    /// It was known to be sealed, with every block written, at a moment that the extents' table remembers.
    pub(crate) complete: bool,
    /// Its live bytes were counted when the store was opened, from index entries alone.
    pub(crate) recovered: bool,
    /// The OS found all of its memory before it was opened.
    pub(crate) populated: bool,
}

const SEALED: u64 = 1 << 63;
const DAMAGED: u64 = 1 << 62;
const COMPLETE: u64 = 1 << 61;
const RECOVERED: u64 = 1 << 60;
const POPULATED: u64 = 1 << 59;
const PIN: u64 = 1 << 32;
const LIVE_MASK: u64 = PIN - 1;

impl ExtentState {
    #[cfg(loom)]
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes it the state of an open, empty extent, whose memory is all there if it is `populated`.
    pub(crate) fn open(&self, populated: bool) {
        self.0.store(if populated { POPULATED } else { 0 }, Ordering::Release);
    }

    /// Enters a block that is about to be written. Only for open extents, under the lock of their head.
    pub(crate) fn reserve(&self, bytes: u32) {
        self.0.fetch_add(PIN + u64::from(bytes), Ordering::AcqRel);
    }

    /// Keeps an extent that has a live block, which nobody frees meanwhile.
    pub(crate) fn pin(&self) {
        self.0.fetch_add(PIN, Ordering::AcqRel);
    }

    /// Takes a pin away: a reserved block is complete and published, or a walk is over.
    pub(crate) fn unpin(&self) -> Seen {
        Seen::of(self.0.fetch_sub(PIN, Ordering::AcqRel) - PIN)
    }

    /// Takes a block's bytes away.
    pub(crate) fn free(&self, bytes: u32) -> Seen {
        Seen::of(self.0.fetch_sub(u64::from(bytes), Ordering::AcqRel) - u64::from(bytes))
    }

    /// Closes the extent to new blocks.
    pub(crate) fn seal(&self) -> Seen {
        Seen::of(self.0.fetch_or(SEALED, Ordering::AcqRel) | SEALED)
    }

    /// Pins a sealed extent in which every block is complete and something is live, so that its blocks can be walked and it stays.
    #[must_use]
    pub(crate) fn pin_for_walk(&self) -> bool {
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            let seen = Seen::of(now);
            if !seen.sealed || seen.damaged || seen.pins != 0 || seen.live_bytes == 0 {
                return false;
            }
            match self.0.compare_exchange_weak(now, now + PIN, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
    }

    /// Makes it the state of a sealed extent whose blocks are all complete.
    pub(crate) fn restore(&self, live_bytes: u32) {
        self.0.store(SEALED | COMPLETE | RECOVERED | u64::from(live_bytes), Ordering::Release);
    }

    /// Whether the caller, who holds a pin, sees for the first time that the extent is sealed and every block in it written: nobody
    /// else holds a pin, so nobody writes, and no block is added to a sealed extent. It stays so until the extent is given back.
    pub(crate) fn is_newly_complete(&self) -> bool {
        let seen = self.see();
        seen.sealed && !seen.complete && seen.pins == 1
    }

    /// Remembers that it is complete.
    pub(crate) fn mark_complete(&self) {
        self.0.fetch_or(COMPLETE, Ordering::AcqRel);
    }

    /// Remembers that walking it fails.
    pub(crate) fn mark_damaged(&self) {
        self.0.fetch_or(DAMAGED, Ordering::AcqRel);
    }

    pub(crate) fn see(&self) -> Seen {
        Seen::of(self.0.load(Ordering::Acquire))
    }
}

impl Seen {
    fn of(bits: u64) -> Self {
        Self {
            live_bytes: (bits & LIVE_MASK) as u32,
            pins: (bits >> 32) as u32 & 0x07ff_ffff,
            sealed: bits & SEALED != 0,
            damaged: bits & DAMAGED != 0,
            complete: bits & COMPLETE != 0,
            recovered: bits & RECOVERED != 0,
            populated: bits & POPULATED != 0,
        }
    }

    /// Nobody uses the extent. Of a sealed one this is seen by one operation only.
    pub(crate) fn is_unused(self) -> bool {
        self.live_bytes == 0 && self.pins == 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{
        sync::{Arc, atomic::AtomicU32},
        thread,
    };

    /// A put that commits late, a flush of another block, the head that seals, and a walker: the extent is given back exactly
    /// once, and by then nobody uses it.
    #[test]
    fn a_sealed_extent_is_given_back_once() {
        loom::model(|| {
            let state = Arc::new(ExtentState::new());
            let returned = Arc::new(AtomicU32::new(0));
            state.open(false);
            state.reserve(8);
            state.unpin(); // an old block
            state.reserve(16); // a new one, still being written
            let note = |seen: Seen, returned: &AtomicU32| {
                if seen.sealed && seen.is_unused() {
                    returned.fetch_add(1, Ordering::SeqCst);
                }
            };
            let flush = {
                let (state, returned) = (state.clone(), returned.clone());
                thread::spawn(move || note(state.free(8), &returned))
            };
            let walk = {
                let (state, returned) = (state.clone(), returned.clone());
                thread::spawn(move || {
                    if state.pin_for_walk() {
                        assert_eq!(returned.load(Ordering::SeqCst), 0, "walking an extent that is gone");
                        note(state.unpin(), &returned);
                    }
                })
            };
            note(state.seal(), &returned);
            note(state.unpin(), &returned);
            note(state.free(16), &returned);
            flush.join().unwrap();
            walk.join().unwrap();
            assert_eq!(returned.load(Ordering::SeqCst), 1);
        });
    }

    /// A copy in a tier: one block whose page was put anew before it could be moved, one that is moved while whoever writes holds the copy
    /// open, a get and a flush of it. The place is given back once, when nobody reads it and nothing refers to it.
    #[test]
    fn a_place_of_a_tier_is_given_back_once() {
        loom::model(|| {
            let state = Arc::new(ExtentState::new());
            let returned = Arc::new(AtomicU32::new(0));
            // The index entry with its lock: whether it refers to the copy.
            let entry = Arc::new(loom::sync::Mutex::new(false));
            let note = |seen: Seen, returned: &AtomicU32| {
                if seen.sealed && seen.is_unused() {
                    assert_eq!(returned.fetch_add(1, Ordering::SeqCst), 0, "given back twice");
                }
            };
            let get = {
                let (state, returned, entry) = (state.clone(), returned.clone(), entry.clone());
                thread::spawn(move || {
                    let locked = entry.lock().unwrap();
                    if *locked {
                        state.pin();
                        drop(locked);
                        assert_eq!(returned.load(Ordering::SeqCst), 0, "reading a place that is gone");
                        note(state.unpin(), &returned);
                    }
                })
            };
            let flush = {
                let (state, returned, entry) = (state.clone(), returned.clone(), entry.clone());
                thread::spawn(move || {
                    let mut locked = entry.lock().unwrap();
                    if std::mem::take(&mut *locked) {
                        note(state.free(8), &returned);
                    }
                })
            };
            let add = |bytes| {
                state.reserve(bytes);
                let _entered = state.unpin();
            };
            state.open(false);
            state.pin(); // entered
            add(16);
            note(state.free(16), &returned); // not moved
            add(8);
            *entry.lock().unwrap() = true;
            state.seal();
            note(state.unpin(), &returned); // closed
            get.join().unwrap();
            flush.join().unwrap();
            let is_referred_to = *entry.lock().unwrap();
            assert_eq!(returned.load(Ordering::SeqCst), u32::from(!is_referred_to));
        });
    }

    /// A put that commits late, the head that seals, and a get: whoever sees the extent complete sees what the put wrote.
    #[test]
    fn a_complete_extent_is_written() {
        loom::model(|| {
            let state = Arc::new(ExtentState::new());
            let written = Arc::new(AtomicU32::new(0));
            state.open(false);
            state.reserve(8);
            state.unpin(); // an old block
            state.reserve(16); // a new one, still being written
            let look = |state: &ExtentState, written: &AtomicU32| {
                if state.is_newly_complete() {
                    assert_eq!(written.load(Ordering::Relaxed), 1, "complete but not written");
                    state.mark_complete();
                }
                state.unpin();
            };
            let put = {
                let (state, written) = (state.clone(), written.clone());
                thread::spawn(move || {
                    written.store(1, Ordering::Relaxed);
                    look(&state, &written);
                })
            };
            state.pin();
            state.seal();
            look(&state, &written);
            state.pin(); // a get
            look(&state, &written);
            put.join().unwrap();
            assert_eq!(state.see().pins, 0);
        });
    }
}
