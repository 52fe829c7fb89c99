//! Another tier that has a copy of every extent, too, on a disk: it is read where peers do not answer at once, and where their copies come from that are made
//! anew.

use std::{borrow::Cow, time::Instant};

use tmem_cluster::{ledger::Read, wire::Run};
use tmem_store::{TIER_EXTENT_BYTES, Tier, TierCopy, TierError, whole_blocks_bytes};

use super::{
    borrower::Borrower,
    packed::{Packed, merged},
    reading::{Holder, PATIENCE},
};

impl Borrower {
    /// Reads a block from peers that answer at once, or else from the other tier. A whole copy is there alone.
    pub(super) fn read_either(
        &self,
        backing: &dyn Tier,
        copy: TierCopy,
        start: usize,
        into: &mut [u8],
    ) -> Result<(), TierError> {
        let mut useless = Vec::new();
        let give_up = Instant::now() + PATIENCE;
        let holders = if into.len() < TIER_EXTENT_BYTES { self.holders_now(copy) } else { Vec::new() };
        if self.read_from(copy, start, into, holders, true, &mut useless) {
            self.tell_ledger(copy, &useless, true);
            return Ok(());
        }
        let read = self.read_backing(backing, copy, start, into, give_up);
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
        let Err(there) = backing.read(copy, start, into) else { return Ok(()) };
        let Err(at_peers) = self.read_before(copy, start, into, give_up) else { return Ok(()) };
        Err(match (there, at_peers) {
            (TierError::Damaged, TierError::Damaged) => TierError::Damaged,
            // What is damaged in one may be whole in the other, when that is back.
            (there, at_peers) => TierError::Unavailable(format!("{there}; {at_peers}")),
        })
    }

    /// The peers that have a copy and can be asked now, the fastest first.
    fn holders_now(&self, copy: TierCopy) -> Vec<Holder> {
        let book = self.book();
        match book.ledger.read(copy) {
            Read::Peers(nodes) => book.holders(nodes.into_iter()),
            _ => Vec::new(),
        }
    }

    /// A copy from the other tier, as peers may have it. It has what died since it was written, too: nobody here knows which of it did.
    pub(super) fn fetch_from_backing(&self, copy: TierCopy) -> Option<Packed<'static>> {
        let mut bytes = vec![0; TIER_EXTENT_BYTES];
        self.backing.as_ref()?.read(copy, 0, &mut bytes).ok()?;
        bytes.truncate(whole_blocks_bytes(&bytes)?);
        let runs: Vec<Run> = merged([(0, u32::try_from(bytes.len()).ok()?)].into_iter());
        let mut packed = Packed { copy, runs, bytes: Cow::Owned(bytes) };
        self.close(&mut packed).then_some(packed)
    }
}
