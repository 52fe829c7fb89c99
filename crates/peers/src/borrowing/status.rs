//! Who has what, for people.

use std::sync::atomic::Ordering::Relaxed;

use tmem_cluster::Epoch;

use super::borrower::Borrower;

/// How a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It can be reached.
    Connected,
    /// It can't.
    Away,
}

impl PeerState {
    /// One lower-case word, for status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            PeerState::Connected => "connected",
            PeerState::Away => "away",
        }
    }
}

/// A peer that lends, as its borrower sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Where it lends.
    pub address: String,
    /// How it is.
    pub state: PeerState,
    /// The latest epoch that was heard of.
    pub epoch: Option<Epoch>,
    /// What may still be borrowed from it, in bytes, as it said last.
    pub free_bytes: u64,
    /// What this node has there, in bytes, as it said last.
    pub lent_bytes: u64,
    /// Copies of extents that it has.
    pub copies: u64,
    /// The middle one of the last 256 reads, in microseconds. 0: none yet.
    pub round_trip_p50_us: u32,
    /// What 99 of 100 of the last 256 reads did not exceed, in microseconds. 0: none yet.
    pub round_trip_p99_us: u32,
    /// What it did not answer as it should, since the start.
    pub errors: u64,
    /// The last thing that went wrong, if it still matters.
    pub trouble: Option<String>,
}

/// What is borrowed, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BorrowingStatus {
    /// In the order of their numbers.
    pub peers: Vec<PeerStatus>,
    /// Extents that peers have, or are about to get.
    pub extents: u64,
    /// Those of them with fewer copies than promised.
    pub wanting_extents: u64,
    /// Those of them that nobody has any more.
    pub lost_extents: u64,
    /// Copies made anew since the start.
    pub repaired_copies: u64,
    /// What they had, in bytes.
    pub repaired_bytes: u64,
    /// What repair fetches, in bytes a second.
    pub repair_bytes_per_second: u64,
    /// Whether all peers have said what they have: what is not known until then may be there.
    pub is_complete: bool,
}

impl Borrower {
    pub(super) fn status(&self) -> BorrowingStatus {
        let book = self.book();
        let peers = book.seats.values().map(|seat| PeerStatus {
            name: seat.peer.name.to_string(),
            address: seat.address.clone(),
            state: if seat.connection.is_some() { PeerState::Connected } else { PeerState::Away },
            epoch: seat.epoch,
            free_bytes: seat.free_bytes,
            lent_bytes: seat.lent_bytes,
            copies: book.ledger.copies_at(seat.peer.id) as u64,
            round_trip_p50_us: seat.peer.trips.permille_us(500),
            round_trip_p99_us: seat.peer.trips.permille_us(990),
            errors: seat.peer.errors.load(Relaxed),
            trouble: seat.peer.trouble(),
        });
        BorrowingStatus {
            peers: peers.collect(),
            extents: book.ledger.extents() as u64,
            wanting_extents: book.ledger.wanting_extents() as u64,
            lost_extents: book.lost_extents() as u64,
            repaired_copies: self.repaired_copies.load(Relaxed),
            repaired_bytes: self.repaired_bytes.load(Relaxed),
            repair_bytes_per_second: self.repair_speed.load(Relaxed),
            is_complete: book.is_complete(),
        }
    }
}
