//! A borrower's connection to one lender: many requests under way, answered in any order.
//!
//! Nobody reads the socket all the time. Whoever waits for an answer reads it, if nobody else does, hands answers of others to them,
//! and passes the reading on to another who waits when its own has come. So a lone request costs no hand-over between threads. Likewise
//! whoever has something to say sends it, and what others want to say meanwhile. Answers that came together are handed over together, and while those
//! who were woken for them have yet to run, what is asked is not sent by itself: they are likely to ask, too.
//!
//! | file | job |
//! |---|---|
//! | `requests` | who waits for which answer, and who reads |
//! | `outbox` | what is to be said |
//! | `request` | one request, by whoever asked |

mod outbox;
mod request;
mod requests;

use std::{
    fmt,
    io::{self, Read},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tmem_cluster::wire::{Copies, Encoder, Frame, FrameReader, Hello, Message, WireError};

use crate::{
    clock::Clock,
    error::PeerError,
    greeting::{Identity, is_only_later, say},
    polling::Polling,
    stream::{Security, Stream},
};
use outbox::Outbox;
pub(crate) use request::{Request, Waited};
use requests::{Answer, Requests, Role};

/// How long whoever reads stays in the socket before it looks at its own deadline.
const LOOK_UP: Duration = Duration::from_millis(10);

/// So much is not sent as long as others are expected to ask, in bytes: eight gets. With more the peer would have nothing to do meanwhile.
const DEFERRED_BYTES: usize = 8 * 48;

/// A peer that takes not one byte for so long has stopped reading.
const SEND_TIME: Duration = Duration::from_secs(1);

/// What a lender says without having been asked, and how the connection ends.
pub(crate) enum Told<'a> {
    /// So much is lent, and so much more can be.
    Offer {
        /// What may still be borrowed, in bytes.
        free_bytes: u64,
        /// What this node has, in bytes.
        lent_bytes: u64,
    },
    /// These copies will be dropped.
    Recall {
        /// In so many milliseconds.
        deadline_ms: u32,
        /// Which.
        copies: Copies<'a>,
    },
    /// There is no connection any more.
    Ended,
}

/// Hears what a lender says. It is called by whoever reads, and must not wait for an answer.
type Listener = Box<dyn Fn(Told<'_>) + Send + Sync>;

/// How to get to a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    pub(crate) address: &'a str,
    pub(crate) identity: &'a Identity,
    pub(crate) name: &'a str,
    pub(crate) security: &'a Security,
    /// Drawn with this node's store.
    pub(crate) store: u64,
    /// For all of it.
    pub(crate) time: Duration,
}

pub(crate) struct Connection {
    stream: Stream,
    hello: Hello,
    requests: Mutex<Requests>,
    reading: Mutex<Reading>,
    outbox: Outbox,
    listener: Listener,
    clock: Clock,
    /// When the last byte came, by the clock.
    heard_ms: AtomicU64,
}

/// What whoever reads has.
#[derive(Default)]
struct Reading {
    frames: FrameReader,
    polling: Polling,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.stream.remote())
    }
}

impl Connection {
    /// Connects, and says and hears hello.
    pub(crate) fn begin(way: Way<'_>, listener: Listener) -> Result<Arc<Self>, PeerError> {
        let io = PeerError::io(way.address);
        let stream = Stream::connect(way.address, way.name, way.security, way.time).map_err(&io)?;
        say(&stream, &way.identity.hello(way.store))?;
        let hello = way.identity.hear(&stream, way.time)?;
        if hello.name.as_str() != way.name {
            return Err(PeerError::OtherNode {
                address: way.address.to_owned(),
                expected: way.name.to_owned(),
                found: hello.name.to_string(),
            });
        }
        stream.set_times(Some(LOOK_UP), Some(SEND_TIME)).map_err(&io)?;
        Ok(Arc::new(Self {
            stream,
            hello,
            requests: Mutex::default(),
            reading: Mutex::default(),
            outbox: Outbox::default(),
            listener,
            clock: Clock::start(),
            heard_ms: AtomicU64::new(0),
        }))
    }

    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The peer's address, for people.
    pub(crate) fn remote(&self) -> &str {
        self.stream.remote()
    }

    /// Why there is none any more. `None`: it goes on.
    pub(crate) fn ended(&self) -> Option<String> {
        self.requests().ended.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.requests().ended.is_some()
    }

