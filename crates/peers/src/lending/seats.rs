//! Which node is connected. Each has one connection, and there is a bound to all.

use std::{
    collections::BTreeMap,
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tmem_cluster::{NodeId, wire::Hello};
use tmem_store::TierCopy;

use super::status::{Counters, LendingCounts};
use crate::{error::PeerError, stream::Stream};

/// The most connections.
const MAX_CONNECTIONS: usize = 256;

/// The most of them that have not said who they are.
const MAX_ENTERING: usize = 64;

/// A connection of which nothing is heard for so long, though somebody else comes with its name, is taken for broken. Borrowers ping several times a
/// second.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A node that is connected.
pub(super) struct Seat {
    pub(super) hello: Hello,
    pub(super) stream: Stream,
    pub(super) counters: Counters,
    /// How often something was received.
    heard: AtomicU64,
    /// Recalled copies that it has not been told of, and when they are dropped.
    recalled: Mutex<Vec<(u64, TierCopy)>>,
    is_recalled: AtomicBool,
}

impl Seat {
    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, SeqCst);
    }

    /// It is to be told of these. Never waits for the node.
    pub(super) fn recall(&self, copies: &[TierCopy], until_ms: u64) {
        lock(&self.recalled).extend(copies.iter().map(|copy| (until_ms, *copy)));
        self.is_recalled.store(true, SeqCst);
    }

    /// What it is to be told of, once.
    pub(super) fn take_recalled(&self) -> Vec<(u64, TierCopy)> {
        if !self.is_recalled.load(SeqCst) || !self.is_recalled.swap(false, SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.recalled))
    }
}

#[derive(Default)]
struct Inner {
    is_closed: bool,
    next_number: u64,
    /// Connections that have not said who they are, to end them.
    entering: BTreeMap<u64, Option<TcpStream>>,
    seated: BTreeMap<NodeId, Arc<Seat>>,
    /// What was done for nodes that have left.
    past: LendingCounts,
}

/// All connections.
#[derive(Default)]
pub(super) struct Seats {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// A connection that has not said who it is, for as long as this is kept.
pub(super) struct Entrance<'a> {
    seats: &'a Seats,
    number: u64,
}

impl Seats {
    /// Room for a connection. `None`: there is none.
    pub(super) fn enter(&self, socket: &TcpStream) -> Option<u64> {
        let mut inner = lock(&self.inner);
        let entering = inner.entering.len();
        if inner.is_closed || entering >= MAX_ENTERING || entering + inner.seated.len() >= MAX_CONNECTIONS {
            return None;
        }
        let number = inner.next_number;
        inner.next_number += 1;
        // Without a second descriptor it is waited for at the end; its handshake has a time.
        inner.entering.insert(number, socket.try_clone().ok());
        Some(number)
    }

    /// What [`Self::enter`] gave, as a guard.
    pub(super) fn entrance(&self, number: u64) -> Entrance<'_> {
        Entrance { seats: self, number }
    }

    /// The seat of a node. An earlier connection of it is ended, and waited for.
    ///
    /// # Errors
    /// Another node of this name is connected, or the server ends.
    pub(super) fn claim(&self, hello: Hello, stream: Stream) -> Result<Arc<Seat>, PeerError> {
        let mut inner = lock(&self.inner);
        let mut asked: Option<(Arc<Seat>, u64, Instant)> = None;
        while !inner.is_closed {
            let Some(earlier) = inner.seated.get(&hello.node()).map(Arc::clone) else {
                let (counters, heard, recalled, is_recalled) = Default::default();
                let seat = Arc::new(Seat { hello, stream, counters, heard, recalled, is_recalled });
                inner.seated.insert(hello.node(), Arc::clone(&seat));
                return Ok(seat);
            };
            if earlier.hello.store == hello.store {
                earlier.stream.shut_down();
            } else {
                // With another store it may be the same node after its end, or another one of the same name.
                let heard = earlier.heard.load(SeqCst);
                match &asked {
                    Some((seat, before, since)) if Arc::ptr_eq(seat, &earlier) => {
                        if heard != *before {
                            return Err(PeerError::TwoNodes {
                                name: hello.name.to_string(),
                                first: earlier.stream.remote().to_owned(),
                                second: stream.remote().to_owned(),
                            });
                        }
                        if since.elapsed() >= SIGN_OF_LIFE {
                            earlier.stream.shut_down();
                        }
                    }
                    _ => asked = Some((earlier, heard, Instant::now())),
                }
            }
            let waited = self.changed.wait_timeout(inner, Duration::from_millis(20));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(PeerError::Closed { address: stream.remote().to_owned() })
    }

    /// A node's connection is over, and all that was to be done for it.
    pub(super) fn leave(&self, seat: &Arc<Seat>) {
        let mut inner = lock(&self.inner);
        let node = seat.hello.node();
        if inner.seated.get(&node).is_some_and(|seated| Arc::ptr_eq(seated, seat)) {
            inner.seated.remove(&node);
            inner.past += seat.counters.read();
        }
        self.changed.notify_all();
    }

    /// All nodes that are connected, and what was done for those that have left.
    pub(super) fn seated(&self) -> (Vec<Arc<Seat>>, LendingCounts) {
        let inner = lock(&self.inner);
        (inner.seated.values().cloned().collect(), inner.past)
    }

    /// The seat of a node that is connected.
    pub(super) fn of(&self, node: NodeId) -> Option<Arc<Seat>> {
        lock(&self.inner).seated.get(&node).cloned()
    }

    /// Does something while a node is not connected, and cannot be meanwhile. `None`: it is connected.
    pub(super) fn while_away<R>(&self, node: NodeId, act: impl FnOnce() -> R) -> Option<R> {
        let inner = lock(&self.inner);
        (!inner.seated.contains_key(&node)).then(act)
    }

    /// Ends all connections, and takes no more.
    pub(super) fn end_all(&self) {
        let mut inner = lock(&self.inner);
        inner.is_closed = true;
        inner.seated.values().for_each(|seat| seat.stream.shut_down());
        for socket in inner.entering.values().flatten() {
            // It fails where the peer has ended it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    pub(super) fn wait_until_empty(&self) {
        let mut inner = lock(&self.inner);
        while !inner.entering.is_empty() || !inner.seated.is_empty() {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Entrance<'_> {
    fn drop(&mut self) {
        lock(&self.seats.inner).entering.remove(&self.number);
        self.seats.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
