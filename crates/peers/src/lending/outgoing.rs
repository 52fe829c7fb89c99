//! What is about to be said to a borrower: answers, and what it has not asked for. It goes when there is nothing left to be carried out, or when it is
//! long.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use tmem_cluster::{
    lender::{SharedHolding, lock},
    wire::{Encoder, MAX_COPIES},
};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

use super::{Shared, seats::Seat};
use crate::{greeting::is_only_later, polling::Polling};

/// What is sent before more is carried out, in bytes: about a dozen pages, which the borrower unpacks while the next ones are looked up. No more than
/// one answer behind it is ever held.
const LONG_BYTES: usize = 16 << 10;

/// An offer is said again after this time...
const OFFER_TIME: Duration = Duration::from_secs(1);
/// ...or when it has changed by more than this part of it.
const OFFER_PART: u64 = 64;

/// A connection's outgoing bytes. As a reader it is the incoming ones: whoever wants more of these has nothing left to carry out.
pub(super) struct Outgoing<'a> {
    shared: &'a Shared,
    seat: &'a Seat,
    holding: &'a SharedHolding,
    bytes: Vec<u8>,
    offered: Option<(Instant, u64)>,
    heard: Instant,
    polling: Polling,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(shared: &'a Shared, seat: &'a Seat, holding: &'a SharedHolding) -> Self {
        let bytes = Vec::with_capacity(4096);
        let polling = Polling::default();
        Self { shared, seat, holding, bytes, offered: None, heard: Instant::now(), polling }
    }

    pub(super) fn say(&mut self) -> Encoder<'_> {
        Encoder::new(&mut self.bytes)
    }

    /// Sends what is there if it is long.
    pub(super) fn send_if_long(&mut self) -> io::Result<()> {
        if self.bytes.len() >= LONG_BYTES { self.send() } else { Ok(()) }
    }

    /// For how long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Gives back what long answers needed.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to(4096);
    }

    /// These copies are dropped then; those with the same time follow each other.
    pub(super) fn recall(&mut self, copies: &[(u64, TierCopy)]) -> io::Result<()> {
        let now_ms = self.shared.now_ms();
        for same_time in copies.chunk_by(|a, b| a.0 == b.0) {
            for part in same_time.chunks(MAX_COPIES) {
                let deadline_ms = part[0].0.saturating_sub(now_ms);
                let copies: Vec<TierCopy> = part.iter().map(|(_, copy)| *copy).collect();
                let deadline_ms = u32::try_from(deadline_ms).unwrap_or(u32::MAX);
                self.say().recall(deadline_ms, &copies).map_err(io::Error::other)?;
                self.send_if_long()?;
            }
        }
        Ok(())
    }

    /// An offer, if it is time.
    fn offer(&mut self, now: Instant) -> io::Result<()> {
        // The last of it is not offered: what is put there would be asked back as soon as the host wants a little.
        let kept = self.shared.lender.limit_bytes() / OFFER_PART;
        let free_bytes = self.shared.lender.free_bytes().saturating_sub(kept);
        let is_news = self.offered.is_none_or(|(at, before)| {
            let least = (before / OFFER_PART).max(TIER_EXTENT_BYTES as u64);
            now.duration_since(at) >= OFFER_TIME || before.abs_diff(free_bytes) > least
        });
        if is_news {
            let lent_bytes = lock(self.holding).usage().held_bytes;
            self.say().offer(free_bytes, lent_bytes).map_err(io::Error::other)?;
            self.offered = Some((now, free_bytes));
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let sent = self.seat.stream.send(&self.bytes);
        self.bytes.clear();
        // Not what it is when nothing comes.
        sent.map_err(|error| match is_only_later(&error) {
            true => io::Error::new(io::ErrorKind::BrokenPipe, "the peer does not take what it asked for"),
            false => error,
        })
    }
}

impl Read for Outgoing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let recalled = self.seat.take_recalled();
        self.recall(&recalled)?;
        self.offer(Instant::now())?;
        self.send()?;
        let count = self.polling.receive(&self.seat.stream, into, true)?;
        self.heard = Instant::now();
        self.seat.hear();
        Ok(count)
    }
}
