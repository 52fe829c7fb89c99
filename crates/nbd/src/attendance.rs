//! Which connections there are, so that they can be counted, ended and waited for.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::socket::Socket;

/// The connections of something, up to a limit.
#[derive(Debug)]
pub(crate) struct Attendance {
    most: usize,
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u64,
    /// Connections that are not sockets cannot be ended from here.
    present: HashMap<u64, Option<Socket>>,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// That a connection is there. Dropping it says that it has left.
#[derive(Debug)]
pub(crate) struct Ticket {
    attendance: Arc<Attendance>,
    number: u64,
}

impl Attendance {
    /// Nobody is there, and at most so many will be at one time.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default(), left: Condvar::new() })
    }

    pub(crate) fn enter(self: &Arc<Self>, socket: Option<Socket>) -> Result<Ticket, Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.present.len() >= self.most {
            return Err(Refused::Full);
        }
        let number = state.next;
        state.next += 1;
        state.present.insert(number, socket);
        Ok(Ticket { attendance: Arc::clone(self), number })
    }

    pub(crate) fn count(&self) -> usize {
        self.state().present.len()
    }

    /// Whether those that are there have been asked to leave.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Lets nobody in any more, ends all connections, and waits until they have left.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.present.values().flatten().for_each(Socket::shut_down);
        while !state.present.is_empty() {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Every change is one call to the map or one assignment, so a panic leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.attendance.state().present.remove(&self.number);
        self.attendance.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::link::{Link, Wait};

    #[test]
    fn the_limit_holds_and_places_come_free() {
        let attendance = Attendance::new(2);
        let one = attendance.enter(None).unwrap();
        let _two = attendance.enter(None).unwrap();
        assert_eq!(attendance.enter(None).err(), Some(Refused::Full));
        drop(one);
        assert!(attendance.enter(None).is_ok());
        assert_eq!(attendance.count(), 1, "the last one's ticket was dropped at once");
    }

    #[test]
    fn closing_ends_connections_and_waits_for_them() {
        let attendance = Attendance::new(2);
        let (one, _other) = UnixStream::pair().unwrap();
        let mut socket = Socket::from(one);
        let ticket = attendance.enter(Some(socket.clone())).unwrap();
        let connection = std::thread::spawn(move || {
            let received = socket.receive(&mut [0], Wait::Yes);
            drop(ticket);
            received
        });
        attendance.close();
        assert_eq!(attendance.count(), 0);
        assert_eq!(connection.join().unwrap().unwrap(), 0);
        assert_eq!(attendance.enter(None).err(), Some(Refused::Closed));
    }
}
