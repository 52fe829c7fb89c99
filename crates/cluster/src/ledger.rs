//! What a borrower knows of its extents at peers, and what has to be done so that there are as many copies as promised.
//!
//! The ledger is told what happened (a put, an acknowledgement, a node that went) and asked what to do ([`Ledger::next_want`],
//! [`Ledger::take_flushes`]) and where to read. It has no clock and talks to nobody. Not all that it decides has to happen in time: a copy is named by place and
//! writing and never changes, so what comes late can be of no use, but not wrong.
//!
//! ```text
//! put -> at home -- promised copies held --> settled -- fewer held --> wanted -- repaired --> settled
//!                                               '--- none valid, none under way --> lost
//! copy:  sent -- acknowledged --> held -- recalled --> recalled -- deadline, or enough others --> gone
//! ```
//!
//! Of a [backed](Ledger::backed) ledger's extents another tier has a copy as well. None of them is lost: what no node has is wanted, with that tier as the source.
//!
//! A copy is valid when it was acknowledged in what is still its node's epoch, and read when its node is there, too. It counts towards what was promised when
//! moreover nobody has recalled it. Copies at a node that is away stay valid, as the last hope, until the node comes back and is not needed, or is fenced.

mod adoption;
mod nodes;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use tmem_store::TierCopy;

use crate::ids::{Epoch, NodeId};
pub use nodes::Joined;
use nodes::Node;
use record::{Copy, CopyState, Record};

/// One sending of a copy to a node. An acknowledgement counts for that sending alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Where an extent can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Not all copies are acknowledged yet: memory has it.
    Home,
    /// These nodes have it. Those that want to get rid of it come last.
    Peers(Vec<NodeId>),
    /// Nowhere now, but perhaps later: the nodes that have it are away, or a copy is under way.
    NotNow,
    /// No node has it, but the tier behind this ledger does.
    Backing,
    /// Nobody has it any more.
    Lost,
    /// It was flushed or overwritten, or never put.
    Unknown,
}

/// An extent with fewer copies, or sendings of some, than were promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Which.
    pub copy: TierCopy,
    /// How many copies more.
    pub missing: usize,
    /// Where it can be had for that: home, peers, the tier behind this ledger, or nowhere for now.
    pub from: Read,
    /// Nodes that have, or get, a copy that counts: new ones should be apart from these.
    pub holders: Vec<NodeId>,
    /// Nodes that have one that does not count, and must get no other.
    pub others: Vec<NodeId>,
}

/// A copy that was recalled: when it is dropped, of which place, and where. In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaving(u64, u32, NodeId);

/// What became of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It counts.
    Held,
    /// That sending was given up: it changes nothing.
    Late,
}

/// Why a put is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("place {place} has a writing later than {writing}: writing numbers only grow")]
pub struct OldWriting {
    /// Where.
    pub place: u32,
    /// Which was to be put.
    pub writing: u64,
}

/// What a borrower knows.
#[derive(Debug)]
pub struct Ledger {
    promised: usize,
    /// Whether another tier has all that is not at home.
    is_backed: bool,
    nodes: BTreeMap<NodeId, Node>,
    records: BTreeMap<u32, Record>,
    /// Places of records with fewer copies than promised, or sendings of some, that are not lost.
    wanting: BTreeSet<u32>,
    /// Places of records that nobody has any more.
    lost: BTreeSet<u32>,
    /// Sendings that are under way, and of which place.
    tickets: BTreeMap<Ticket, u32>,
    next_ticket: u64,
    /// Deadlines of recalled copies, in milliseconds of whoever calls.
    deadlines: BTreeSet<Leaving>,
    /// What memory need not have any more, and nobody asked for yet.
    settled: Vec<TierCopy>,
}

impl Ledger {
    /// The most copies that can be promised.
    pub const MAX_COPIES: usize = 4;

