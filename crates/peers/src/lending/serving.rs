//! Carries out what one borrower asks, in its order.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tmem_cluster::{
    lender::{SharedHolding, lock},
    wire::{
        Flushes, FrameReader, Gets, MAX_COPIES, MAX_GETS, MAX_PUTS, Message, PutResult, Puts, Reason,
        WireError,
    },
};

use super::{Shared, outgoing::Outgoing, seats::Seat, status::Counters};
use crate::{error::PeerError, greeting::is_only_later};

/// A borrower that says nothing for so long is not there any more: it pings several times a second.
const SILENCE: Duration = Duration::from_secs(15);

/// Until the connection ends.
pub(super) fn serve(shared: &Shared, seat: &Seat, holding: &SharedHolding) -> Result<(), PeerError> {
    let address = seat.stream.remote();
    let mut reader = FrameReader::default();
    let mut outgoing = Outgoing::new(shared, seat, holding);
    let recalled: Vec<_> = lock(holding).recalled().collect();
    outgoing.recall(&recalled).map_err(PeerError::io(address))?;
    drop(recalled);
    loop {
        match reader.next(&mut outgoing) {
            Ok(Ok(Some(frame))) => {
                let message = Message::decode(frame).map_err(PeerError::wire(address))?;
                let mut serving =
                    Serving { shared, holding, counters: &seat.counters, outgoing: &mut outgoing };
                let is_borrowers = serving.carry_out(frame.id, message).map_err(PeerError::wire(address))?;
                if !is_borrowers {
                    return Err(PeerError::NoBorrower { address: address.to_owned() });
                }
                outgoing.send_if_long().map_err(PeerError::io(address))?;
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(PeerError::wire(address)(error)),
            Err(error) if is_only_later(&error) => {
                reader.shrink();
                outgoing.shrink();
                let silence = outgoing.silence();
                if silence > SILENCE {
                    return Err(PeerError::Silent { address: address.to_owned(), ms: silence.as_millis() });
                }
            }
            Err(error) => return Err(PeerError::io(address)(error)),
        }
    }
}

struct Serving<'a, 'b> {
    shared: &'a Shared,
    holding: &'a SharedHolding,
    counters: &'a Counters,
    outgoing: &'a mut Outgoing<'b>,
}

impl Serving<'_, '_> {
    /// Does what a message says, and answers. False: no borrower says this.
    fn carry_out(&mut self, id: u64, message: Message<'_>) -> Result<bool, WireError> {
        match message {
            Message::Get(gets) => self.get(id, gets),
            Message::Fetch(copy) => {
                let holding = lock(self.holding);
                match holding.fetch(copy) {
                    Ok(runs) => {
                        self.counters.gets.fetch_add(1, Relaxed);
                        self.outgoing.say().fetched(id, runs)
                    }
                    Err(reason) => {
                        self.counters.missed_gets.fetch_add(1, Relaxed);
                        self.outgoing.say().refused(id, reason)
                    }
                }
            }
            Message::Put(puts) => self.put(id, puts),
            Message::Flush(flushes) => self.flush(id, flushes),
            Message::List { from_place } => {
                let holding = lock(self.holding);
                self.outgoing.say().listed(id, holding.list(from_place).take(MAX_COPIES))
            }
            Message::Ping => self.outgoing.say().pong(id),
            Message::Pong => Ok(()),
            Message::Offer { .. }
            | Message::Recall { .. }
            | Message::PutDone(_)
            | Message::Got(_)
            | Message::Flushed
            | Message::Listed(_)
            | Message::Fetched(_)
            | Message::Refused(_) => return Ok(false),
        }
        .map(|()| true)
    }

    fn get(&mut self, id: u64, gets: Gets<'_>) -> Result<(), WireError> {
        let holding = lock(self.holding);
        let mut found = [Err(Reason::NotThere); MAX_GETS];
        let mut there = 0;
        for (get, found) in gets.iter().zip(&mut found) {
            *found = holding.get(get.copy, get.start, get.bytes);
            there += u64::from(found.is_ok());
        }
        self.counters.gets.fetch_add(there, Relaxed);
        self.counters.missed_gets.fetch_add(gets.count() as u64 - there, Relaxed);
        self.outgoing.say().got(id, &found[..gets.count()])
    }

    fn put(&mut self, id: u64, puts: Puts<'_>) -> Result<(), WireError> {
        let mut results = [PutResult::NoRoom; MAX_PUTS];
        let (mut count, mut stored, mut stored_bytes) = (0, 0, 0);
        for (put, result) in puts.iter().zip(&mut results) {
            *result = lock(self.holding).put(put.copy, put.runs, put.bytes);
            count += 1;
            if *result == PutResult::Stored {
                stored += 1;
                stored_bytes += put.bytes.len() as u64;
            }
        }
        self.counters.puts.fetch_add(stored, Relaxed);
        self.counters.put_bytes.fetch_add(stored_bytes, Relaxed);
        self.counters.refused_puts.fetch_add(count as u64 - stored, Relaxed);
        // One that replaces another leaves a gap.
        self.ring_if_unclean();
        self.outgoing.say().put_done(id, &results[..count])
    }

    fn flush(&mut self, id: u64, flushes: Flushes<'_>) -> Result<(), WireError> {
        let mut count = 0;
        for dead in flushes.iter() {
            lock(self.holding).flush(dead);
            count += 1;
        }
        self.counters.flushes.fetch_add(count, Relaxed);
        self.ring_if_unclean();
        self.outgoing.say().flushed(id)
    }

    fn ring_if_unclean(&self) {
        if lock(self.holding).needs_cleaning() {
            self.shared.cleaning.ring();
        }
    }
}
