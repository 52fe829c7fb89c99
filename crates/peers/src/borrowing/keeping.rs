//! A peer's thread: connects, asks what it has, pings, and says what is to be forgotten.

use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tmem_cluster::wire::{MAX_COPIES, MAX_FLUSHED_RUNS, MAX_FLUSHES, Message, Run};
use tmem_store::TierCopy;

use super::{
    book::Seat,
    borrower::{Borrower, REQUEST_TIME},
    packed::merged,
    peer::Peer,
    reading::PATIENCE,
};
use crate::{
    connection::{Connection, Request, Told, Waited, Way},
    error::PeerError,
};

/// How often a peer is pinged, and told what is to be forgotten.
const ROUND: Duration = Duration::from_millis(250);

/// A peer that says nothing for so long, though it was asked, is away.
const SILENCE: Duration = Duration::from_secs(1);

/// For all of connecting: a peer that is there answers within this.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// The first time between two attempts to connect; it doubles with each...
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// ...up to this, so that a peer that is back is soon of use.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// ...and up to this as long as reads wait for it.
const WAITED_FOR: Duration = Duration::from_millis(100);

/// Starts the thread of a peer. `None`: there can be none, which is the peer's trouble.
pub(super) fn start(borrower: &Arc<Borrower>, peer: &Arc<Peer>) -> Option<JoinHandle<()>> {
    let (shared, its) = (Arc::clone(borrower), Arc::clone(peer));
    std::thread::Builder::new()
        .name(format!("peer-{}", peer.name))
        .spawn(move || Keeping { borrower: &shared, peer: &its }.run())
        .inspect_err(|error| peer.set_trouble(Some(format!("no thread for it: {error}"))))
        .ok()
}

struct Keeping<'a> {
    borrower: &'a Arc<Borrower>,
    peer: &'a Arc<Peer>,
}