    /// Promises so many copies, 1 to [`Self::MAX_COPIES`]; what is beyond either end becomes that end.
    pub fn new(promised: usize) -> Self {
        Self {
            promised: promised.clamp(1, Self::MAX_COPIES),
            is_backed: false,
            nodes: BTreeMap::new(),
            records: BTreeMap::new(),
            wanting: BTreeSet::new(),
            lost: BTreeSet::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            deadlines: BTreeSet::new(),
            settled: Vec::new(),
        }
    }

    /// The same, where another tier has a copy of each extent that is [stored](Self::stored) there.
    pub fn backed(promised: usize) -> Self {
        Self { is_backed: true, ..Self::new(promised) }
    }

    /// The tier behind this ledger has an extent: memory need not have it any more, however many copies there are.
    pub fn stored(&mut self, copy: TierCopy) {
        if let Some(record) =
            self.records.get_mut(&copy.place).filter(|record| record.writing == copy.writing)
        {
            record.is_home = false;
            self.review(copy.place);
        }
    }

    /// An extent that is to go to peers, and is kept at home until [`Self::take_settled`] names it. What was at its place is forgotten.
    pub fn put(&mut self, copy: TierCopy) -> Result<(), OldWriting> {
        if self.records.get(&copy.place).is_some_and(|record| record.writing >= copy.writing) {
            return Err(OldWriting { place: copy.place, writing: copy.writing });
        }
        self.flush(copy.place);
        self.records.insert(copy.place, Record::new(copy.writing));
        self.wanting.insert(copy.place);
        Ok(())
    }

    /// Forgets what is at a place. Nodes that have it are to be told.
    pub fn flush(&mut self, place: u32) {
        let Some(record) = self.records.remove(&place) else { return };
        self.wanting.remove(&place);
        self.lost.remove(&place);
        record.copies.iter().for_each(|copy| self.give_up(place, record.writing, copy));
    }

    /// Where an extent can be had.
    pub fn read(&self, copy: TierCopy) -> Read {
        match self.record(copy) {
            None => Read::Unknown,
            Some(record) => self.source(record),
        }
    }

    /// The nodes that have a copy of an extent, whether they are there now or not.
    pub fn holders(&self, copy: TierCopy) -> impl Iterator<Item = NodeId> {
        let copies = self.record(copy).map_or(&[][..], |record| &record.copies);
        copies.iter().filter(|copy| copy.is_acknowledged()).map(|copy| copy.node)
    }

    /// The first extent that wants copies at a place of at least `from_place`.
    pub fn next_want(&self, from_place: u32) -> Option<Want> {
        self.wanting.range(from_place..).find_map(|place| self.want(*place))
    }

    /// The recalled copy that is dropped first after that one, or of all, and what its extent wants for it.
    pub fn next_leaving(&self, after: Option<Leaving>) -> Option<(Leaving, Option<Want>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let leaving = self.deadlines.range((from, Bound::Unbounded)).next()?;
        let is_wanting = self.wanting.contains(&leaving.1);
        Some((*leaving, is_wanting.then(|| self.want(leaving.1)).flatten()))
    }

    fn want(&self, place: u32) -> Option<Want> {
        let record = self.records.get(&place)?;
        let (holders, others): (Vec<&Copy>, Vec<&Copy>) =
            record.copies.iter().partition(|copy| self.counts(copy));
        Some(Want {
            copy: TierCopy { place, writing: record.writing },
            missing: self.promised.saturating_sub(holders.len()),
            from: self.source(record),
            holders: holders.iter().map(|copy| copy.node).collect(),
            others: others.iter().map(|copy| copy.node).collect(),
        })
    }

    /// Copies of an extent are on their way to these nodes: the tickets of their sendings. Nodes that are not there or have a copy get
    /// none, nor does anybody of an extent that is not known.
    pub fn send(&mut self, copy: TierCopy, nodes: &[NodeId]) -> Vec<(NodeId, Ticket)> {
        let mut sent = Vec::with_capacity(nodes.len());
        for node_id in nodes {
            let Some(record) = self.records.get_mut(&copy.place) else { break };
            let Some(node) = self.nodes.get_mut(node_id).filter(|node| node.is_here) else { continue };
            if record.writing != copy.writing || record.copy_at(*node_id).is_some() {
                continue;
            }
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            node.owes_no_more((copy.place, copy.writing));
            node.places.insert(copy.place);
            record.copies.push(Copy { node: *node_id, epoch: node.epoch, state: CopyState::Sent(ticket) });
            self.tickets.insert(ticket, copy.place);
            sent.push((*node_id, ticket));
        }
        self.review(copy.place);
        sent
    }

