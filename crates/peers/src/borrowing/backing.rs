//! Another tier that has a copy of every extent, too, on a disk: it decides whether a write counts, is read where peers do not answer at once, and copies that are
//! made anew come from there.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tmem_cluster::{ledger::Read, wire::Run};
use tmem_store::{TIER_EXTENT_BYTES, Tier, TierCopy, TierError, TierState, TierWrite, whole_blocks_bytes};

use super::{
    borrower::Borrower,
    packed::{Packed, merged},
    reading::{Holder, PATIENCE},
    round_trips::RoundTrips,
};

/// How long peers are waited for when the other tier has what is written.
const PEERS_TIME: Duration = Duration::from_millis(250);

/// One read in so many goes to the other tier whatever it takes there: so it is known what that is.
const SAMPLED: u32 = 128;

/// How long reads from the other tier take.
#[derive(Debug, Default)]
pub(super) struct BackingTimes {
    trips: RoundTrips,
    reads: AtomicU32,
}

impl BackingTimes {
    /// Whether to read there before a peer is asked that usually takes so long.
    fn is_faster_than(&self, peer_us: u32) -> bool {
        let usual_us = self.trips.usual_us();
        let is_sample = self.reads.fetch_add(1, Relaxed) % SAMPLED == SAMPLED - 1;
        is_sample || usual_us > 0 && usual_us < peer_us
    }
}

impl Borrower {
    /// Writes extents to the other tier, while peers get them. What these have not got soon after is left to repair. Errors: those of the other tier, and then
    /// none is kept anywhere.
    pub(super) fn write_both(&self, backing: &dyn Tier, writes: &[TierWrite<'_>]) -> Result<(), TierError> {
        let copies = || writes.iter().map(|write| write.copy);
        // Nothing is sent in vain as long as it takes nothing.
        let is_stored = backing.state() != TierState::Ready;
        if is_stored {
            backing.write(writes)?;
        }
        let written = self.enter(copies()).and_then(|()| {
            let is_given = self.copier.give(|| {
                let packed = self.pack(writes).ok()?;
                Some(packed.into_iter().map(Packed::owned).collect())
            });
            if !is_stored {
                backing.write(writes)?;
            }
            let mut book = self.book();
            copies().for_each(|copy| book.ledger.stored(copy));
            Ok(is_given)
        });
        match written {
            Ok(true) => self.copier.wait(PEERS_TIME),
            Ok(false) => {}
            Err(_) => self.give_up(copies()),
        }
        written.map(drop)
    }

    /// Reads a block from a peer that answers at once, or else from the other tier; the other way round where that is faster. A whole copy is there alone.
    pub(super) fn read_either(
        &self,
        backing: &dyn Tier,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
    ) -> Result<(), TierError> {
        if into.len() >= TIER_EXTENT_BYTES {
            return backing.read(copy, start, into);
        }
        let give_up = Instant::now() + PATIENCE;
        let holders = self.holders_now(copy);
        let peer_us = holders.first().map_or(u32::MAX, |(peer, _)| peer.trips.usual_us());
        let is_disk_first = self.backing_times.is_faster_than(peer_us);
        if is_disk_first && self.read_there(backing, copy, start, into).is_ok() {
            return Ok(());
        }
        let mut useless = Vec::new();
        let is_read = self.read_from(copy, start, into, holders, true, &mut useless);
        let read = match is_read {
            true => Ok(()),
            false => self.read_backing(backing, copy, start, into, give_up),
        };
        self.tell_ledger(copy, &useless, read.is_ok());
        read
    }

    /// Reads from the other tier, and if that is not possible waits for peers.
    pub(super) fn read_backing(
        &self,
        backing: &dyn Tier,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
        give_up: Instant,
    ) -> Result<(), TierError> {
        let Err(there) = self.read_there(backing, copy, start, into) else { return Ok(()) };
        let Err(at_peers) = self.read_before(copy, start, into, give_up) else { return Ok(()) };
        Err(match (there, at_peers) {
            (TierError::Damaged, TierError::Damaged) => TierError::Damaged,
            // What is damaged in one may be whole in the other, when that is back.
            (there, at_peers) => TierError::Unavailable(format!("{there}; {at_peers}")),
        })
    }

    fn read_there(
        &self,
        backing: &dyn Tier,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
    ) -> Result<(), TierError> {
        let at = Instant::now();
        backing.read(copy, start, into).inspect(|()| self.backing_times.trips.note(at.elapsed()))
    }

    /// The peers that have a copy and can be asked now, the fastest first.
    fn holders_now(&self, copy: TierCopy) -> Vec<Holder> {
        let book = self.book();
        match book.ledger.read(copy) {
            Read::Peers(nodes) => book.holders(nodes.into_iter()),
            _ => Vec::new(),
        }
    }

    /// A copy from the other tier, as peers may have it: what of it is still needed, as far as somebody knows that. `None`: it is not there, or nothing is.
    pub(super) fn fetch_from_backing(&self, copy: TierCopy) -> Option<Packed<'static>> {
        let backing = self.backing.as_ref().filter(|backing| backing.state().is_giving())?;
        let mut bytes = vec![0; TIER_EXTENT_BYTES];
        backing.read(copy, 0, &mut bytes).ok()?;
        let runs: Vec<Run> = match self.filter() {
            Some(filter) => merged(filter(copy, &bytes).iter().map(|run| (run.start, run.bytes))),
            None => merged([(0, u32::try_from(whole_blocks_bytes(&bytes)?).ok()?)].into_iter()),
        };
        let mut packed = Packed::of(copy, &bytes, runs);
        let is_some = !packed.runs.is_empty() && self.close(&mut packed);
        is_some.then(|| packed.owned())
    }
}
