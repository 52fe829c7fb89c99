//! Reading: from the peer that answers fastest, and from another one when that takes too long, has lost it, or says something else.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tmem_cluster::{
    NodeId,
    ledger::Read,
    wire::{Get, Message, Reason},
};
use tmem_store::{TierCopy, TierError};

use super::{
    borrower::{Borrower, REQUEST_TIME},
    peer::Peer,
};
use crate::connection::{Connection, Request, Waited};

/// How long reads wait for a peer that is away and may be back at once: below the two seconds that a guest can be held up.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);

/// Another peer is asked, too, when one takes this many times as long as usual...
const LATE_FACTOR: u32 = 5;

/// ...but not before this, because whoever reads looks up as often, and not after that.
const EARLIEST_HEDGE: Duration = Duration::from_millis(10);
const LATEST_HEDGE: Duration = Duration::from_millis(100);

/// With two asked, for how long one is waited for before the other is.
const SLICE: Duration = Duration::from_millis(5);

/// A peer that may have it, and the way there.
pub(super) type Holder = (Arc<Peer>, Arc<Connection>);

/// What a peer has of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It, as it should be.
    Good,
    /// Something else.
    Damaged,
    /// The copy, but not these bytes: they were released.
    NotTheseBytes,
    /// Nothing.
    Gone,
    /// It does not say.
    Unclear,
}

/// Where to read.
enum Source {
    From(Vec<Holder>),
    Later,
    Never,
}

/// A peer that was asked.
pub(super) struct Asked {
    pub(super) holder: Holder,
    pub(super) request: Request,
    pub(super) at: Instant,
}

impl Borrower {
    pub(super) fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        match &self.backing {
            None => self.read_before(copy, start, into, Instant::now() + PATIENCE),
            Some(backing) => self.read_either(&**backing, copy, start, into),
        }
    }

    /// The same. Peers that are away are waited for until `give_up`.
    pub(super) fn read_before(
        &self,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
        give_up: Instant,
    ) -> Result<(), TierError> {
        // Peers that answered, but not with what was asked for.
        let mut useless: Vec<(NodeId, Found)> = Vec::new();
        loop {
            let holders = match self.source(copy, &useless, give_up) {
                Source::From(holders) => holders,
                Source::Never => return Err(TierError::Damaged),
                Source::Later => {
                    return Err(TierError::Unavailable("the peers that have it are away".to_owned()));
                }
            };
            let known_useless = useless.len();
            let is_read = self.read_from(copy, start, into, holders, false, &mut useless);
            self.tell_ledger(copy, &useless, is_read);
            if is_read {
                return Ok(());
            }
            if useless.len() == known_useless {
                // Busy, or just gone.
                self.wait_for_change(self.book(), SLICE);
            }
            if Instant::now() >= give_up + REQUEST_TIME {
                return Err(TierError::Unavailable("the peers that have it do not answer".to_owned()));
            }
        }
    }

    /// The peers that have a copy and were not found useless, the fastest first. When none can be reached, waits for a while.
    fn source(&self, copy: TierCopy, useless: &[(NodeId, Found)], give_up: Instant) -> Source {
        loop {
            let book = self.book();
            let is_of_use = |node: &NodeId| useless.iter().all(|(known, _)| known != node);
            match book.ledger.read(copy) {
                Read::Peers(nodes) => {
                    let holders = book.holders(nodes.into_iter().filter(is_of_use));
                    if !holders.is_empty() {
                        return Source::From(holders);
                    }
                }
                Read::Lost => return Source::Never,
                // Nobody has it, and nobody else is to be heard.
                Read::Backing if book.is_complete() && !book.ledger.is_anywhere(copy) => {
                    return Source::Never;
                }
                Read::Unknown if book.is_complete() => return Source::Never,
                Read::Unknown | Read::NotNow | Read::Home | Read::Backing => {}
            }
            // Those that are away among them.
            let mut nodes: Vec<NodeId> = book.ledger.holders(copy).collect();
            let has_some = !nodes.is_empty();
            nodes.retain(is_of_use);
            if has_some && nodes.is_empty() {
                return Source::Never;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            // Who was away for so long already is not waited for by each read anew.
            let is_hopeless = has_some && nodes.iter().all(|node| book.is_long_away(*node, PATIENCE));
            if is_hopeless || left.is_zero() || self.is_over() {
                return Source::Later;
            }
            self.wait_for_change(book, left.min(Duration::from_millis(50)));
        }
    }

    /// Asks one after the other until one has it. In a `hurry` the last one is waited for as long as the others. False: none of them has, or says so.
    pub(super) fn read_from(
        &self,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
        holders: Vec<Holder>,
        hurry: bool,
        useless: &mut Vec<(NodeId, Found)>,
    ) -> bool {
        let mut others = holders.into_iter().peekable();
        let mut asked: Vec<Asked> = Vec::new();
        loop {
            let is_late = asked.last().is_none_or(|last| last.at.elapsed() >= hedge(&last.holder.0));
            if is_late && let Some(holder) = others.next() {
                asked.extend(ask(holder, copy, start, into.len()));
                continue;
            }
            if asked.is_empty() || hurry && is_late {
                // It takes at least so long.
                asked.iter().for_each(|asked| asked.holder.0.trips.note(asked.at.elapsed()));
                return false;
            }
            let is_alone = asked.len() == 1;
            for number in (0..asked.len()).rev() {
                let Asked { holder: (peer, connection), request, at } = &asked[number];
                let now = Instant::now();
                let until = match (is_alone, others.peek()) {
                    (true, None) if !hurry => *at + REQUEST_TIME,
                    (true, _) => *at + hedge(peer),
                    (false, _) => now + SLICE,
                };
                let found = match request.wait(until, |message| self.look_at(message, copy, start, into)) {
                    Waited::Answer(found) => found,
                    Waited::Ended => Found::Unclear,
                    Waited::NotYet if at.elapsed() >= REQUEST_TIME => {
                        connection.end("it does not answer a get");
                        Found::Unclear
                    }
                    Waited::NotYet => continue,
                };
                // A copy from which only these bytes were released says the same as none at all.
                let found = match found {
                    Found::Gone if hurry => {
                        self.suspect(copy, peer.id);
                        Found::NotTheseBytes
                    }
                    Found::Gone => confirm(connection, copy),
                    found => found,
                };
                match found {
                    Found::Good => {
                        peer.trips.note(at.elapsed());
                        return true;
                    }
                    Found::Unclear => {}
                    found => useless.push((peer.id, found)),
                }
                if found != Found::NotTheseBytes {
                    peer.errors.fetch_add(1, Relaxed);
                }
                asked.remove(number);
            }
        }
    }

    /// The answer to a get of one block.
    fn look_at(&self, message: Message<'_>, copy: TierCopy, start: usize, into: &mut [u8]) -> Found {
        match message {
            Message::Got(found) if found.count() == 1 => {
                found.iter().next().map_or(Found::Damaged, |found| self.take(found, copy, start, into))
            }
            Message::Refused(reason) => self.take(Err(reason), copy, start, into),
            _ => Found::Damaged,
        }
    }

    /// Takes a block, if it is there and right.
    pub(super) fn take(
        &self,
        found: Result<&[u8], Reason>,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
    ) -> Found {
        match found {
            Ok(bytes) if bytes.len() == into.len() => {
                into.copy_from_slice(bytes);
                if self.open(copy, start, into) { Found::Good } else { Found::Damaged }
            }
            Ok(_) => Found::Damaged,
            Err(Reason::NotThere | Reason::Dropped) => Found::Gone,
            Err(_) => Found::Unclear,
        }
    }

    /// Tells the ledger which copies are none. One that is damaged is kept as long as no other one could be read: other blocks of it may
    /// be whole.
    pub(super) fn tell_ledger(&self, copy: TierCopy, useless: &[(NodeId, Found)], is_read: bool) {
        let is_none = |found: Found| found == Found::Gone || found == Found::Damaged && is_read;
        if useless.iter().any(|(_, found)| is_none(*found)) {
            let mut book = self.book();
            for (node, _) in useless.iter().filter(|(_, found)| is_none(*found)) {
                log::warn!("{node} has lost or damaged a copy of place {}", copy.place);
                book.ledger.gone(copy, *node);
            }
            drop(book);
            self.repair_bell.ring();
        }
    }
}

