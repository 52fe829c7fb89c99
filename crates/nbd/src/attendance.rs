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
        if state.present.len() >= self.most {
            return Err(if state.closed { Refused::Closed } else { Refused::Full });
        }
        state.enter(socket).map(|number| Ticket { attendance: Arc::clone(self), number })
    }

    /// As [`Attendance::enter`]; where all places are taken, whoever has been there longest is asked to leave. Some more than there are
    /// places may be there until they have.
    pub(crate) fn enter_for_the_oldest(self: &Arc<Self>, socket: Socket) -> Result<Ticket, Refused> {
        let mut state = self.state();
        if state.present.len() >= self.most && !state.closed {
            if state.present.len() >= 2 * self.most {
                return Err(Refused::Full);
            }
            let stays = state.present.iter_mut().filter(|(_, socket)| socket.is_some());
            if let Some((_, oldest)) = stays.min_by_key(|(number, _)| **number)
                && let Some(socket) = oldest.take()
            {
                socket.shut_down();
            }
        }
        state.enter(Some(socket)).map(|number| Ticket { attendance: Arc::clone(self), number })
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

impl State {
    fn enter(&mut self, socket: Option<Socket>) -> Result<u64, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let number = self.next;
        self.next += 1;
        self.present.insert(number, socket);
        Ok(number)
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
    fn whoever_comes_late_is_let_in_for_the_oldest() {
        let attendance = Attendance::new(2);
        let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        let mut sockets: Vec<Socket> =
            pairs.iter().map(|(one, _)| Socket::from(one.try_clone().unwrap())).collect();
        let tickets: Vec<_> = sockets[..4]
            .iter()
            .map(|socket| attendance.enter_for_the_oldest(socket.clone()).unwrap())
            .collect();
        for (number, socket) in sockets.iter_mut().enumerate().take(4) {
            let received = socket.receive(&mut [0], Wait::No);
            let is_open = received.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert_eq!(is_open, number >= 2, "connection {number}");
        }
        assert_eq!(attendance.enter_for_the_oldest(sockets[4].clone()).err(), Some(Refused::Full));
        drop(tickets);
        assert!(attendance.enter_for_the_oldest(sockets[4].clone()).is_ok());
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
