//! The handshake: what the client asks for before it gets an export.
//!
//! Options are read to the byte and never ahead, so that what follows `STARTTLS` is TLS's own, and nothing that was sent in the clear
//! counts afterwards.

use std::io;

use crate::{
    attendance::Refused,
    exports::{Attached, Exports},
    link::{Link, receive_exactly},
    option::{self, InfoRequest, Malformed, MetaRequest},
    protocol::{
        BASE_ALLOCATION, BASE_ALLOCATION_ID, EXPORT_NAME_ZEROES, FIXED_NEWSTYLE, GREETING_MAGIC, NO_ZEROES,
        OPTION_MAGIC, OPTION_REPLY_MAGIC, info, option as opt, rep, transmission,
    },
    socket::Socket,
};

/// Data of one option at most, in bytes. The longest that make sense have two strings of 4096.
const MAX_OPTION_BYTES: u32 = 64 << 10;

/// What the client is told of sizes, in bytes: any will do, pages are best.
const MIN_BLOCK_BYTES: u32 = 1;
const PREFERRED_BLOCK_BYTES: u32 = 4096;
/// The most a read or a write may carry. As much as clients take for granted where they are told nothing.
pub(crate) const MAX_PAYLOAD_BYTES: u32 = 32 << 20;

/// What TLS means on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Security {
    /// There is none, and none is needed.
    Clear,
    /// The client may ask for it.
    TlsOffered,
    /// The client must ask for it before anything else.
    TlsRequired,
    /// It is there.
    Encrypted,
}

/// Which headers requests and replies have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Headers {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended both ways.
    Extended,
}

/// What a client and its export agreed on.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) export: Attached,
    pub(crate) headers: Headers,
    /// Whether the client may ask for `base:allocation`.
    pub(crate) block_status: bool,
}

/// How a handshake ends.
#[derive(Debug)]
pub(crate) enum Agreed {
    /// Requests follow.
    Session(Session),
    /// TLS follows, and then another handshake without a greeting.
    StartTls,
    /// The client has had enough.
    Nothing,
}

/// Why a client is not talked to any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Link(#[from] io::Error),
    #[error("it does not speak fixed newstyle NBD")]
    Oldstyle,
    #[error("it sent something that is no option")]
    NoOption,
    #[error("it sent {0} bytes with an option, which are too many")]
    TooLong(u32),
    #[error("it asked for an export that it cannot have, in a way that leaves no room for an answer")]
    NoExport,
}

/// Greets the client; gives whether it does without zeroes.
pub(crate) fn greet(link: &mut impl Link) -> Result<bool, HandshakeError> {
    let mut greeting = Vec::with_capacity(18);
    greeting.extend(GREETING_MAGIC.to_be_bytes());
    greeting.extend(OPTION_MAGIC.to_be_bytes());
    greeting.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    link.send(&greeting)?;
    let mut flags = [0; 4];
    receive_exactly(link, &mut flags)?;
    let flags = u32::from_be_bytes(flags);
    let known = u32::from(FIXED_NEWSTYLE | NO_ZEROES);
    if flags & !known != 0 || flags & u32::from(FIXED_NEWSTYLE) == 0 {
        return Err(HandshakeError::Oldstyle);
    }
    Ok(flags & u32::from(NO_ZEROES) != 0)
}

/// Answers options until the client has what it wants. `socket` is what ends the connection when its export goes.
pub(crate) fn negotiate(
    link: &mut impl Link,
    exports: &Exports,
    security: Security,
    no_zeroes: bool,
    socket: Option<&Socket>,
) -> Result<Agreed, HandshakeError> {
    let mut handshake =
        Handshake { link, exports, security, no_zeroes, socket, headers: Headers::Simple, context_of: None };
    loop {
        if let Some(agreed) = handshake.answer_option()? {
            return Ok(agreed);
        }
    }
}

struct Handshake<'a, L> {
    link: &'a mut L,
    exports: &'a Exports,
    security: Security,
    no_zeroes: bool,
    socket: Option<&'a Socket>,
    headers: Headers,
    /// The export that the client chose `base:allocation` of.
    context_of: Option<String>,
}