/// When another one is asked as well.
pub(super) fn hedge(peer: &Peer) -> Duration {
    let usual = Duration::from_micros(u64::from(peer.trips.usual_us()));
    (usual * LATE_FACTOR).clamp(EARLIEST_HEDGE, LATEST_HEDGE)
}

fn ask((peer, connection): Holder, copy: TierCopy, start: usize, bytes: usize) -> Option<Asked> {
    let at = Instant::now();
    let get = get(copy, start, bytes)?;
    let request = connection.ask(|say, id| say.get(id, &[get])).ok()?;
    Some(Asked::new((peer, connection), request, at))
}

impl Asked {
    pub(super) fn new(holder: Holder, request: Request, at: Instant) -> Self {
        holder.0.reads.fetch_add(1, Relaxed);
        Self { holder, request, at }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.holder.0.reads.fetch_sub(1, Relaxed);
    }
}

/// The store reads within an extent.
pub(super) fn get(copy: TierCopy, start: usize, bytes: usize) -> Option<Get> {
    Some(Get { copy, start: u32::try_from(start).ok()?, bytes: u32::try_from(bytes).ok()? })
}

/// Whether a peer that does not have some bytes of a copy has the copy.
pub(super) fn confirm(connection: &Arc<Connection>, copy: TierCopy) -> Found {
    let Ok(request) = connection.ask(|say, id| say.fetch(id, copy)) else { return Found::Unclear };
    let waited = request.wait(Instant::now() + REQUEST_TIME, |message| match message {
        Message::Fetched(_) => Found::NotTheseBytes,
        Message::Refused(Reason::NotThere | Reason::Dropped) => Found::Gone,
        _ => Found::Unclear,
    });
    match waited {
        Waited::Answer(found) => found,
        Waited::NotYet | Waited::Ended => Found::Unclear,
    }
}
