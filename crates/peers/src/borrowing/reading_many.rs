//! Many blocks with few requests: all are asked for before the first is waited for. What does not come as it should is read by itself, with all that
//! may take.

use std::{sync::Arc, time::Instant};

use tmem_cluster::{
    NodeId,
    ledger::Read,
    wire::{Get, MAX_GETS, Message},
};
use tmem_store::{TierError, TierRead};

use super::{
    book::Book,
    borrower::Borrower,
    reading::{Asked, Found, Holder, PATIENCE, get, hedge},
};
use crate::connection::Waited;

/// The most that are under way for one call: what comes back is no more than a megabyte of pages.
const MOST_UNDER_WAY: usize = 256;

/// What is asked for with one request, in bytes: about a dozen pages, which are unpacked here while the lender looks up the next ones.
const TOGETHER_BYTES: usize = 16 << 10;

/// A request, and which of the blocks it is for.
struct Together {
    asked: Asked,
    numbers: Vec<usize>,
}

/// What is asked of one peer.
struct Share {
    holder: Holder,
    blocks: usize,
    /// What the next request will be.
    gets: Vec<Get>,
    numbers: Vec<usize>,
    bytes: usize,
}

impl Borrower {
    pub(super) fn read_many(&self, reads: &mut [TierRead<'_>]) {
        // Together they wait no longer than one would for peers that are away.
        let give_up = Instant::now() + PATIENCE;
        for part in reads.chunks_mut(MOST_UNDER_WAY) {
            let mut found = vec![None; part.len()];
            // Each says how long its peer took, which for all but the first is how long the others took, too.
            let mut is_first = true;
            for together in self.ask_for(part) {
                // One that does not answer takes at least so long.
                let is_answered = together.wait(self, part, &mut found);
                if std::mem::take(&mut is_first) || !is_answered {
                    together.note_time();
                }
            }
            for (read, found) in part.iter_mut().zip(found) {
                read.result = match found {
                    Some((_, Found::Good)) => Ok(()),
                    found => self.read_late(read, found, give_up),
                };
            }
        }
    }

    /// A block that peers did not give when all were asked for; one of them gave something else instead.
    fn read_late(
        &self,
        read: &mut TierRead<'_>,
        instead: Option<(NodeId, Found)>,
        give_up: Instant,
    ) -> Result<(), TierError> {
        let TierRead { copy, start, into, .. } = read;
        // Who reads from peers alone asks all of them again.
        let Some(backing) = &self.backing else { return self.read_before(*copy, *start, into, give_up) };
        let found = self.read_backing(&**backing, *copy, *start, into, give_up);
        match instead {
            Some((node, Found::Gone)) => self.suspect(*copy, node),
            Some(useless) => self.tell_ledger(*copy, &[useless], found.is_ok()),
            None => {}
        }
        found
    }

    /// Asks for all for which somebody is there to be asked.
    fn ask_for(&self, reads: &[TierRead<'_>]) -> Vec<Together> {
        let at = Instant::now();
        let (mut shares, mut asked) = (Vec::new(), Vec::new());
        {
            let book = self.book();
            for (number, read) in reads.iter().enumerate() {
                let wanted = get(read.copy, read.start, read.into.len());
                let Some((share, get)) = share_of(&book, read, &mut shares).zip(wanted) else { continue };
                let share = &mut shares[share];
                if share.is_full_with(read.into.len()) {
                    asked.extend(share.ask(at));
                }
                share.blocks += 1;
                share.bytes += read.into.len();
                share.gets.push(get);
                share.numbers.push(number);
            }
            shares.iter_mut().for_each(|share| asked.extend(share.ask(at)));
        }
        // Where it fails nothing is answered.
        shares.iter().for_each(|share| drop(share.holder.1.send_prepared()));
        asked
    }
}

/// The share of the peer that is likely to have the block here first.
fn share_of(book: &Book, read: &TierRead<'_>, shares: &mut Vec<Share>) -> Option<usize> {
    let Read::Peers(nodes) = book.ledger.read(read.copy) else { return None };
    let of = |node: NodeId, shares: &[Share]| shares.iter().position(|share| share.holder.0.id == node);
    let cost = |node: NodeId| {
        let seat = book.seats.get(&node).filter(|seat| seat.connection.is_some())?;
        Some((seat.peer.cost(of(node, shares).map_or(0, |share| shares[share].blocks)), node))
    };
    let (_, node) = nodes.into_iter().filter_map(cost).min()?;
    of(node, shares).or_else(|| {
        shares.push(Share::of(book.holder(node)?));
        Some(shares.len() - 1)
    })
}

impl Share {
    fn of(holder: Holder) -> Self {
        Self { holder, blocks: 0, gets: Vec::new(), numbers: Vec::new(), bytes: 0 }
    }

    /// Whether a block is one too many for the next request.
    fn is_full_with(&self, bytes: usize) -> bool {
        self.gets.len() == MAX_GETS || self.bytes > 0 && self.bytes + bytes > TOGETHER_BYTES
    }

    /// The next request, which is yet to be sent.
    fn ask(&mut self, at: Instant) -> Option<Together> {
        let (gets, numbers) = (std::mem::take(&mut self.gets), std::mem::take(&mut self.numbers));
        self.bytes = 0;
        if gets.is_empty() {
            return None;
        }
        let request = self.holder.1.prepare(|say, id| say.get(id, &gets)).ok()?;
        let holder = (Arc::clone(&self.holder.0), Arc::clone(&self.holder.1));
        Some(Together { asked: Asked::new(holder, request, at), numbers })
    }
}

impl Together {
    /// Waits for the answer as long as is usual, and takes what is right of it. False: there is none.
    fn wait(
        &self,
        borrower: &Borrower,
        reads: &mut [TierRead<'_>],
        each: &mut [Option<(NodeId, Found)>],
    ) -> bool {
        let Asked { holder: (peer, _), request, at } = &self.asked;
        let take = |message: Message<'_>| {
            let Message::Got(found) = message else { return false };
            for (number, found) in self.numbers.iter().zip(found.iter()) {
                let TierRead { copy, start, into, .. } = &mut reads[*number];
                each[*number] = Some((peer.id, borrower.take(found, *copy, *start, into)));
            }
            found.count() == self.numbers.len()
        };
        matches!(request.wait(*at + hedge(peer), take), Waited::Answer(true))
    }

    fn note_time(&self) {
        self.asked.holder.0.trips.note(self.asked.at.elapsed());
    }
}