    /// For how long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        self.clock.since_ms(self.heard_ms.load(Relaxed))
    }

    /// Asks. What is said has the order in which this is called; it is sent now, or soon, at the latest by whoever waits for the answer.
    ///
    /// # Errors
    /// It has ended, or what is to be said is not in the protocol.
    pub(crate) fn ask(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>,
    ) -> Result<Request, PeerError> {
        let (request, is_quiet) = self.add(what)?;
        if is_quiet || self.outbox.queued_bytes() > DEFERRED_BYTES {
            self.send_prepared()?;
        }
        Ok(request)
    }

    /// Asks, but leaves the sending to [`Self::send_prepared`]. Never waits, so it may be called under locks.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>,
    ) -> Result<Request, PeerError> {
        self.add(what).map(|(request, _)| request)
    }

    /// A request that is not sent yet, and whether nobody is about to run who was woken for an answer.
    fn add(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>,
    ) -> Result<(Request, bool), PeerError> {
        let (id, is_quiet) = {
            let mut requests = self.requests();
            (requests.add(), requests.is_quiet())
        };
        let request = Request::new(Arc::clone(self), id.ok_or_else(|| self.closed())?);
        let wire = PeerError::wire(self.stream.remote());
        self.outbox.add(|say| what(say, request.id())).map_err(wire)?;
        Ok((request, is_quiet))
    }

    pub(crate) fn send_prepared(&self) -> Result<(), PeerError> {
        self.outbox.send(&self.stream).map_err(|error| {
            let address = self.stream.remote();
            let error = match is_only_later(&error) {
                true => PeerError::Silent { address: address.to_owned(), ms: SEND_TIME.as_millis() },
                false => PeerError::io(address)(error),
            };
            self.end(&error.to_string());
            error
        })
    }

    /// Waits until not too much is about to be sent.
    pub(crate) fn wait_for_room(&self) {
        self.outbox.wait_for_room(|| self.requests().ended.is_some());
    }

    /// Ends it: all who wait learn so.
    pub(crate) fn end(&self, why: &str) {
        if self.requests().end(why) {
            self.stream.shut_down();
            self.outbox.wake();
            (self.listener)(Told::Ended);
        }
    }

    fn closed(&self) -> PeerError {
        PeerError::Closed { address: self.stream.remote().to_owned() }
    }

    /// Waits for the answer to a request until then.
    fn wait<R>(&self, id: u64, until: Instant, take: impl FnOnce(Message<'_>) -> R) -> Waited<R> {
        let mut is_late = false;
        loop {
            let mut requests = self.requests();
            match requests.role(id) {
                Role::Answered(Answer { kind, payload, .. }) => {
                    self.go_on(requests);
                    // Whoever read it has looked at it already.
                    return match Message::decode(Frame { kind, id, payload: &payload }) {
                        Ok(message) => Waited::Answer(take(message)),
                        Err(_) => Waited::Ended,
                    };
                }
                Role::Ended => return Waited::Ended,
                Role::Reads { is_alone } => {
                    let is_quiet = requests.is_quiet();
                    drop(requests);
                    if is_quiet || is_late {
                        self.send_queued();
                    }
                    return self.read_until(id, until, is_alone, take);
                }
                Role::Waits => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        requests.leave(id);
                        self.go_on(requests);
                        return Waited::NotYet;
                    }
                    let is_quiet = requests.is_quiet();
                    drop(requests);
                    if is_quiet || is_late {
                        self.send_queued();
                    }
                    // Whoever is to send and to read next may not get to run for long, so each of the others looks after it now and then.
                    let asleep = Instant::now();
                    thread::park_timeout(left.min(LOOK_UP));
                    is_late = asleep.elapsed() >= LOOK_UP;
                }
            }
        }
    }

    /// Sees to what is left to be done by whoever has its answer, or waits no more: that what was asked is sent, and that somebody reads.
    fn go_on(&self, requests: MutexGuard<'_, Requests>) {
        let (is_quiet, reader) = (requests.is_quiet(), requests.next_reader());
        drop(requests);
        // First, because sending may take long.
        if let Some(reader) = reader {
            reader.unpark();
        }
        if is_quiet {
            self.send_queued();
        }
    }

    /// Sends what was asked and not sent.
    fn send_queued(&self) {
        if self.outbox.queued_bytes() > 0 {
            // Whoever waits learns that the connection has ended.
            let _ = self.send_prepared();
        }
    }

    /// Reads until the answer to that request has come, or until then.
    fn read_until<R>(
        &self,
        id: u64,
        until: Instant,
        is_alone: bool,
        take: impl FnOnce(Message<'_>) -> R,
    ) -> Waited<R> {
        let mut answers = Vec::new();
        let read = {
            let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            self.read_frames(&mut reading, id, until, is_alone, take, &mut answers)
        };
        let mut requests = self.requests();
        let woken = requests.hand_over(answers);
        requests.stop_reading();
        match read {
            Waited::Answer(_) => requests.forget(id),
            Waited::NotYet | Waited::Ended => requests.leave(id),
        }
        self.go_on(requests);
        woken.iter().for_each(Thread::unpark);
        read
    }

    /// The same. Answers for others that have come with it are yet to be handed over.
    fn read_frames<R>(
        &self,
        reading: &mut Reading,
        id: u64,
        until: Instant,
        is_alone: bool,
        take: impl FnOnce(Message<'_>) -> R,
        answers: &mut Vec<Answer>,
    ) -> Waited<R> {
        let Reading { frames, polling } = reading;
        let mut take = Some(take);
        let mut own = None;
        loop {
            // Everything that has come, before it is waited for more.
            let heard = loop {
                let frame = match frames.next_held() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.to_string()),
                };
                match Message::decode(frame) {
                    Ok(message) if frame.id == id && is_answer(&message) => {
                        own = take.take().map(|take| take(message)).or(own);
                    }
                    Ok(message) => match self.hear(frame, message, answers) {
                        Ok(()) => {}
                        Err(why) => break Err(why),
                    },
                    Err(error) => break Err(error.to_string()),
                }
            };
            if let Err(why) = &heard {
                self.end(why);
            }
            match own {
                Some(own) => return Waited::Answer(own),
                None if heard.is_err() => return Waited::Ended,
                None => {}
            }
            if !answers.is_empty() {
                let woken = self.requests().hand_over(std::mem::take(answers));
                woken.iter().for_each(Thread::unpark);
            }
            let mut heard = Heard { connection: self, polling, may_look: is_alone };
            let why = match frames.fill(&mut heard) {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => "the peer ended the connection".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) if is_only_later(&error) => {
                    self.send_queued();
                    if Instant::now() >= until {
                        return Waited::NotYet;
                    }
                    if self.requests().ended.is_some() {
                        return Waited::Ended;
                    }
                    continue;
                }
                Err(error) => error.to_string(),
            };
            self.end(&why);
            return Waited::Ended;
        }
    }

    /// A message that is not for whoever reads. `Err`: no lender says this.
    fn hear(&self, frame: Frame<'_>, message: Message<'_>, answers: &mut Vec<Answer>) -> Result<(), String> {
        match message {
            Message::Offer { free_bytes, lent_bytes } => {
                (self.listener)(Told::Offer { free_bytes, lent_bytes });
            }
            Message::Recall { deadline_ms, copies } => {
                (self.listener)(Told::Recall { deadline_ms, copies });
            }
            Message::Ping => {
                let said = self.outbox.add(|say| say.pong(frame.id));
                said.map_err(|error| error.to_string())?;
                self.send_prepared().map_err(|error| error.to_string())?;
            }
            message if is_answer(&message) => {
                answers.push(Answer { id: frame.id, kind: frame.kind, payload: frame.payload.to_vec() });
            }
            _ => return Err("the peer asks for what only lenders are asked".to_owned()),
        }
        Ok(())
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_answer(message: &Message<'_>) -> bool {
    matches!(
        message,
        Message::PutDone(_)
            | Message::Got(_)
            | Message::Flushed
            | Message::Pong
            | Message::Refused(_)
            | Message::Listed(_)
            | Message::Fetched(_)
    )
}

/// The stream, remembering when something came.
struct Heard<'a> {
    connection: &'a Connection,
    polling: &'a mut Polling,
    may_look: bool,
}

impl Read for Heard<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Connection { stream, heard_ms, clock, .. } = self.connection;
        let count = self.polling.receive(stream, into, self.may_look)?;
        heard_ms.store(clock.now_ms(), Relaxed);
        Ok(count)
    }
}
