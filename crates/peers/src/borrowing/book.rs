//! What is known: of extents, of offers, of peers. All of it is under one lock.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tmem_cluster::{
    Epoch, NodeId,
    ledger::{Ledger, Read},
    placement::{Offer, Placement},
};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy, TierState};

use super::{options::Member, peer::Peer, reading::Holder};
use crate::connection::Connection;

/// For so long after the start, what is not known may yet be known to a peer that has not been heard.
const GRACE: Duration = Duration::from_secs(30);

/// A peer that was there for less than this between two losses was not really back: it has been away for as long as it was in both, but for this part of
/// the time that it was there. So nobody waits for one that comes and goes anew each time.
const STEADY: Duration = Duration::from_secs(10);
const MADE_UP_PART: u32 = 8;

pub(super) struct Book {
    pub(super) ledger: Ledger,
    pub(super) placement: Placement,
    pub(super) seats: BTreeMap<NodeId, Seat>,
    /// What the store had at peers before this process began and no peer has said yet to have, by place: the writing. A peer that is off the
    /// list of members for now may yet have it.
    pub(super) needed: BTreeMap<u32, u64>,
    /// When the first members were named. `None`: not yet.
    pub(super) began: Option<Instant>,
    /// Whether the first who are named may not be all.
    more_may_come: bool,
    is_backed: bool,
    copies: u64,
}

/// A peer, and what it has said.
pub(super) struct Seat {
    pub(super) peer: Arc<Peer>,
    pub(super) address: String,
    pub(super) domain: Option<String>,
    /// The latest epoch that was heard of.
    pub(super) epoch: Option<Epoch>,
    /// Whether it is named as one. It may still be there if it is not, because those who name it do not hear from it.
    pub(super) is_member: bool,
    pub(super) connection: Option<Arc<Connection>>,
    /// Since when the connection is there.
    here_since: Option<Instant>,
    /// When it was lost. `None`: it is there, or never was.
    away_since: Option<Instant>,
    /// How long it was away before, if it was not really back since.
    away_before: Duration,
    /// Whether it has said which copies it has, since this process began.
    pub(super) is_listed: bool,
    /// What it asked back before it was listed, by place: the writing, and when it is dropped, in milliseconds of the borrower's clock.
    pub(super) early_recalls: BTreeMap<u32, (u64, u64)>,
    pub(super) free_bytes: u64,
    pub(super) lent_bytes: u64,
}

impl Book {
    pub(super) fn new(copies: usize, more_may_come: bool, is_backed: bool) -> Self {
        let copies = copies.clamp(1, Ledger::MAX_COPIES);
        Self {
            ledger: if is_backed { Ledger::backed(copies) } else { Ledger::new(copies) },
            placement: Placement::new(fastrand::u64(..)),
            seats: BTreeMap::new(),
            needed: BTreeMap::new(),
            began: None,
            more_may_come,
            is_backed,
            copies: copies as u64,
        }
    }

    /// Whether all who are named have said what they have, or had the time to.
    pub(super) fn is_heard(&self) -> bool {
        let is_heard = self.seats.values().all(|seat| seat.is_listed);
        self.began.is_some_and(|began| is_heard || began.elapsed() >= GRACE)
    }

    /// Whether what is not known is known to nobody.
    pub(super) fn is_complete(&self) -> bool {
        let may_come = self.more_may_come && (self.is_backed || !self.needed.is_empty());
        let is_early = self.began.is_none_or(|began| began.elapsed() < GRACE);
        self.is_heard() && !(may_come && is_early)
    }

    /// Whether a node went so lately that it may be back at once.
    pub(super) fn is_just_away(&self, node: NodeId, time: Duration) -> bool {
        self.seats.get(&node).is_some_and(|seat| seat.is_just_away(time))
    }

