//! One connection, from the first byte to the last.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tmem_transport::{LogLimit, PollLimit, thread_name};

use crate::{
    attendance::Ticket,
    counters::Counters,
    exports::{Attached, Exports},
    handshake::{Agreed, HandshakeError, Headers, Security, Session, greet, negotiate},
    link::Link,
    places::Place,
    socket::Socket,
    tls::TlsIdentity,
    transmission::{Broken, Transmission},
};

/// A client that has not chosen an export by then is disconnected. People who try options by hand get along.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

/// What every connection of a listener needs.
pub(crate) struct Ground {
    pub(crate) exports: Exports,
    pub(crate) security: Security,
    pub(crate) tls: Option<TlsIdentity>,
    pub(crate) poll_limit: PollLimit,
    pub(crate) log_limit: LogLimit,
    /// Limits the lines about clients that come, and about those that leave: whoever may connect may do so all the time.
    pub(crate) visits: LogLimit,
    pub(crate) leaves: LogLimit,
    /// Where the listener listens, for the log.
    pub(crate) address: String,
}

/// A connection that was just accepted.
pub(crate) struct Connection {
    pub(crate) ground: Arc<Ground>,
    pub(crate) socket: Socket,
    /// Its place among those that have no export yet.
    pub(crate) newcomer: Ticket,
    /// Its place among all connections.
    pub(crate) place: Place,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl Failed {
    /// Whether the client has just gone away, as those do that only look who is there.
    fn is_leaving(&self) -> bool {
        let Self::Handshake(HandshakeError::Link(error)) = self else { return false };
        matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    }
}

impl Connection {
    /// Serves it to its end.
    pub(crate) fn run(self) {
        let ground = Arc::clone(&self.ground);
        if let Err(failed) = self.serve()
            && !failed.is_leaving()
            && let Some(hidden) = ground.log_limit.admit(Instant::now())
        {
            log::warn!("NBD on {}: {failed} ({hidden} like it not logged)", ground.address);
        }
    }

    fn serve(self) -> Result<(), Failed> {
        let Self { ground, mut socket, newcomer, place: _place } = self;
        socket.set_deadline(Some(Instant::now() + HANDSHAKE_TIME));
        let same = socket.clone();
        let no_zeroes = greet(&mut socket)?;
        match negotiate(&mut socket, &ground.exports, ground.security, no_zeroes, Some(&same))? {
            Agreed::Nothing => {}
            Agreed::Session(session) => {
                drop(newcomer);
                socket.set_deadline(None);
                serve_session(&mut socket, session, &ground);
            }
            Agreed::StartTls => {
                let Some(tls) = &ground.tls else { return Ok(()) };
                let mut link = tls.accept(socket).map_err(Failed::Tls)?;
                let agreed =
                    negotiate(&mut link, &ground.exports, Security::Encrypted, no_zeroes, Some(&same))?;
                if let Agreed::Session(session) = agreed {
                    drop(newcomer);
                    link.socket_mut().set_deadline(None);
                    serve_session(&mut link, session, &ground);
                }
                link.close();
            }
        }
        Ok(())
    }
}

fn serve_session(link: &mut impl Link, session: Session, ground: &Ground) {
    let name = session.export.disk().name().to_owned();
    thread_name::set(&thread_name::of("nbd", &name, ""));
    if let Some(hidden) = ground.visits.admit(Instant::now()) {
        log::info!("disk {name}: NBD client connected on {} ({hidden} more before it)", ground.address);
    }
    let ended = Transmission::new(link, &session, &ground.poll_limit).run();
    let leaves = |how: String| {
        if let Some(hidden) = ground.leaves.admit(Instant::now()) {
            log::info!("disk {name}: NBD client {how} ({hidden} more before it)");
        }
    };
    match ended {
        Ok(()) => leaves("disconnected".to_owned()),
        Err(Broken::Link(error)) => leaves(format!("is gone: {error}")),
        Err(broken) => {
            Counters::add(&session.export.counters().protocol_errors, 1);
            if let Some(hidden) = ground.log_limit.admit(Instant::now()) {
                log::warn!("disk {name}: NBD connection closed: {broken} ({hidden} like it not logged)");
            }
        }
    }
}

/// Where a conversation begins that is served with [`serve_link`].
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// With the greeting.
    Greeting(Security),
    /// With requests to the only export, as if that had been agreed on.
    Requests(Headers),
}

/// Serves one conversation over any link, to its end: for tests of what reads a client's bytes. TLS does not come about.
pub fn serve_link(link: &mut impl Link, exports: &Exports, start: Start) {
    let session = match start {
        Start::Greeting(security) => {
            let agreed =
                greet(link).and_then(|no_zeroes| negotiate(link, exports, security, no_zeroes, None));
            let Ok(Agreed::Session(session)) = agreed else { return };
            session
        }
        Start::Requests(headers) => {
            let attached = exports.find("").and_then(|export| Attached::new(export, None).ok());
            let Some(export) = attached else { return };
            Session { export, headers, block_status: headers != Headers::Simple }
        }
    };
    let _ended = Transmission::new(link, &session, &PollLimit::from_us(0)).run();
}
