//! The requests of one connection: received, carried out in turn, and answered many at a time.
//!
//! What has come is taken with one call into a buffer, and requests are carried out from it in place: what a write carries is compressed
//! from where it was received, and what a read asks for is unpacked to where it is sent from. Answers go out when no whole request is
//! left, or when some have gathered.

use std::{
    io,
    time::{Duration, Instant},
};

use tmem_faults::Point;
use tmem_transport::{PollLimit, PollPolicy, vigil};

use crate::{
    buffer::ReceiveBuffer,
    counters::Counters,
    handshake::{MAX_PAYLOAD_BYTES, Session},
    link::{Link, Wait},
    protocol::command,
    reply::Replies,
    request::Request,
};

/// Buffer for what comes: 64 writes of two pages each, or an eighth of a MiB at a time of a long one.
const RECEIVE_BYTES: usize = 512 << 10;
/// Buffer for answers. Reads of up to this are answered in one piece, and so much is unpacked before any of it is sent.
const REPLY_BYTES: usize = 256 << 10;
/// What one call should be able to receive.
const RECEIVE_AT_LEAST: usize = 128 << 10;
/// Answers that go out together, while more requests wait. One call for each would take longer than to unpack a page; if all of a deep
/// queue's went out at once, the client would have nothing to do meanwhile.
const BATCH: u32 = 8;
/// Looks at the socket between two looks at the clock: together about two microseconds.
const LOOKS_PER_ROUND: u32 = 4;
/// A round that takes this long was interrupted: another thread needs the CPU, perhaps the client itself. The thread then sleeps, since
/// one that wakes gets a CPU sooner than one that has used up its share in looking.
const INTERRUPTED: Duration = Duration::from_micros(200);

/// Less than this at a time is little: a request's header, or a part of a page.
const TRICKLE_BYTES: usize = 4096;

/// Why a connection ends, other than by the client's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Link(#[from] io::Error),
    #[error("the client is gone in the middle of a request")]
    CutShort,
    #[error("what the client sent is no request")]
    NoRequest,
    #[error("the client announced {0} bytes with one request, and {MAX_PAYLOAD_BYTES} is the most")]
    TooLong(u64),
    #[error("a page of a long read is lost, and without structured replies there is no way to say so")]
    LostInReply,
}

/// One connection with its export.
pub(crate) struct Transmission<'a, L> {
    pub(super) link: &'a mut L,
    pub(super) session: &'a Session,
    pub(super) received: ReceiveBuffer,
    pub(super) replies: Replies,
    policy: PollPolicy,
    poll_limit: &'a PollLimit,
    wait: Waiting,
}

/// The wait for the rest of a request.
#[derive(Debug, Default)]
struct Waiting {
    /// When it began. `None`: nothing was waited for since the last request.
    since: Option<Instant>,
    /// Looking for bytes was given up at least once.
    in_vain: bool,
    /// What came last was little.
    trickles: bool,
}

impl<'a, L: Link> Transmission<'a, L> {
    pub(crate) fn new(link: &'a mut L, session: &'a Session, poll_limit: &'a PollLimit) -> Self {
        Self {
            link,
            session,
            received: ReceiveBuffer::new(RECEIVE_BYTES),
            replies: Replies::new(REPLY_BYTES, session.headers),
            policy: PollPolicy::default(),
            poll_limit,
            wait: Waiting::default(),
        }
    }

    /// Serves until the client disconnects.
    pub(crate) fn run(mut self) -> Result<(), Broken> {
        let headers = self.session.headers;
        loop {
            while let Some(request) =
                Request::read(self.received.available(), headers).map_err(|_| Broken::NoRequest)?
            {
                self.received.consume(Request::header_bytes(headers));
                self.request_came();
                if request.payload_bytes > MAX_PAYLOAD_BYTES.into() {
                    return Err(Broken::TooLong(request.payload_bytes));
                }
                Counters::add(&self.session.export.counters().requests, 1);
                if request.command == command::DISC {
                    self.replies.send(self.link)?;
                    return Ok(());
                }
                let at_work = vigil::begin();
                self.execute(&request)?;
                drop(at_work);
                tmem_faults::pass(Point::NbdAnswer);
                if self.replies.answers() >= BATCH {
                    self.replies.send(self.link)?;
                }
            }
            if self.receive()? == 0 {
                return if self.received.available().is_empty() { Ok(()) } else { Err(Broken::CutShort) };
            }
        }
    }

    /// Sends the answers that wait and receives more, waiting for it; 0 says that no more will come.
    pub(super) fn receive(&mut self) -> io::Result<usize> {
        self.replies.send(self.link)?;
        let _waiting = vigil::wait();
        self.received.make_room(RECEIVE_AT_LEAST);
        let since = Instant::now();
        let first = self.wait.since.is_none();
        self.wait.since.get_or_insert(since);
        // Whoever sends a request by the byte does not get a CPU to look for the next one.
        let may_poll = first || !self.wait.trickles;
        let window_us = if may_poll { self.policy.window_us(self.poll_limit.us()) } else { 0 };
        let window = Duration::from_micros(window_us.into());
        let polled = if window.is_zero() { None } else { self.poll(since, window)? };
        let received = match polled {
            Some(received) => received,
            None => self.received.fill(|room| self.link.receive(room, Wait::Yes))?,
        };
        self.wait.in_vain |= polled.is_none() && !window.is_zero();
        self.wait.trickles = received < TRICKLE_BYTES;
        Ok(received)
    }

    /// Notes how long a request was waited for, to its last byte.
    fn request_came(&mut self) {
        let Waiting { since: Some(since), in_vain, .. } = std::mem::take(&mut self.wait) else { return };
        let gap_us = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.policy.request_after(gap_us, in_vain, self.poll_limit.us());
    }

    /// Looks for bytes until the window is over or somebody else needs the CPU.
    fn poll(&mut self, start: Instant, window: Duration) -> io::Result<Option<usize>> {
        let mut last = Duration::ZERO;
        loop {
            for _ in 0..LOOKS_PER_ROUND {
                match self.received.fill(|room| self.link.receive(room, Wait::No)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
                    result => return result.map(Some),
                }
            }
            let elapsed = start.elapsed();
            if elapsed >= window || elapsed - last >= INTERRUPTED {
                return Ok(None);
            }
            last = elapsed;
        }
    }
}
