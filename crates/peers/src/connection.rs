//! A borrower's connection to one lender: many requests under way, answered in any order.
//!
//! Nobody reads the socket all the time. Whoever waits for an answer reads it, if nobody else does, hands answers of others to them,
//! and passes the reading on to another who waits when its own has come. So a lone request costs no hand-over between threads. Likewise
//! whoever has something to say sends it, and what others want to say meanwhile.
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
    time::{Duration, Instant},
};

use tmem_cluster::wire::{Copies, Encoder, Frame, FrameReader, Hello, Message, WireError};

use crate::{
    clock::Clock,
    error::PeerError,
    greeting::{Identity, is_only_later, say},
    stream::{Security, Stream},
};
use outbox::Outbox;
pub(crate) use request::{Request, Waited};
use requests::{Requests, Role};

/// How long whoever reads stays in the socket before it looks at its own deadline.
const LOOK_UP: Duration = Duration::from_millis(10);

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
    reader: Mutex<FrameReader>,
    outbox: Outbox,
    listener: Listener,
    clock: Clock,
    /// When the last byte came, by the clock.
    heard_ms: AtomicU64,
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
            reader: Mutex::default(),
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

    /// For how long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        self.clock.since_ms(self.heard_ms.load(Relaxed))
    }

    /// Asks. What is said has the order in which this is called.
    ///
    /// # Errors
    /// It has ended, or what is to be said is not in the protocol.
    pub(crate) fn ask(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>,
    ) -> Result<Request, PeerError> {
        let request = self.prepare(what)?;
        self.send_prepared()?;
        Ok(request)
    }

    /// Asks, but leaves the sending to [`Self::send_prepared`]. Never waits, so it may be called under locks.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Encoder<'_>, u64) -> Result<(), WireError>,
    ) -> Result<Request, PeerError> {
        let id = self.requests().add().ok_or_else(|| self.closed())?;
        let request = Request::new(Arc::clone(self), id);
        let wire = PeerError::wire(self.stream.remote());
        self.outbox.add(|say| what(say, id)).map_err(wire)?;
        Ok(request)
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
        let mut requests = self.requests();
        loop {
            match requests.role(id) {
                Role::Answered(kind, payload) => {
                    requests.pass_on();
                    drop(requests);
                    // Whoever read it has looked at it already.
                    return match Message::decode(Frame { kind, id, payload: &payload }) {
                        Ok(message) => Waited::Answer(take(message)),
                        Err(_) => Waited::Ended,
                    };
                }
                Role::Ended => return Waited::Ended,
                Role::Reads => {
                    drop(requests);
                    let read = self.read_until(id, until, take);
                    self.requests().stop_reading(id);
                    return read;
                }
                Role::Waits(bell) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        requests.leave(id);
                        return Waited::NotYet;
                    }
                    requests = bell.wait_timeout(requests, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Reads until the answer to that request has come.
    fn read_until<R>(&self, id: u64, until: Instant, take: impl FnOnce(Message<'_>) -> R) -> Waited<R> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let why = match reader.next(&mut Heard(self)) {
                Ok(Ok(Some(frame))) => match Message::decode(frame) {
                    Ok(message) if frame.id == id && is_answer(&message) => {
                        let answer = take(message);
                        self.hear_rest(&mut reader);
                        return Waited::Answer(answer);
                    }
                    Ok(message) => match self.hear(frame, message) {
                        Ok(()) => continue,
                        Err(why) => why,
                    },
                    Err(error) => error.to_string(),
                },
                Ok(Ok(None)) => "the peer ended the connection".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) if is_only_later(&error) => {
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

    /// Hears what has come together with an answer. What is wrong with it is found by whoever reads next.
    fn hear_rest(&self, reader: &mut FrameReader) {
        while let Ok(Some(frame)) = reader.next_held() {
            let heard = Message::decode(frame).map_err(|error| error.to_string());
            if let Err(why) = heard.and_then(|message| self.hear(frame, message)) {
                self.end(&why);
                return;
            }
        }
    }

    /// A message that is not for whoever reads. `Err`: no lender says this.
    fn hear(&self, frame: Frame<'_>, message: Message<'_>) -> Result<(), String> {
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
            message if is_answer(&message) => self.requests().hand_over(frame),
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
struct Heard<'a>(&'a Connection);

impl Read for Heard<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.stream.receive(into)?;
        self.0.heard_ms.store(self.0.clock.now_ms(), Relaxed);
        Ok(count)
    }
}