    /// Whether a node can't be reached, and was not for so long.
    pub(super) fn is_long_away(&self, node: NodeId, time: Duration) -> bool {
        self.seats.get(&node).is_none_or(|seat| seat.connection.is_none() && !seat.is_just_away(time))
    }

    /// A node that can be asked, and the way there.
    pub(super) fn holder(&self, node: NodeId) -> Option<Holder> {
        let seat = self.seats.get(&node)?;
        let connection = seat.connection.as_ref().filter(|known| !known.has_ended())?;
        Some((Arc::clone(&seat.peer), Arc::clone(connection)))
    }

    /// Those of them that can be asked, the fastest first.
    pub(super) fn holders(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<Holder> {
        let mut holders: Vec<Holder> = nodes.filter_map(|node| self.holder(node)).collect();
        holders.sort_by_key(|(peer, _)| peer.cost(0));
        holders
    }

    /// A peer can be reached.
    pub(super) fn found(&mut self, node: NodeId, connection: Arc<Connection>) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.epoch = Some(connection.hello().epoch);
            seat.found(connection);
        }
        self.tell_placement(node);
    }

    /// A peer can't be reached. One that is no member either is not looked for.
    pub(super) fn lost(&mut self, node: NodeId) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.lost();
            if !seat.is_member {
                seat.peer.is_over.store(true, Relaxed);
                seat.peer.bell.ring();
                self.seats.remove(&node);
            }
        }
        self.ledger.away(node);
        self.placement.remove(node);
    }

    /// A peer is not named as a member any more. Gives it if it is there all the same: then it gets nothing new, and what it has is read.
    pub(super) fn unname(&mut self, node: NodeId) -> Option<Arc<Peer>> {
        let seat = self.seats.get_mut(&node)?;
        let was_member = std::mem::replace(&mut seat.is_member, false);
        let peer = Arc::clone(&seat.peer);
        if seat.connection.is_none() {
            self.lost(node);
            return None;
        }
        self.placement.remove(node);
        was_member.then_some(peer)
    }

    /// A node is in that epoch. Gives the connection to it if that is to an earlier one.
    #[must_use]
    pub(super) fn fence(&mut self, node: NodeId, epoch: Epoch) -> Option<Arc<Connection>> {
        self.ledger.fence(node, epoch);
        let seat = self.seats.get_mut(&node)?;
        seat.epoch = seat.epoch.max(Some(epoch));
        let old = seat.connection.take_if(|connection| connection.hello().epoch < epoch)?;
        self.lost(node);
        Some(old)
    }

    /// A peer says that it has a copy. What nobody needs it is to forget.
    pub(super) fn listed(&mut self, copy: TierCopy, node: NodeId, epoch: Epoch) {
        let is_known = self.ledger.read(copy) != Read::Unknown;
        if is_known || self.needed.get(&copy.place) == Some(&copy.writing) {
            self.ledger.adopt(copy, node, epoch);
            if self.ledger.read(copy) != Read::Unknown {
                self.needed.remove(&copy.place);
            }
            let seat = self.seats.get_mut(&node);
            let recalled = seat.and_then(|seat| seat.early_recalls.remove(&copy.place));
            if let Some((_, until_ms)) = recalled.filter(|(writing, _)| *writing == copy.writing) {
                self.ledger.recall(node, &[copy], until_ms);
            }
        } else {
            self.ledger.owe(copy, node, epoch);
        }
    }

    /// What a peer lends, as it says.
    pub(super) fn offer(&mut self, node: NodeId, free_bytes: u64, lent_bytes: u64) {
        let Some(seat) = self.seats.get_mut(&node).filter(|seat| seat.connection.is_some()) else { return };
        (seat.free_bytes, seat.lent_bytes) = (free_bytes, lent_bytes);
        // Somebody had it forget all: see `LendingServer::forget`. It says so before it takes anything new.
        if lent_bytes == 0 {
            self.ledger.emptied(node);
        }
        self.tell_placement(node);
    }

    /// A peer has no room, until it says something else.
    pub(super) fn is_full(&mut self, node: NodeId) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.free_bytes = 0;
            self.tell_placement(node);
        }
    }

    pub(super) fn tell_placement(&mut self, node: NodeId) {
        if let Some(seat) = self.seats.get(&node).filter(|seat| seat.is_lending()) {
            let (free_bytes, domain) = (seat.free_bytes, seat.domain.clone());
            self.placement.set_offer(node, &Offer { free_bytes, domain, is_leaving: false });
        } else {
            self.placement.remove(node);
        }
    }

    /// A peer has said all that it has. What it asked back and has no more is to be flushed all the same, for it to know that this was heard.
    pub(super) fn all_listed(&mut self, node: NodeId, epoch: Epoch) {
        let Some(seat) = self.seats.get_mut(&node) else { return };
        seat.is_listed = true;
        for (place, (writing, _)) in std::mem::take(&mut seat.early_recalls) {
            self.ledger.owe(TierCopy { place, writing }, node, epoch);
        }
    }

    /// A peer drops these copies then. It may say so before it says that it has them.
    pub(super) fn recalled(&mut self, node: NodeId, copies: &[TierCopy], until_ms: u64) {
        self.ledger.recall(node, copies, until_ms);
        if let Some(seat) = self.seats.get_mut(&node).filter(|seat| !seat.is_listed) {
            seat.early_recalls.extend(copies.iter().map(|copy| (copy.place, (copy.writing, until_ms))));
        }
    }

    /// Extents that nobody has any more, as far as is known.
    pub(super) fn lost_extents(&self) -> usize {
        self.ledger.lost_extents() + if self.is_complete() { self.needed.len() } else { 0 }
    }

    /// What those that can be reached lend, in bytes of what is to be kept.
    pub(super) fn limit_bytes(&self) -> u64 {
        let here = self.seats.values().filter(|seat| seat.is_lending());
        let offered = here.map(|seat| seat.free_bytes.saturating_add(seat.lent_bytes));
        offered.fold(0, u64::saturating_add) / self.copies
    }

    pub(super) fn state(&self) -> TierState {
        let here = || self.seats.values().filter(|seat| seat.is_lending());
        let has_room = |seat: &&Seat| self.placement.free_bytes(seat.peer.id) >= TIER_EXTENT_BYTES as u64;
        let copies = self.copies as usize;
        match (here().count(), here().filter(has_room).count()) {
            (0, _) => TierState::Missing,
            (count, _) if count < copies => TierState::ReadOnly,
            (_, with_room) if with_room < copies => TierState::Full,
            _ => TierState::Ready,
        }
    }
}

