//! Nodes that come and go, and what they are to forget.

use std::collections::{BTreeMap, BTreeSet};

use tmem_store::TierCopy;

use super::{Ledger, record::Copy};
use crate::ids::{Epoch, NodeId};

/// Place and writing.
type Named = (u32, u64);

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) epoch: Epoch,
    pub(super) is_here: bool,
    /// Of records with a copy that it has, or gets.
    pub(super) places: BTreeSet<u32>,
    /// What it is to be told to forget...
    owed: BTreeSet<Named>,
    /// ...and was told, but has not answered: by the number of the flush, because a copy may be in several.
    told: BTreeMap<u64, Vec<Named>>,
    next_flush: u64,
}

impl Node {
    fn new(epoch: Epoch) -> Self {
        let (places, owed, told) = Default::default();
        Self { epoch, is_here: false, places, owed, told, next_flush: 0 }
    }

    pub(super) fn owes(&mut self, copy: Named) {
        self.owed.insert(copy);
    }

    /// The copy is sent anew. If the node was told to forget the former one, it hears that first.
    pub(super) fn owes_no_more(&mut self, copy: Named) {
        self.owed.remove(&copy);
    }
}

/// What a node's coming changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It was not known.
    New,
    /// It has what it had.
    Back,
    /// What it had counts no more.
    Fenced,
    /// Its epoch is over: it is not taken.
    Over,
}

impl Ledger {
    /// A node can be reached, and is in that epoch.
    pub fn join(&mut self, node: NodeId, epoch: Epoch) -> Joined {
        let joined = match self.nodes.get(&node).map(|known| known.epoch) {
            None => Joined::New,
            Some(known) if epoch < known => return Joined::Over,
            Some(known) if epoch == known => Joined::Back,
            Some(_) => Joined::Fenced,
        };
        if joined == Joined::Fenced {
            self.fence(node, epoch);
        }
        self.nodes.entry(node).or_insert_with(|| Node::new(epoch)).is_here = true;
        self.review_at(node);
        joined
    }

    /// A node can't be reached. What is under way to it is given up; what it has is not read for now.
    pub fn away(&mut self, node: NodeId) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        known.is_here = false;
        // It may not have heard what it was told. What it has got again since is not to be forgotten.
        let told = std::mem::take(&mut known.told);
        self.give_up_at(node, |copy| !copy.is_acknowledged());
        let is_needed = |ledger: &Self, (place, writing): Named| {
            (ledger.records.get(&place))
                .is_some_and(|record| record.writing == writing && record.copy_at(node).is_some())
        };
        let untold: Vec<Named> =
            told.into_values().flatten().filter(|named| !is_needed(self, *named)).collect();
        if let Some(known) = self.nodes.get_mut(&node) {
            known.owed.extend(untold);
        }
        self.review_at(node);
    }

    /// All epochs of a node before this one are over. What it has of them is never read, and it forgets that itself.
    pub fn fence(&mut self, node: NodeId, epoch: Epoch) {
        let known = self.nodes.entry(node).or_insert_with(|| Node::new(epoch));
        if known.epoch < epoch {
            let places = std::mem::take(&mut known.places);
            *known = Node { places, ..Node::new(epoch) };
        }
        let until = known.epoch;
        self.give_up_at(node, |copy| copy.epoch < until);
        self.review_at(node);
    }

    /// A node has nothing, though it was not away for longer than its epoch: what was acknowledged is gone.
    pub fn emptied(&mut self, node: NodeId) {
        self.give_up_at(node, Copy::is_acknowledged);
        self.review_at(node);
    }

    /// What a node is to be told to forget, so many at most, and the number of this flush. `None`: nothing, or it is away.
    pub fn take_flushes(&mut self, node: NodeId, most: usize) -> Option<(u64, Vec<TierCopy>)> {
        let known = self.nodes.get_mut(&node).filter(|known| known.is_here && !known.owed.is_empty())?;
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(named) = known.owed.pop_first()
        {
            taken.push(named);
        }
        let copies =
            taken.iter().map(|(place, writing)| TierCopy { place: *place, writing: *writing }).collect();
        let number = known.next_flush;
        known.next_flush += 1;
        known.told.insert(number, taken);
        Some((number, copies))
    }

    /// A node has carried out that flush.
    pub fn flushed(&mut self, node: NodeId, number: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.told.remove(&number);
        }
    }

    /// Whether a node that can be reached has yet to forget something.
    pub fn is_owed(&self) -> bool {
        self.nodes.values().any(|node| node.is_here && !(node.owed.is_empty() && node.told.is_empty()))
    }

    /// Gives up those copies at a node that `which` says.
    fn give_up_at(&mut self, node: NodeId, which: impl Fn(&Copy) -> bool) {
        for place in self.places_at(node) {
            let Some(record) = self.records.get_mut(&place) else { continue };
            let is_it = |copy: &Copy| copy.node == node && which(copy);
            if let Some(at) = record.copies.iter().position(is_it) {
                let (writing, copy) = (record.writing, record.copies.remove(at));
                self.give_up(place, writing, &copy);
                self.review(place);
            }
        }
    }

    /// After a node came or went: whether its extents have enough copies.
    fn review_at(&mut self, node: NodeId) {
        self.places_at(node).into_iter().for_each(|place| self.review(place));
    }

    fn places_at(&self, node: NodeId) -> Vec<u32> {
        self.nodes.get(&node).map_or(Vec::new(), |node| node.places.iter().copied().collect())
    }
}
