//! Takes connections, and finds out who is there.

use std::{
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tmem_cluster::{
    lender::{NotAdmitted, SharedHolding},
    wire::{Encoder, Hello, Reason},
};
use tmem_transport::LogLimit;

use super::{Shared, seats::Seat, serving};
use crate::{
    error::{PeerError, readable},
    greeting::say,
    stream::Stream,
};

/// How long a peer has for TLS, and then for its hello.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// How long a peer has to take a byte of what it asked for.
const SEND_TIME: Duration = Duration::from_secs(10);

/// How often a connection on which nothing comes looks whether there is something to be told.
const LOOK_UP: Duration = Duration::from_millis(100);

/// After this time connections are accepted again when the system had none to give.
const PAUSE: Duration = Duration::from_millis(100);

/// A lender does not say which store it has: nobody borrows over this connection from its peer.
const NO_STORE: u64 = 0;

pub(super) struct Gate {
    shared: Arc<Shared>,
    limits: Arc<Limits>,
}

/// One line of the log for each of these in some seconds.
#[derive(Default)]
struct Limits {
    accepting: LogLimit,
    full: LogLimit,
    /// Who is no node of this cluster, or not one that may be here.
    refused: LogLimit,
    /// Two nodes of one name, or one whose epoch is over: what strangers do must not hide this.
    turned_away: LogLimit,
    ended: LogLimit,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, limits: Arc::default() }
    }

    /// Until the listener is shut down.
    pub(super) fn run(&self, listener: &TcpListener) {
        while !self.shared.is_over() {
            match listener.accept() {
                _ if self.shared.is_over() => return,
                Ok((socket, _)) => self.take(socket),
                Err(error) => {
                    warn(&self.limits.accepting, || format!("no connection can be accepted: {error}"));
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn take(&self, socket: TcpStream) {
        let Some(number) = self.shared.seats.enter(&socket) else {
            warn(&self.limits.full, || {
                format!("{} is turned away: too many connections", readable(socket.peer_addr()))
            });
            return;
        };
        let (shared, limits) = (Arc::clone(&self.shared), Arc::clone(&self.limits));
        let spawned = thread::Builder::new().name("lend".to_owned()).spawn(move || {
            serve(&shared, &limits, number, socket);
        });
        if let Err(error) = spawned {
            drop(self.shared.seats.entrance(number));
            warn(&self.limits.accepting, || format!("no thread for a connection: {error}"));
        }
    }
}

/// To the log, unless there was a line like it just now.
fn warn(limit: &LogLimit, text: impl FnOnce() -> String) {
    if let Some(hidden) = limit.admit(Instant::now()) {
        log::warn!("lending: {} ({hidden} like it not logged)", text());
    }
}

/// A connection, from its first byte to its end.
fn serve(shared: &Shared, limits: &Limits, number: u64, socket: TcpStream) {
    let entered = enter(shared, number, socket);
    let limit = match &entered {
        Ok(_) => &limits.ended,
        Err(PeerError::TwoNodes { .. } | PeerError::OldEpoch { .. } | PeerError::DuplicateName { .. }) => {
            &limits.turned_away
        }
        Err(_) => &limits.refused,
    };
    let Err(error) = entered.and_then(|guest| guest.serve()) else { return };
    if !shared.is_over() {
        warn(limit, || error.to_string());
    }
}

/// A node that is connected, until this is dropped.
struct Guest<'a> {
    shared: &'a Shared,
    seat: Arc<Seat>,
    holding: Option<SharedHolding>,
}

/// Finds out who is there, and takes its seat.
fn enter(shared: &Shared, number: u64, socket: TcpStream) -> Result<Guest<'_>, PeerError> {
    let entrance = shared.seats.entrance(number);
    let remote = readable(socket.peer_addr());
    let io = PeerError::io(&remote);
    let stream = Stream::accept(socket, &shared.security, HELLO_TIME).map_err(&io)?;
    let hello = shared.identity.hear(&stream, HELLO_TIME)?;
    stream.set_times(Some(LOOK_UP), Some(SEND_TIME)).map_err(&io)?;
    // Before the connection of one that is in order is ended for it.
    if let Err(error) = shared.lender.check(&hello) {
        return Err(refuse(shared, &stream, &hello, &error));
    }
    let seat = shared.seats.claim(hello, stream)?;
    let mut guest = Guest { shared, seat, holding: None };
    drop(entrance);
    match shared.lender.admit(&hello) {
        Ok(holding) => guest.holding = Some(holding),
        Err(error) => return Err(refuse(shared, &guest.seat.stream, &hello, &error)),
    }
    say(&guest.seat.stream, &shared.identity.hello(NO_STORE))?;
    Ok(guest)
}

impl Guest<'_> {
    fn serve(self) -> Result<(), PeerError> {
        log::debug!("lending: {} is connected from {}", self.seat.hello.name, self.seat.stream.remote());
        self.holding.as_ref().map_or(Ok(()), |holding| serving::serve(self.shared, &self.seat, holding))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if self.holding.is_some() {
            self.shared.lender.leave(self.seat.hello.node());
        }
        self.shared.seats.leave(&self.seat);
    }
}

/// Says to a node that it gets nothing: the error for people.
fn refuse(shared: &Shared, stream: &Stream, hello: &Hello, error: &NotAdmitted) -> PeerError {
    let (reason, error) = match *error {
        NotAdmitted::OldEpoch { name, theirs, ours } => {
            let (address, name) = (stream.remote().to_owned(), name.to_string());
            (Reason::Fenced, PeerError::OldEpoch { address, name, found: theirs, latest: ours })
        }
        NotAdmitted::OtherStore(name) => {
            let first = shared.seats.of(hello.node()).map(|seat| seat.stream.remote().to_owned());
            let first = first.unwrap_or_else(|| "a node that is away".to_owned());
            let (name, second) = (name.to_string(), stream.remote().to_owned());
            (Reason::NotAllowed, PeerError::TwoNodes { name, first, second })
        }
        // It comes again.
        NotAdmitted::NoFile { error, .. } => return PeerError::io(stream.remote())(error.into()),
    };
    let mut said = shared.identity.hello(NO_STORE).encode().to_vec();
    let is_said = Encoder::new(&mut said).refused(0, reason).is_ok() && stream.send(&said).is_ok();
    log::debug!("lending: {} was {}told why", stream.remote(), if is_said { "" } else { "not " });
    error
}
