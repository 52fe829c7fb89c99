//! Reading many blocks: each is asked for before the first is waited for. What does not come as it should is read by itself, with all that may take.

use std::{sync::Arc, time::Instant};

use tmem_cluster::ledger::Read;
use tmem_store::TierRead;

use super::{
    book::Book,
    borrower::Borrower,
    reading::{Asked, Found, Holder, PATIENCE, hedge, look_at},
};
use crate::connection::{Connection, Waited};

/// The most that are under way for one call: what comes back is no more than a megabyte of pages.
const MOST_UNDER_WAY: usize = 256;

impl Borrower {
    pub(super) fn read_many(&self, reads: &mut [TierRead<'_>]) {
        // Together they wait no longer than one would for peers that are away.
        let give_up = Instant::now() + PATIENCE;
        for part in reads.chunks_mut(MOST_UNDER_WAY) {
            let asked = self.ask_for(part);
            // Each says how long its peer took, which for all but the first is how long the others took, too.
            let mut is_first = true;
            for (read, asked) in part.iter_mut().zip(asked) {
                let is_read = asked.is_some_and(|asked| is_answered(&asked, read.into, &mut is_first));
                read.result = match is_read {
                    true => Ok(()),
                    false => self.read_before(read.copy, read.start, read.into, give_up),
                };
            }
        }
    }

    /// Asks for each, if somebody is there to be asked.
    fn ask_for(&self, reads: &[TierRead<'_>]) -> Vec<Option<Asked>> {
        let mut connections: Vec<Arc<Connection>> = Vec::new();
        let asked = {
            let book = self.book();
            let at = Instant::now();
            let ask = |read: &TierRead<'_>| {
                let holder = fastest(&book, read)?;
                let (start, bytes) = (u32::try_from(read.start).ok()?, u32::try_from(read.into.len()).ok()?);
                let request = holder.1.prepare(|say, id| say.get(id, read.copy, start, bytes)).ok()?;
                if !connections.iter().any(|known| Arc::ptr_eq(known, &holder.1)) {
                    connections.push(Arc::clone(&holder.1));
                }
                Some(Asked::new(holder, request, at))
            };
            reads.iter().map(ask).collect()
        };
        // Where it fails nothing is answered.
        connections.iter().for_each(|connection| drop(connection.send_prepared()));
        asked
    }
}

/// The peer that is likely to have the block here first.
fn fastest(book: &Book, read: &TierRead<'_>) -> Option<Holder> {
    let Read::Peers(nodes) = book.ledger.read(read.copy) else { return None };
    let seats = nodes.iter().filter_map(|node| book.seats.get(node));
    let there = seats.filter_map(|seat| Some((&seat.peer, seat.connection.as_ref()?)));
    let (peer, connection) = there.min_by_key(|(peer, _)| peer.cost())?;
    Some((Arc::clone(peer), Arc::clone(connection)))
}

/// Waits for a block as long as is usual. False: it is not there, or not right.
fn is_answered(asked: &Asked, into: &mut [u8], is_first: &mut bool) -> bool {
    let (peer, _) = &asked.holder;
    match asked.request.wait(asked.at + hedge(peer), |message| look_at(message, into)) {
        Waited::Answer(Found::Good) => {
            if std::mem::take(is_first) {
                peer.trips.note(asked.at.elapsed());
            }
            true
        }
        _ => false,
    }
}
