//! Writing: each extent to as many nodes as were promised, all at once, until all of them have acknowledged.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tmem_cluster::{
    NodeId,
    ledger::{Read, Ticket},
    wire::{Message, PutResult, Run},
};
use tmem_store::{TierCopy, TierError};

use super::{
    borrower::{Borrower, REQUEST_TIME},
    packed::Packed,
};
use crate::connection::{Connection, Request, Waited};

/// For all of a writing, whatever nodes do: then the pages stay at home for now.
const WRITE_TIME: Duration = Duration::from_secs(8);

/// So many extents go in one message: while a peer stores them, the next ones are made ready and travel.
const PUT_TOGETHER: usize = 1;

/// What goes to a node: which extent, by its number in the batch.
type Sending = (usize, Ticket);

/// What goes to each node, and the way there.
type Sendings = BTreeMap<NodeId, (Option<Arc<Connection>>, Vec<Sending>)>;

/// What became of a put.
enum Answer {
    /// Whether each copy was stored.
    Each(Vec<bool>),
    /// It was refused as a whole.
    No,
    /// That is no answer to a put.
    Strange,
}

impl Borrower {
    /// Writes extents, and returns when all copies of all of them can be read. Errors: none of them is kept anywhere.
    pub(super) fn write(&self, extents: &[Packed<'_>]) -> Result<(), TierError> {
        let copies = || extents.iter().map(|extent| extent.copy);
        let written = self.enter(copies()).and_then(|()| self.place(extents));
        if written.is_err() {
            self.give_up(copies());
        }
        written
    }

    /// Copies are about to be written.
    pub(super) fn enter(&self, mut copies: impl Iterator<Item = TierCopy>) -> Result<(), TierError> {
        let mut book = self.book();
        copies.try_for_each(|copy| {
            book.needed.remove(&copy.place);
            book.ledger.put(copy).map_err(|error| TierError::Unavailable(error.to_string()))
        })
    }

    /// Copies were not written: nobody is to have any of them.
    pub(super) fn give_up(&self, copies: impl Iterator<Item = TierCopy>) {
        let mut book = self.book();
        for copy in copies {
            if book.ledger.read(copy) != Read::Unknown {
                book.ledger.flush(copy.place);
            }
        }
    }

    fn place(&self, extents: &[Packed<'_>]) -> Result<(), TierError> {
        let deadline = Instant::now() + WRITE_TIME;
        let mut refusers = vec![Vec::new(); extents.len()];
        loop {
            let sendings = self.choose(extents, &refusers)?;
            if sendings.is_empty() {
                return self.check_placed(extents);
            }
            if Instant::now() >= deadline {
                return Err(TierError::Unavailable("peers take too long".to_owned()));
            }
            let asked = send(extents, &sendings);
            self.hear(extents, asked, deadline.min(Instant::now() + REQUEST_TIME), &mut refusers);
        }
    }

    /// Sends extents to peers that take them, once.
    pub(super) fn send_once(&self, extents: &[Packed<'_>]) {
        let mut refusers = vec![Vec::new(); extents.len()];
        if let Ok(sendings) = self.choose(extents, &refusers) {
            let asked = send(extents, &sendings);
            self.hear(extents, asked, Instant::now() + REQUEST_TIME, &mut refusers);
        }
    }

    /// Waits for what peers say.
    fn hear(
        &self,
        extents: &[Packed<'_>],
        asked: Vec<(NodeId, Option<Request>, &[Sending])>,
        until: Instant,
        refusers: &mut [Vec<NodeId>],
    ) {
        for (node, request, sendings) in asked {
            let answer = request.as_ref().map_or(Answer::No, |request| answer(request, until));
            let connection = request.as_ref().map(Request::connection);
            self.conclude(node, connection, extents, sendings, &answer, refusers);
        }
    }

    /// The store forgets what it has of them after this: each has to be somewhere.
    fn check_placed(&self, extents: &[Packed<'_>]) -> Result<(), TierError> {
        let book = self.book();
        let is_gone = |extent: &&Packed<'_>| matches!(book.ledger.read(extent.copy), Read::Home | Read::Lost);
        match extents.iter().find(is_gone) {
            Some(extent) => {
                let place = extent.copy.place;
                Err(TierError::Unavailable(format!("the peers of place {place} went meanwhile")))
            }
            None => Ok(()),
        }
    }

    /// Chooses nodes for what is missing of each extent. Nothing: all are where they should be.
    fn choose(&self, extents: &[Packed<'_>], refusers: &[Vec<NodeId>]) -> Result<Sendings, TierError> {
        let mut book = self.book();
        // The store keeps its memory until this returns, and needs no list.
        book.ledger.take_settled();
        let mut sendings = Sendings::new();
        for (number, (extent, refusers)) in extents.iter().zip(refusers).enumerate() {
            // What is in the other tier already is as good as at home.
            if !matches!(book.ledger.read(extent.copy), Read::Home | Read::Backing) {
                continue;
            }
            let Some(want) = book.ledger.next_want(extent.copy.place).filter(|want| want.copy == extent.copy)
            else {
                continue;
            };
            let others = [&want.others[..], refusers].concat();
            let bytes = extent.bytes.len() as u64;
            // What another tier has may have fewer copies for now, or none.
            let fewest = if self.backing.is_some() { 1 } else { want.missing };
            let choose = |count| book.placement.choose(count, bytes, &want.holders, &others);
            let nodes = match (fewest..=want.missing).rev().find_map(choose) {
                Some(nodes) => nodes,
                None if self.backing.is_some() => continue,
                None => {
                    return Err(TierError::Unavailable("too few peers have room for more".to_owned()));
                }
            };
            for (node, ticket) in book.ledger.send(extent.copy, &nodes) {
                let connection = book.seats.get(&node).and_then(|seat| seat.connection.clone());
                sendings.entry(node).or_insert((connection, Vec::new())).1.push((number, ticket));
            }
        }
        Ok(sendings)
    }

    fn conclude(
        &self,
        node: NodeId,
        connection: Option<&Arc<Connection>>,
        extents: &[Packed<'_>],
        sendings: &[Sending],
        answer: &Answer,
        refusers: &mut [Vec<NodeId>],
    ) {
        if let (Answer::Strange, Some(connection)) = (answer, connection) {
            connection.end("it does not answer a put as it should");
        }
        let mut book = self.book();
        for (at, (number, ticket)) in sendings.iter().enumerate() {
            let is_stored = match answer {
                Answer::Each(stored) => stored.get(at).copied().unwrap_or(false),
                Answer::No | Answer::Strange => false,
            };
            match connection.filter(|_| is_stored) {
                Some(connection) => {
                    let epoch = connection.hello().epoch;
                    Self::acknowledge(&mut book, *ticket, extents[*number].copy, node, epoch);
                }
                None => {
                    // It may have it all the same, and nobody wants it there any more.
                    if !book.ledger.refuse(*ticket)
                        && let Some(connection) = connection
                    {
                        let epoch = connection.hello().epoch;
                        book.ledger.owe(extents[*number].copy, node, epoch);
                    }
                    refusers[*number].push(node);
                }
            }
        }
        if matches!(answer, Answer::Each(stored) if stored.contains(&false)) {
            book.is_full(node);
        }
    }

    /// Sends a copy of an extent that others have to a node, and waits until it is stored. False: it is not.
    pub(super) fn put_one(&self, connection: &Arc<Connection>, extent: &Packed<'_>) -> PutOne {
        let extents = std::slice::from_ref(extent);
        let Some(request) = put(connection, extents, &[(0, Ticket(0))]) else { return PutOne::Failed };
        match answer(&request, Instant::now() + REQUEST_TIME) {
            Answer::Each(stored) if stored == [true] => PutOne::Stored,
            Answer::Each(_) => PutOne::NoRoom,
            Answer::No => PutOne::Failed,
            Answer::Strange => {
                connection.end("it does not answer a put as it should");
                PutOne::Failed
            }
        }
    }
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutOne {
    Stored,
    NoRoom,
    Failed,
}

/// Sends extents to their nodes: a part to each of them, and then the next, so that all of them have something to do.
fn send<'a>(extents: &[Packed<'_>], sendings: &'a Sendings) -> Vec<(NodeId, Option<Request>, &'a [Sending])> {
    let parts = sendings.values().map(|(_, sendings)| sendings.len().div_ceil(PUT_TOGETHER)).max();
    let mut asked = Vec::new();
    for part in 0..parts.unwrap_or(0) {
        for (node, (connection, sendings)) in sendings {
            let Some(sendings) = sendings.chunks(PUT_TOGETHER).nth(part) else { continue };
            let connection = connection.as_ref();
            let request = connection.and_then(|connection| put(connection, extents, sendings));
            asked.push((*node, request, sendings));
        }
    }
    asked
}

/// Sends a put. `None`: the connection has ended.
fn put(connection: &Arc<Connection>, extents: &[Packed<'_>], sendings: &[Sending]) -> Option<Request> {
    let puts: Vec<(TierCopy, &[Run], &[u8])> = sendings
        .iter()
        .map(|(number, _)| &extents[*number])
        .map(|extent| (extent.copy, &extent.runs[..], &extent.bytes[..]))
        .collect();
    connection.wait_for_room();
    connection.ask(|say, id| say.put(id, &puts)).ok()
}

fn answer(request: &Request, until: Instant) -> Answer {
    let waited = request.wait(until, |message| match message {
        Message::PutDone(results) => {
            Answer::Each(results.iter().map(|result| result == PutResult::Stored).collect())
        }
        Message::Refused(_) => Answer::No,
        _ => Answer::Strange,
    });
    match waited {
        Waited::Answer(answer) => answer,
        Waited::NotYet => Answer::Strange,
        Waited::Ended => Answer::No,
    }
}