impl<L: Link> Handshake<'_, L> {
    fn answer_option(&mut self) -> Result<Option<Agreed>, HandshakeError> {
        let mut header = [0; 16];
        receive_exactly(self.link, &mut header)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if [word(0), word(4)] != [(OPTION_MAGIC >> 32) as u32, OPTION_MAGIC as u32] {
            return Err(HandshakeError::NoOption);
        }
        let (option, len) = (word(8), word(12));
        if len > MAX_OPTION_BYTES {
            return Err(HandshakeError::TooLong(len));
        }
        let mut data = vec![0; len as usize];
        receive_exactly(self.link, &mut data)?;
        if self.security == Security::TlsRequired && ![opt::STARTTLS, opt::ABORT].contains(&option) {
            if option == opt::EXPORT_NAME {
                return Err(HandshakeError::NoExport);
            }
            self.refuse(option, rep::ERR_TLS_REQD, "this address is served with TLS only")?;
            return Ok(None);
        }
        match option {
            opt::EXPORT_NAME => return self.export_name(&data).map(Some),
            opt::ABORT => {
                // The client need not wait for it.
                let _ = self.reply(option, rep::ACK, &[]);
                return Ok(Some(Agreed::Nothing));
            }
            opt::INFO | opt::GO => return self.info(option, &data),
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => self.meta_context(option, &data)?,
            opt::LIST | opt::STARTTLS | opt::STRUCTURED_REPLY | opt::EXTENDED_HEADERS if !data.is_empty() => {
                self.refuse(option, rep::ERR_INVALID, "this option takes no data")?;
            }
            opt::LIST => self.list()?,
            opt::STARTTLS => return self.start_tls(),
            opt::STRUCTURED_REPLY if self.headers == Headers::Extended => {
                self.refuse(option, rep::ERR_EXT_HEADER_REQD, "extended headers were agreed on")?;
            }
            opt::STRUCTURED_REPLY => {
                self.headers = Headers::Structured;
                self.reply(option, rep::ACK, &[])?;
            }
            opt::EXTENDED_HEADERS => {
                self.headers = Headers::Extended;
                self.reply(option, rep::ACK, &[])?;
            }
            _ => self.refuse(option, rep::ERR_UNSUP, "this option is not known here")?,
        }
        Ok(None)
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = Vec::with_capacity(20 + data.len());
        reply.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        reply.extend(option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend((data.len() as u32).to_be_bytes());
        reply.extend(data);
        self.link.send(&reply)
    }

    fn refuse(&mut self, option: u32, kind: u32, why: &str) -> io::Result<()> {
        self.reply(option, kind, why.as_bytes())
    }

    fn start_tls(&mut self) -> Result<Option<Agreed>, HandshakeError> {
        match self.security {
            Security::Clear => {
                self.refuse(opt::STARTTLS, rep::ERR_POLICY, "the server was started without certificates")?;
            }
            Security::Encrypted => self.refuse(opt::STARTTLS, rep::ERR_INVALID, "TLS is there already")?,
            Security::TlsOffered | Security::TlsRequired => {
                self.reply(opt::STARTTLS, rep::ACK, &[])?;
                return Ok(Some(Agreed::StartTls));
            }
        }
        Ok(None)
    }

    fn list(&mut self) -> io::Result<()> {
        for name in self.exports.names() {
            let data = [&(name.len() as u32).to_be_bytes(), name.as_bytes()].concat();
            self.reply(opt::LIST, rep::SERVER, &data)?;
        }
        self.reply(opt::LIST, rep::ACK, &[])
    }

    fn flags(&self) -> u16 {
        use transmission::*;
        let always = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES;
        // All connections see what one wrote as soon as it was answered, and there is nothing to flush.
        let always = always | CAN_MULTI_CONN | SEND_FAST_ZERO;
        if self.headers == Headers::Simple { always } else { always | SEND_DF }
    }

    /// The old way in: no answer but the export itself.
    fn export_name(&mut self, data: &[u8]) -> Result<Agreed, HandshakeError> {
        if self.headers == Headers::Extended {
            return Err(HandshakeError::NoExport);
        }
        let name = option::name(data).map_err(|Malformed| HandshakeError::NoExport)?;
        let export = self.exports.find(name).ok_or(HandshakeError::NoExport)?;
        let export = Attached::new(export, self.socket.cloned()).map_err(|_| HandshakeError::NoExport)?;
        let mut answer = Vec::with_capacity(10 + EXPORT_NAME_ZEROES);
        answer.extend(export.disk().size_bytes().to_be_bytes());
        answer.extend(self.flags().to_be_bytes());
        if !self.no_zeroes {
            answer.extend([0; EXPORT_NAME_ZEROES]);
        }
        self.link.send(&answer)?;
        Ok(Agreed::Session(self.session(export)))
    }

    fn session(&self, export: Attached) -> Session {
        // The context counts for the export it was chosen of.
        let block_status = self.context_of.as_deref() == Some(export.disk().name());
        Session { export, headers: self.headers, block_status }
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Result<Option<Agreed>, HandshakeError> {
        let Ok(request) = InfoRequest::read(data) else {
            self.refuse(option, rep::ERR_INVALID, "the option's data makes no sense")?;
            return Ok(None);
        };
        let Some(export) = self.exports.find(request.export) else {
            self.refuse(option, rep::ERR_UNKNOWN, "there is no export of this name")?;
            return Ok(None);
        };
        // The export itself is not held while the client is talked to, so that it can go meanwhile.
        let (name, size_bytes) = (export.disk.name().to_owned(), export.disk.size_bytes());
        // Before the client is told anything, because the answer cannot be taken back.
        let attached = if option == opt::GO {
            match Attached::new(export, self.socket.cloned()) {
                Ok(attached) => Some(attached),
                Err(Refused::Closed) => {
                    self.refuse(option, rep::ERR_UNKNOWN, "the export is being removed")?;
                    return Ok(None);
                }
                Err(Refused::Full) => {
                    self.refuse(option, rep::ERR_POLICY, "the export has as many connections as it takes")?;
                    return Ok(None);
                }
            }
        } else {
            drop(export);
            None
        };
        let mut item = info::EXPORT.to_be_bytes().to_vec();
        item.extend(size_bytes.to_be_bytes());
        item.extend(self.flags().to_be_bytes());
        self.reply(option, rep::INFO, &item)?;
        if request.items.contains(&info::NAME) {
            let item = [&info::NAME.to_be_bytes(), name.as_bytes()].concat();
            self.reply(option, rep::INFO, &item)?;
        }
        let mut item = info::BLOCK_SIZE.to_be_bytes().to_vec();
        [MIN_BLOCK_BYTES, PREFERRED_BLOCK_BYTES, MAX_PAYLOAD_BYTES]
            .iter()
            .for_each(|bytes| item.extend(bytes.to_be_bytes()));
        self.reply(option, rep::INFO, &item)?;
        self.reply(option, rep::ACK, &[])?;
        Ok(attached.map(|export| Agreed::Session(self.session(export))))
    }

    fn meta_context(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let set = option == opt::SET_META_CONTEXT;
        if set {
            self.context_of = None;
        }
        if self.headers == Headers::Simple {
            return self.refuse(option, rep::ERR_INVALID, "structured replies come first");
        }
        let Ok(request) = MetaRequest::read(data) else {
            return self.refuse(option, rep::ERR_INVALID, "the option's data makes no sense");
        };
        let Some(export) = self.exports.find(request.export) else {
            return self.refuse(option, rep::ERR_UNKNOWN, "there is no export of this name");
        };
        let name = export.disk.name().to_owned();
        drop(export);
        let asked = |query: &&str| *query == BASE_ALLOCATION || (!set && *query == "base:");
        let listed = !set && request.queries.is_empty();
        if listed || request.queries.iter().any(asked) {
            let id = if set { BASE_ALLOCATION_ID } else { 0 };
            let data = [&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()].concat();
            self.reply(option, rep::META_CONTEXT, &data)?;
            if set {
                self.context_of = Some(name);
            }
        }
        self.reply(option, rep::ACK, &[])
    }
}