    /// A node says that a copy of that sending can be read.
    pub fn acknowledge(&mut self, ticket: Ticket, epoch: Epoch) -> Acknowledged {
        let Some(place) = self.tickets.remove(&ticket) else { return Acknowledged::Late };
        let Some(record) = self.records.get_mut(&place) else { return Acknowledged::Late };
        let is_sent = |copy: &&mut Copy| copy.state == CopyState::Sent(ticket) && copy.epoch == epoch;
        let Some(copy) = record.copies.iter_mut().find(is_sent) else { return Acknowledged::Late };
        copy.state = CopyState::Held;
        self.review(place);
        Acknowledged::Held
    }

    /// Extents that got the last copy that was promised since this was asked last: memory need not have them any more. Be it because the
    /// copy was acknowledged, or because a node came back that has one.
    pub fn take_settled(&mut self) -> Vec<TierCopy> {
        std::mem::take(&mut self.settled)
    }

    /// A sending came to nothing: no room, or no source. False: it was given up before.
    pub fn refuse(&mut self, ticket: Ticket) -> bool {
        let Some(place) = self.tickets.remove(&ticket) else { return false };
        let Some(record) = self.records.get_mut(&place) else { return false };
        let writing = record.writing;
        if let Some(at) = record.copies.iter().position(|copy| copy.state == CopyState::Sent(ticket)) {
            // The node may have it from an earlier sending, whose flush was called off for this one.
            let copy = record.copies.remove(at);
            self.give_up(place, writing, &copy);
        }
        self.review(place);
        true
    }

    /// Whether a node has a copy of an extent, or is about to get one, be it there now or not.
    pub fn is_anywhere(&self, copy: TierCopy) -> bool {
        self.record(copy).is_some_and(|record| !record.copies.is_empty())
    }

    /// A node that was asked for a copy does not have it, or has it damaged.
    pub fn gone(&mut self, copy: TierCopy, node: NodeId) {
        let Some(record) = self.records.get_mut(&copy.place) else { return };
        if record.writing != copy.writing {
            return;
        }
        let is_it = |copy: &Copy| copy.node == node && copy.is_acknowledged();
        if let Some(at) = record.copies.iter().position(is_it) {
            let gone = record.copies.remove(at);
            self.give_up(copy.place, copy.writing, &gone);
        }
        self.review(copy.place);
    }

    /// A lender drops these copies at `until_ms`.
    pub fn recall(&mut self, node: NodeId, copies: &[TierCopy], until_ms: u64) {
        for recalled in copies {
            let Some(record) = self.records.get_mut(&recalled.place) else { continue };
            if record.writing != recalled.writing {
                continue;
            }
            let Some(at) = record.copies.iter().position(|copy| copy.node == node) else { continue };
            let copy = &mut record.copies[at];
            match copy.state {
                CopyState::Recalled(_) => {}
                CopyState::Held => {
                    copy.state = CopyState::Recalled(until_ms);
                    self.deadlines.insert(Leaving(until_ms, recalled.place, node));
                }
                CopyState::Sent(_) => {
                    let copy = record.copies.remove(at);
                    self.give_up(recalled.place, recalled.writing, &copy);
                }
            }
            self.review(recalled.place);
        }
    }

