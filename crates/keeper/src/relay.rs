//! One guest's control connection: passes messages on to the worker's library and answers back, and outlives both.
//!
//! One message at a time is under way to the library. If the library answers it, the next is not read before that, and it is kept until
//! then, to be sent again should the worker die meanwhile.
//!
//! ```text
//! no worker --attach--> replay --all told--> open --the library hangs up--> no worker
//! ```

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::{
    channel::{Message, Progress, RelayError, send},
    parcel::{Kind, Parcel},
    replay::Replay,
    session::Session,
    vhost_user::{FLAG_REPLY, fitting_bytes},
    wire::Name,
};

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    /// The guest has left.
    Closed,
}

/// Written to the life when the library has hung up.
const HUNG_UP: u8 = b'H';
/// Written to the life before it is closed because of what the guest sent.
const BROKEN: u8 = b'B';

/// Messages passed on at a time, so that a guest or a worker that says more and more does not keep others waiting.
const AT_ONCE: usize = 64;

/// A message on its way from the guest.
#[derive(Debug, Default)]
struct Request {
    message: Message,
    /// Bytes the library has. `None` while the message is being read.
    sent: Option<usize>,
    is_answered: bool,
    /// The library has all of it and has not answered.
    waits_for_answer: bool,
}

/// A message on its way to the guest.
#[derive(Debug, Default)]
struct Answer {
    message: Message,
    sent: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) label: Name,
    guest: OwnedFd,
    library: Option<OwnedFd>,
    /// The worker's frontend sees this close with the connection.
    life: Option<OwnedFd>,
    session: Session,
    request: Request,
    answer: Answer,
    /// How far the library has been told the session, and how much of the message after that it has.
    replay: Option<(Replay, usize)>,
    /// Answers to come that the guest did not ask for.
    unasked: u32,
}

impl Relay {
    pub(crate) fn new(label: Name, guest: OwnedFd, library: OwnedFd, life: OwnedFd) -> Relay {
        let mut relay = Relay::with_session(label, guest, Session::default());
        relay.attach(library, life);
        relay
    }

    /// A guest that has a session, and no worker.
    pub(crate) fn with_session(label: Name, guest: OwnedFd, session: Session) -> Relay {
        Relay {
            label,
            guest,
            library: None,
            life: None,
            session,
            request: Request::default(),
            answer: Answer::default(),
            replay: None,
            unasked: 0,
        }
    }

    /// Whether nothing is under way from or to the guest: the session says all of it.
    fn is_quiet(&self) -> bool {
        self.request.message.bytes().is_empty() && self.answer.message.bytes().is_empty()
    }

    /// Puts connection and session into a parcel. One with something under way has to stay void, because part of that is in the keeper alone.
    pub(crate) fn pack(&self, parcel: &Parcel) -> io::Result<()> {
        if !self.is_quiet() {
            parcel.empty();
            return Ok(());
        }
        parcel.fill(Kind::Guest, &self.label, self.guest.as_fd(), |filling| {
            let mut replay = Replay::default();
            while let Some(told) = replay.next(&self.session) {
                filling.message(&told.bytes, &told.descriptors)?;
            }
            Ok(())
        })
    }

    /// Gives the guest another worker.
    pub(crate) fn attach(&mut self, library: OwnedFd, life: OwnedFd) {
        (self.library, self.life) = (Some(library), Some(life));
        self.replay = Some((Replay::default(), 0));
        self.unasked = 0;
        self.request.waits_for_answer = false;
        if let Some(sent) = &mut self.request.sent {
            *sent = 0;
        }
        if self.answer.sent.is_none() {
            self.answer.message.clear();
        }
    }

    /// Leaves the guest without a worker until the next one comes.
    pub(crate) fn detach(&mut self) {
        (self.library, self.life) = (None, None);
        self.replay = None;
    }

    fn reads_from_guest(&self) -> bool {
        self.library.is_some() && self.replay.is_none() && self.request.sent.is_none()
    }

    /// What to wait for: the guest, and the library.
    pub(crate) fn poll_set(&self) -> [libc::pollfd; 2] {
        let input = |reads| if reads { libc::POLLIN } else { 0 };
        let output = |writes| if writes { libc::POLLOUT } else { 0 };
        let sends_answer = self.answer.sent.is_some();
        let sends_request =
            self.replay.is_some() || (self.request.sent.is_some() && !self.request.waits_for_answer);
        [
            libc::pollfd {
                fd: self.guest.as_raw_fd(),
                events: input(self.reads_from_guest()) | output(sends_answer),
                revents: 0,
            },
            libc::pollfd {
                fd: self.library.as_ref().map_or(-1, AsRawFd::as_raw_fd),
                events: input(!sends_answer) | output(sends_request),
                revents: 0,
            },
        ]
    }

    /// Passes on what is there. `polled` is the set of [`Relay::poll_set`] after waiting. Errors: the guest is at fault.
    pub(crate) fn pass_on(&mut self, polled: &[libc::pollfd]) -> Result<Flow, RelayError> {
        if self.pass_answers()? == Flow::Closed || self.pass_requests()? == Flow::Closed {
            return Ok(Flow::Closed);
        }
        // A side that hung up while the other is waited for would wake us forever.
        let gone = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
        let hung_up = |at: usize| polled.get(at).is_some_and(|entry| entry.revents & gone != 0);
        if hung_up(1) && self.answer.sent.is_some() {
            self.library_hung_up();
        }
        Ok(if hung_up(0) && !self.reads_from_guest() { Flow::Closed } else { Flow::Open })
    }

