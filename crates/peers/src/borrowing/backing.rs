//! Another tier that has a copy of every extent, too, on a disk: it decides whether a write counts, is read where peers do not answer at once, and copies that are
//! made anew come from there.

use std::{
    sync::{Mutex, PoisonError},
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

/// How long reads from the other tier take.
#[derive(Debug, Default)]
pub(super) struct BackingTimes {
    trips: RoundTrips,
    /// What a peer gave last, to be read there as well by somebody for whom nobody waits: so it is known what that takes.
    sample: Mutex<Option<(TierCopy, usize, usize)>>,
}

impl BackingTimes {
    /// Whether to read there before a peer is asked that usually takes so long.
    fn is_faster_than(&self, peer_us: u32) -> bool {
        let usual_us = self.trips.usual_us();
        usual_us > 0 && usual_us < peer_us
    }

    fn set_sample(&self, sample: (TierCopy, usize, usize)) {
        if let Ok(mut last) = self.sample.try_lock() {
            *last = Some(sample);
        }
    }

    fn take_sample(&self) -> Option<(TierCopy, usize, usize)> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner).take()
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

    /// Reads a block from a peer that answers at once, or else from the other tier, if that is not usually faster. A whole copy is there alone.
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
        let mut useless = Vec::new();
        let asks_peers = !self.backing_times.is_faster_than(peer_us);
        let read = if asks_peers && self.read_from(copy, start, into, holders, true, &mut useless) {
            self.backing_times.set_sample((copy, start, into.len()));
            Ok(())
        } else {
            self.read_backing(backing, copy, start, into, give_up)
        };
        self.tell_ledger(copy, &useless, read.is_ok());
        read
    }

    /// Reads from the other tier, and if that is not possible from peers, with all that may take. From one that does not work it is read last: it may hang.
    pub(super) fn read_backing(
        &self,
        backing: &dyn Tier,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
        give_up: Instant,
    ) -> Result<(), TierError> {
        let is_giving = backing.state().is_giving();
        let mut errors = Vec::new();
        for is_there in [is_giving, !is_giving] {
            let read = match is_there {
                true => self.read_there(backing, copy, start, into),
                false => self.read_before(copy, start, into, give_up),
            };
            match read {
                Ok(()) => return Ok(()),
                Err(error) => errors.push(error),
            }
        }
        Err(match errors.iter().all(|error| *error == TierError::Damaged) {
            true => TierError::Damaged,
            // What is damaged in one may be whole in the other, when that is back.
            false => {
                let errors: Vec<String> = errors.iter().map(TierError::to_string).collect();
                TierError::Unavailable(errors.join("; "))
            }
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
        let read = backing.read(copy, start, into);
        self.backing_times.trips.note(at.elapsed());
        read
    }

    /// Finds out how fast the other tier is, if there was something to compare it with since the last time.
    pub(super) fn sample_backing(&self) {
        let Some(backing) = self.backing.as_ref().filter(|backing| backing.state().is_giving()) else {
            return;
        };
        if let Some((copy, start, len)) = self.backing_times.take_sample() {
            // Whatever comes of it: what it took is noted.
            let _ = self.read_there(&**backing, copy, start, &mut vec![0; len]);
        }
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