    /// It is `now_ms`: recalled copies whose deadline has come are gone.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some(leaving) = self.deadlines.first().copied().filter(|leaving| leaving.0 <= now_ms) {
            self.deadlines.remove(&leaving);
            let Leaving(until, place, node) = leaving;
            let Some(record) = self.records.get_mut(&place) else { continue };
            let writing = record.writing;
            let is_due = |copy: &Copy| copy.node == node && copy.state == CopyState::Recalled(until);
            if let Some(at) = record.copies.iter().position(is_due) {
                // The flush says to the lender that its recall was heard.
                let copy = record.copies.remove(at);
                self.give_up(place, writing, &copy);
            }
            self.review(place);
        }
    }

    /// How many extents nobody has any more.
    pub fn lost_extents(&self) -> usize {
        self.lost.len()
    }

    /// How many extents have fewer copies than promised and are not lost. A copy that is only on its way is none.
    pub fn wanting_extents(&self) -> usize {
        let under_way: BTreeSet<&u32> =
            self.tickets.values().filter(|place| !self.wanting.contains(place)).collect();
        self.wanting.len() + under_way.len()
    }

    /// What is known of an extent, unless it is of another writing.
    fn record(&self, copy: TierCopy) -> Option<&Record> {
        self.records.get(&copy.place).filter(|record| record.writing == copy.writing)
    }

    fn source(&self, record: &Record) -> Read {
        if record.is_home {
            return Read::Home;
        }
        let is_there = |copy: &&Copy| copy.is_acknowledged() && self.is_here(copy.node);
        let mut there: Vec<&Copy> = record.copies.iter().filter(is_there).collect();
        there.sort_by_key(|copy| copy.is_recalled());
        match (there.is_empty(), record.copies.is_empty()) {
            (false, _) => Read::Peers(there.iter().map(|copy| copy.node).collect()),
            (true, _) if self.is_backed => Read::Backing,
            // Away, or under way.
            (true, false) => Read::NotNow,
            (true, true) => Read::Lost,
        }
    }

    /// Whether a copy counts towards what was promised, once it is acknowledged.
    fn counts(&self, copy: &Copy) -> bool {
        !copy.is_recalled() && self.is_here(copy.node)
    }

    fn is_here(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_here)
    }

    /// A copy that is in no record any more: its sending is void, and its node is to forget it.
    fn give_up(&mut self, place: u32, writing: u64, copy: &Copy) {
        match copy.state {
            CopyState::Sent(ticket) => {
                self.tickets.remove(&ticket);
            }
            CopyState::Recalled(until) => {
                self.deadlines.remove(&Leaving(until, place, copy.node));
            }
            CopyState::Held => {}
        }
        if let Some(node) = self.nodes.get_mut(&copy.node) {
            node.places.remove(&place);
            if node.epoch == copy.epoch {
                node.owes((place, writing));
            }
        }
    }

    /// After a change: whether there are enough copies, and too many.
    fn review(&mut self, place: u32) {
        let Some(mut record) = self.records.remove(&place) else { return };
        let is_held = |ledger: &Self, copy: &Copy| copy.state == CopyState::Held && ledger.is_here(copy.node);
        let held = record.copies.iter().filter(|copy| is_held(self, copy)).count();
        if held >= self.promised {
            if std::mem::take(&mut record.is_home) {
                self.settled.push(TierCopy { place, writing: record.writing });
            }
            let mut left = self.promised;
            let (kept, surplus) = std::mem::take(&mut record.copies).into_iter().partition(|copy| {
                // What is away may be needed if these are lost before it is back.
                let is_kept = !self.is_here(copy.node) || is_held(self, copy) && left > 0;
                left -= usize::from(is_kept && self.is_here(copy.node));
                is_kept
            });
            record.copies = kept;
            let surplus: Vec<Copy> = surplus;
            surplus.iter().for_each(|copy| self.give_up(place, record.writing, copy));
        }
        let counted = record.copies.iter().filter(|copy| self.counts(copy)).count();
        let is_lost = !self.is_backed && !record.is_home && record.copies.is_empty();
        if counted < self.promised && !is_lost {
            self.wanting.insert(place);
        } else {
            self.wanting.remove(&place);
        }
        if is_lost {
            self.lost.insert(place);
        } else {
            self.lost.remove(&place);
        }
        self.records.insert(place, record);
    }
}
