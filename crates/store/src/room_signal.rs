//! Puts that wait for room while somebody writes pages to a tier.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Default)]
pub(crate) struct RoomSignal {
    state: Mutex<State>,
    wanted: Condvar,
    made: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody makes room whenever it is wanted.
    has_maker: bool,
    waiting: u32,
    woken: bool,
    /// Rounds of making room that have ended.
    rounds: u64,
    /// The last of them in which there was nothing to be had.
    futile: u64,
}

impl RoomSignal {
    /// Waits for room until `deadline`, as long as something is gained. False: there will be none for now.
    pub(crate) fn await_room(&self, deadline: Instant, has_room: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        // A round that is just ending may have missed that this put waits.
        let first = state.rounds + 1;
        loop {
            if has_room() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !state.has_maker || state.futile > first || left.is_zero() {
                return false;
            }
            state.waiting += 1;
            self.wanted.notify_all();
            let (again, _) = self.made.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.waiting -= 1;
        }
    }

    /// A round of making room is over. `gained`: pages were moved.
    pub(crate) fn end_round(&self, gained: bool) {
        let mut state = self.lock();
        state.rounds += 1;
        if !gained {
            state.futile = state.rounds;
        }
        drop(state);
        self.made.notify_all();
    }

    /// Waits until somebody wants room or calls [`RoomSignal::wake`], or for so long. True: it is wanted.
    pub(crate) fn wait_until_wanted(&self, time: Duration) -> bool {
        let mut state = self.lock();
        state.has_maker = true;
        if state.waiting == 0 && !state.woken {
            state = self.wanted.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut state.woken) || state.waiting > 0
    }

    /// Has whoever makes room look.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.wanted.notify_all();
    }

    /// Nobody makes room any more.
    pub(crate) fn stop(&self) {
        self.lock().has_maker = false;
        self.made.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