impl Seat {
    pub(super) fn new(peer: Arc<Peer>, member: &Member) -> Self {
        Self {
            peer,
            address: member.address.clone(),
            domain: member.domain.clone(),
            epoch: member.epoch,
            is_member: true,
            connection: None,
            here_since: None,
            away_since: None,
            away_before: Duration::ZERO,
            is_listed: false,
            early_recalls: BTreeMap::new(),
            free_bytes: 0,
            lent_bytes: 0,
        }
    }

    /// Whether it may get copies.
    fn is_lending(&self) -> bool {
        self.is_member && self.connection.is_some()
    }

    fn is_just_away(&self, time: Duration) -> bool {
        self.away_since.is_some_and(|since| self.away_before + since.elapsed() < time)
    }

    fn found(&mut self, connection: Arc<Connection>) {
        self.connection = Some(connection);
        self.here_since = Some(Instant::now());
        self.away_before += self.away_since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    fn lost(&mut self) {
        self.connection = None;
        // It says so again when it is back.
        self.early_recalls.clear();
        let here = self.here_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let made_up = if here >= STEADY { self.away_before } else { here / MADE_UP_PART };
        self.away_before = self.away_before.saturating_sub(made_up);
        self.away_since.get_or_insert_with(Instant::now);
    }
}
