//! Payloads that come.

use tmem_store::TierCopy;

use super::{
    error::WireError,
    fields::Fields,
    frame::Frame,
    gets::{Gets, Gots},
    lists::{Copies, Fetched, Flushes, Listed, MAX_PUTS, Puts},
};

/// The numbers of the messages.
pub(super) mod kind {
    pub(in super::super) const PUT: u16 = 1;
    pub(in super::super) const GET: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const PING: u16 = 4;
    pub(in super::super) const OFFER: u16 = 5;
    pub(in super::super) const RECALL: u16 = 6;
    pub(in super::super) const LIST: u16 = 7;
    pub(in super::super) const FETCH: u16 = 8;
    pub(in super::super) const PUT_DONE: u16 = 129;
    pub(in super::super) const GOT: u16 = 130;
    pub(in super::super) const FLUSHED: u16 = 131;
    pub(in super::super) const PONG: u16 = 132;
    pub(in super::super) const LISTED: u16 = 133;
    pub(in super::super) const FETCHED: u16 = 134;
    pub(in super::super) const REFUSED: u16 = 255;
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Keep these copies.
    Put(Puts<'a>),
    /// Give these bytes of copies.
    Get(Gets<'a>),
    /// Forget these.
    Flush(Flushes<'a>),
    /// Are you there?
    Ping,
    /// So much is lent, and so much more can be.
    Offer {
        /// What may still be borrowed, in bytes.
        free_bytes: u64,
        /// What this borrower has, in bytes.
        lent_bytes: u64,
    },
    /// These copies will be dropped.
    Recall {
        /// In so many milliseconds.
        deadline_ms: u32,
        /// Which.
        copies: Copies<'a>,
    },
    /// Which copies of mine do you have, from this place on?
    List {
        /// The first place that is asked for.
        from_place: u32,
    },
    /// Give a whole copy, with its runs.
    Fetch(TierCopy),
    /// What became of each copy of a put.
    PutDone(PutResults<'a>),
    /// The bytes that were asked for, as far as they are there.
    Got(Gots<'a>),
    /// Forgotten.
    Flushed,
    /// I am.
    Pong,
    /// These copies there are.
    Listed(Listed<'a>),
    /// The copy that was asked for.
    Fetched(Fetched<'a>),
    /// It was not done.
    Refused(Reason),
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PutResult {
    /// It can be read.
    Stored = 0,
    /// There is no room for it.
    NoRoom = 1,
}

/// What became of each copy of a put, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutResults<'a>(&'a [u8]);

impl<'a> PutResults<'a> {
    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = PutResult> + 'a {
        self.0.iter().map(|byte| if *byte == 0 { PutResult::Stored } else { PutResult::NoRoom })
    }
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Reason {
    /// There is no such copy, or it has not all of these bytes.
    NotThere = 1,
    /// The copy was recalled, and its time was up.
    Dropped = 2,
    /// More requests are under way than are taken.
    TooMany = 3,
    /// This peer may not.
    NotAllowed = 4,
    /// Who asks, or is asked, was given up by the others.
    Fenced = 5,
}

impl Reason {
    pub(super) fn of(number: u16) -> Option<Self> {
        let all = [Self::NotThere, Self::Dropped, Self::TooMany, Self::NotAllowed, Self::Fenced];
        all.into_iter().find(|reason| *reason as u16 == number)
    }
}

impl<'a> Message<'a> {
    /// What a frame says.
    pub fn decode(frame: Frame<'a>) -> Result<Self, WireError> {
        let payload = frame.payload;
        match frame.kind {
            kind::PUT => Puts::decode(payload).map(Message::Put),
            kind::GET => Gets::decode(payload).map(Message::Get),
            kind::FLUSH => Flushes::decode(payload).map(Message::Flush),
            kind::PING => empty("ping", payload, Message::Ping),
            kind::OFFER => offer(payload).ok_or(malformed("offer", "a wrong length")),
            kind::RECALL => recall(payload).map_err(|what| malformed("recall", what)),
            kind::LIST => list(payload).ok_or(malformed("list", "a wrong length")),
            kind::FETCH => fetch(payload).ok_or(malformed("fetch", "a wrong length")),
            kind::PUT_DONE => put_done(payload).ok_or(malformed("put's answer", "results that are none")),
            kind::GOT => Gots::decode(payload).map(Message::Got),
            kind::FLUSHED => empty("flush's answer", payload, Message::Flushed),
            kind::PONG => empty("ping's answer", payload, Message::Pong),
            kind::LISTED => Listed::decode(payload).map(Message::Listed),
            kind::FETCHED => Fetched::decode(payload).map(Message::Fetched),
            kind::REFUSED => refused(payload).ok_or(malformed("refusal", "no reason")),
            unknown => Err(WireError::Kind(unknown)),
        }
    }
}

fn malformed(message: &'static str, what: &'static str) -> WireError {
    WireError::Malformed { message, what }
}

fn empty<'a>(name: &'static str, payload: &[u8], message: Message<'a>) -> Result<Message<'a>, WireError> {
    if payload.is_empty() { Ok(message) } else { Err(malformed(name, "bytes where none should be")) }
}

fn offer(payload: &[u8]) -> Option<Message<'_>> {
    let mut fields = Fields::of(payload);
    let offer = Message::Offer { free_bytes: fields.u64()?, lent_bytes: fields.u64()? };
    fields.is_empty().then_some(offer)
}

fn recall(payload: &[u8]) -> Result<Message<'_>, &'static str> {
    let mut fields = Fields::of(payload);
    let deadline_ms = fields.u32().ok_or("no end")?;
    Ok(Message::Recall { deadline_ms, copies: Copies::decode(&mut fields)? })
}

fn list(payload: &[u8]) -> Option<Message<'_>> {
    let mut fields = Fields::of(payload);
    let from_place = fields.u32()?;
    fields.is_empty().then_some(Message::List { from_place })
}

fn fetch(payload: &[u8]) -> Option<Message<'_>> {
    let mut fields = Fields::of(payload);
    let copy = fields.copy()?;
    fields.is_empty().then_some(Message::Fetch(copy))
}

fn put_done(payload: &[u8]) -> Option<Message<'_>> {
    let mut fields = Fields::of(payload);
    let count = usize::from(fields.u16()?);
    let results = fields.rest();
    let is_valid = (1..=MAX_PUTS).contains(&count) && results.len() == count;
    (is_valid && results.iter().all(|byte| *byte <= 1)).then_some(Message::PutDone(PutResults(results)))
}

fn refused(payload: &[u8]) -> Option<Message<'_>> {
    let mut fields = Fields::of(payload);
    let reason = Reason::of(fields.u16()?)?;
    fields.is_empty().then_some(Message::Refused(reason))
}