impl Keeping<'_> {
    fn run(&self) {
        let mut wait = FIRST_WAIT;
        while !self.is_over() {
            let Some(store) = self.borrower.store() else {
                self.peer.bell.sleep(LONGEST_WAIT);
                continue;
            };
            match self.connect(store) {
                Ok(connection) => {
                    wait = FIRST_WAIT;
                    self.peer.set_trouble(None);
                    self.keep(&connection);
                    self.borrower.left(self.peer, &connection);
                    if !self.is_over() {
                        let why = connection.ended().unwrap_or_else(|| "not connected".to_owned());
                        self.peer.set_trouble(Some(why));
                    }
                }
                Err(error) => self.peer.set_trouble(Some(error.to_string())),
            }
            if !self.is_over() {
                // Not all borrowers of a peer that comes back at the same time. A ring may mean a new address.
                self.peer.bell.sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
                // As long as reads wait for it, they should not have to wait for this thread as well.
                let is_waited_for = self.borrower.book().is_just_away(self.peer.id, PATIENCE);
                wait = (wait * 2).min(if is_waited_for { WAITED_FOR } else { LONGEST_WAIT });
            }
        }
    }

    fn is_over(&self) -> bool {
        self.borrower.is_over() || self.peer.is_over.load(Relaxed)
    }

    fn connect(&self, store: u64) -> Result<Arc<Connection>, PeerError> {
        let closed = || PeerError::Closed { address: self.peer.name.to_string() };
        let seats =
            |borrower: &Borrower| borrower.book().seats.get(&self.peer.id).map(|seat| seat.address.clone());
        let address = seats(self.borrower).ok_or_else(closed)?;
        let options = &self.borrower.options;
        let way = Way {
            address: &address,
            identity: &options.identity,
            name: self.peer.name.as_str(),
            security: &options.security,
            store,
            time: CONNECT_TIME,
        };
        // The borrower has the connection, so the connection has not the borrower.
        let (borrower, peer) = (Arc::downgrade(self.borrower), Arc::downgrade(self.peer));
        let connection = Connection::begin(way, Box::new(move |told| hear(&borrower, &peer, told)))?;
        match self.borrower.joined(self.peer, &connection) {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.end(&error.to_string());
                Err(error)
            }
        }
    }

    /// Until the connection ends.
    fn keep(&self, connection: &Arc<Connection>) {
        let mut is_listed = self.is_listed();
        while !self.is_over() && connection.ended().is_none() {
            let round = Instant::now();
            let kept = self.ping(connection).and_then(|()| {
                if !is_listed {
                    self.list(connection)?;
                    is_listed = true;
                }
                self.flush(connection)?;
                self.say_released(connection)
            });
            match kept {
                Ok(()) => self.peer.bell.sleep(ROUND.saturating_sub(round.elapsed())),
                Err(error) => connection.end(&error.to_string()),
            }
        }
        connection.end("it is not needed any more");
    }

    fn is_listed(&self) -> bool {
        self.borrower.book().seats.get(&self.peer.id).is_none_or(|seat| seat.is_listed)
    }

    fn ping(&self, connection: &Arc<Connection>) -> Result<(), PeerError> {
        let asked = Instant::now();
        let request = connection.ask(|say, id| say.ping(id))?;
        let is_pong = self.answer(&request, |message| matches!(message, Message::Pong))?;
        if is_pong {
            self.peer.trips.note_ping(asked.elapsed());
        }
        is_pong.then_some(()).ok_or_else(|| self.strange(connection))
    }

    /// Waits for an answer as long as anything comes from the peer.
    fn answer<R>(&self, request: &Request, take: impl Fn(Message<'_>) -> R) -> Result<R, PeerError> {
        let asked = Instant::now();
        loop {
            match request.wait(Instant::now() + SILENCE / 4, &take) {
                Waited::Answer(answer) => return Ok(answer),
                Waited::Ended => return Err(PeerError::Closed { address: self.peer.name.to_string() }),
                Waited::NotYet => {
                    let waited = asked.elapsed();
                    if waited >= REQUEST_TIME || waited.min(request.connection().silence()) >= SILENCE {
                        self.peer.errors.fetch_add(1, Relaxed);
                        let (address, ms) = (self.peer.name.to_string(), waited.as_millis());
                        return Err(PeerError::Silent { address, ms });
                    }
                }
            }
        }
    }

    fn strange(&self, connection: &Connection) -> PeerError {
        self.peer.errors.fetch_add(1, Relaxed);
        PeerError::Strange { address: connection.remote().to_owned() }
    }

    /// Asks which copies it has.
    fn list(&self, connection: &Arc<Connection>) -> Result<(), PeerError> {
        let mut from_place = Some(0);
        while let Some(from) = from_place {
            let request = connection.ask(|say, id| say.list(id, from))?;
            let copies: Vec<TierCopy> = self
                .answer(&request, |message| match message {
                    Message::Listed(copies) => Some(copies.iter().collect()),
                    _ => None,
                })?
                .ok_or_else(|| self.strange(connection))?;
            let last = copies.last().map(|copy| copy.place);
            if last.is_some_and(|last| last < from) {
                return Err(self.strange(connection));
            }
            from_place = last.filter(|_| copies.len() == MAX_COPIES).and_then(|last| last.checked_add(1));
            self.borrower.listed(self.peer, connection.hello().epoch, &copies, from_place.is_none());
        }
        Ok(())
    }

    /// Says which copies are to be forgotten.
    fn flush(&self, connection: &Arc<Connection>) -> Result<(), PeerError> {
        loop {
            // Said under the lock that it was found under: what is sent anew after that is said after that.
            let (number, request) = {
                let mut book = self.borrower.book();
                // What another connection's thread sends anew must not be forgotten because of this one.
                let is_its_own = |seat: &Seat| {
                    (seat.connection.as_ref()).is_some_and(|known| Arc::ptr_eq(known, connection))
                };
                if !book.seats.get(&self.peer.id).is_some_and(is_its_own) {
                    return Err(PeerError::Closed { address: self.peer.name.to_string() });
                }
                let Some((number, copies)) = book.ledger.take_flushes(self.peer.id, MAX_FLUSHES) else {
                    return Ok(());
                };
                let dead: Vec<(TierCopy, &[Run])> = copies.iter().map(|copy| (*copy, &[][..])).collect();
                (number, connection.prepare(|say, id| say.flush(id, &dead))?)
            };
            connection.send_prepared()?;
            self.hear_flushed(connection, &request)?;
            self.borrower.book().ledger.flushed(self.peer.id, number);
        }
    }

    /// Says which stretches of copies have died.
    fn say_released(&self, connection: &Arc<Connection>) -> Result<(), PeerError> {
        let released = self.peer.take_released();
        let runs = |stretches: &[(u32, u32)]| merged(stretches.iter().copied());
        let mut said = Ok(());
        let mut left = released.dead.iter().peekable();
        while said.is_ok() && left.peek().is_some() {
            let mut dead: Vec<(TierCopy, Vec<Run>)> = Vec::new();
            let mut count = 0;
            while let Some(((place, writing), stretches)) = left.peek()
                && dead.len() < MAX_FLUSHES
            {
                let runs = runs(stretches);
                if count > 0 && count + runs.len() > MAX_FLUSHED_RUNS {
                    break;
                }
                count += runs.len();
                dead.push((TierCopy { place: *place, writing: *writing }, runs));
                left.next();
            }
            dead.retain(|(_, runs)| !runs.is_empty());
            if !dead.is_empty() {
                said = self.flush_runs(connection, &dead);
            }
        }
        if said.is_err() {
            // Some of it may be said twice, which changes nothing.
            self.peer.release_again(released);
        }
        said
    }

    fn flush_runs(
        &self,
        connection: &Arc<Connection>,
        dead: &[(TierCopy, Vec<Run>)],
    ) -> Result<(), PeerError> {
        let dead: Vec<(TierCopy, &[Run])> = dead.iter().map(|(copy, runs)| (*copy, &runs[..])).collect();
        let request = connection.ask(|say, id| say.flush(id, &dead))?;
        self.hear_flushed(connection, &request)
    }

    fn hear_flushed(&self, connection: &Connection, request: &Request) -> Result<(), PeerError> {
        let is_flushed = self.answer(request, |message| matches!(message, Message::Flushed))?;
        is_flushed.then_some(()).ok_or_else(|| self.strange(connection))
    }
}

/// What a lender says without having been asked.
fn hear(borrower: &Weak<Borrower>, peer: &Weak<Peer>, told: Told<'_>) {
    let (Some(borrower), Some(peer)) = (borrower.upgrade(), peer.upgrade()) else { return };
    match told {
        Told::Offer { free_bytes, lent_bytes } => borrower.book().offer(peer.id, free_bytes, lent_bytes),
        Told::Recall { deadline_ms, copies } => borrower.recalled(peer.id, deadline_ms, copies),
        Told::Ended => peer.bell.ring(),
    }
}