    /// Tells the worker that the guest is turned away for what it sent.
    pub(crate) fn tell_broken(&self) {
        self.tell_worker(BROKEN);
    }

    fn tell_worker(&self, word: u8) {
        if let Some(life) = &self.life {
            // A worker that does not read its one byte is dying.
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(life, &[word], flags);
        }
    }

    fn library_hung_up(&mut self) {
        self.tell_worker(HUNG_UP);
        self.library = None;
        self.replay = None;
    }

    fn pass_answers(&mut self) -> Result<Flow, RelayError> {
        for _ in 0..AT_ONCE {
            if let Some(sent) = &mut self.answer.sent {
                match self.answer.message.send(self.guest.as_fd(), sent)? {
                    Progress::Waits => return Ok(Flow::Open),
                    Progress::Closed => return Ok(Flow::Closed),
                    Progress::Done => {}
                }
                self.answer.sent = None;
                self.answer.message.clear();
            }
            let Some(library) = &self.library else { return Ok(Flow::Open) };
            match self.answer.message.read(library.as_fd()) {
                Ok(Progress::Waits) => return Ok(Flow::Open),
                Ok(Progress::Done) => {
                    if !self.take_answer() {
                        return Err(RelayError::Regions);
                    }
                }
                // Whatever the worker sends, it is not the guest's fault.
                Ok(Progress::Closed) | Err(_) => {
                    self.library_hung_up();
                    return Ok(Flow::Open);
                }
            }
        }
        Ok(Flow::Open)
    }

    /// A whole message from the library. False: there is no room for what it confirms.
    fn take_answer(&mut self) -> bool {
        if self.unasked > 0 {
            self.unasked -= 1;
            self.answer.message.clear();
            return true;
        }
        self.answer.sent = Some(0);
        let answers = self.answer.message.view().flags() & FLAG_REPLY != 0;
        !(self.request.waits_for_answer && answers) || self.finish_request(true)
    }

    /// The request is done with. False: there is no room to remember it.
    fn finish_request(&mut self, was_answered: bool) -> bool {
        let (message, descriptors) = self.request.message.parts();
        let answer = was_answered.then(|| self.answer.message.view());
        let noted = self.session.note(message, descriptors, answer);
        self.request.message.clear();
        (self.request.sent, self.request.waits_for_answer) = (None, false);
        noted
    }

    fn pass_requests(&mut self) -> Result<Flow, RelayError> {
        let mut left = AT_ONCE;
        loop {
            let Some(library) = &self.library else { return Ok(Flow::Open) };
            let progress = if let Some((replay, sent)) = &mut self.replay {
                let mut next = *replay;
                match next.next(&self.session) {
                    None => {
                        self.replay = None;
                        continue;
                    }
                    Some(told) => {
                        let progress = send(library.as_fd(), &told.bytes, &told.descriptors, sent);
                        if let Ok(Progress::Done) = progress {
                            (*replay, *sent) = (next, 0);
                            self.unasked += u32::from(told.is_answered);
                        }
                        progress
                    }
                }
            } else if self.request.waits_for_answer {
                return Ok(Flow::Open);
            } else if let Some(sent) = &mut self.request.sent {
                let progress = self.request.message.send(library.as_fd(), sent);
                if let Ok(Progress::Done) = progress {
                    if self.request.is_answered {
                        self.request.waits_for_answer = true;
                    } else if !self.finish_request(false) {
                        return Err(RelayError::Regions);
                    }
                }
                progress
            } else if left == 0 {
                return Ok(Flow::Open);
            } else {
                left -= 1;
                match self.request.message.read(self.guest.as_fd())? {
                    Progress::Waits => return Ok(Flow::Open),
                    Progress::Closed => return Ok(Flow::Closed),
                    Progress::Done => {}
                }
                let bytes = fitting_bytes(self.request.message.bytes());
                self.request.message.cut(bytes);
                self.request.is_answered = self.session.is_answered(self.request.message.view());
                self.request.sent = Some(0);
                continue;
            };
            match progress {
                Ok(Progress::Done) => {}
                Ok(Progress::Waits) => return Ok(Flow::Open),
                Ok(Progress::Closed) | Err(_) => {
                    self.library_hung_up();
                    return Ok(Flow::Open);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;
    use crate::vhost_user::HEADER_BYTES;

    #[test]
    fn who_talks_all_the_time_does_not_keep_others_waiting() {
        let ((mut guest, ours), (library, other), (life, _)) =
            (UnixStream::pair().unwrap(), UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let mut relay = Relay::new(Name::default(), ours.into(), library.into(), life.into());
        let header: Vec<u8> = [3u32, 1, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        guest.write_all(&header.repeat(AT_ONCE + 1)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        for rest in [AT_ONCE, 1] {
            assert_eq!(relay.pass_on(&relay.poll_set()).unwrap(), Flow::Open);
            assert_eq!((&other).read(&mut buffer).unwrap() / HEADER_BYTES, rest);
        }
        // Answers that nobody asked for, too.
        (&other).write_all(&header.repeat(AT_ONCE + 1)).unwrap();
        for most in [AT_ONCE, 2] {
            assert_eq!(relay.pass_on(&relay.poll_set()).unwrap(), Flow::Open);
            assert!(guest.read(&mut buffer).unwrap() / HEADER_BYTES <= most);
        }
    }
}
