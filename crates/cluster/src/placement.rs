//! Which nodes get the copies of an extent.
//!
//! Of two nodes drawn at random the one with more memory to lend gets a copy (Mitzenmacher, "The power of two choices in randomized load
//! balancing", 2001): nearly even, and no node gets what all borrowers have to place at once because it is the emptiest. No node gets
//! two copies of an extent, and no failure domain does while another one has room.

use std::collections::BTreeMap;

use crate::ids::NodeId;

/// What a node offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What may still be borrowed from it, in bytes.
    pub free_bytes: u64,
    /// What fails with it: a rack, a circuit. `None`: nothing else does.
    pub domain: Option<String>,
    /// It gives no more memory, whatever it has: it leaves, is recalling, or is away.
    pub is_leaving: bool,
}

/// Chooses nodes. The same seed, offers and questions give the same nodes.
#[derive(Debug)]
pub struct Placement {
    nodes: BTreeMap<NodeId, Known>,
    /// Labels of domains, by their numbers.
    labels: Vec<String>,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Domain {
    Label(usize),
    Itself(NodeId),
}

#[derive(Debug)]
struct Known {
    free_bytes: u64,
    domain: Domain,
    is_leaving: bool,
}

impl Placement {
    /// Knows no nodes.
    pub fn new(seed: u64) -> Self {
        Self { nodes: BTreeMap::new(), labels: Vec::new(), random: fastrand::Rng::with_seed(seed) }
    }

    /// What a node offers from now on.
    pub fn set_offer(&mut self, node: NodeId, offer: &Offer) {
        let domain = match &offer.domain {
            None => Domain::Itself(node),
            Some(label) => Domain::Label(self.label(label)),
        };
        self.nodes.insert(node, Known { free_bytes: offer.free_bytes, domain, is_leaving: offer.is_leaving });
    }

    /// A node that is no longer there.
    pub fn remove(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// What a node may still be sent as far as is known, in bytes. 0: nothing.
    pub fn free_bytes(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).filter(|known| !known.is_leaving).map_or(0, |known| known.free_bytes)
    }

    /// Nodes for so many more copies of `bytes` each, beside those that have one (`holders`) and others that must not (`others`). What they were
    /// chosen for counts as sent until their next offer. `None`: there is no room for all of them, and nothing is counted.
    pub fn choose(
        &mut self,
        copies: usize,
        bytes: u64,
        holders: &[NodeId],
        others: &[NodeId],
    ) -> Option<Vec<NodeId>> {
        let mut chosen = Vec::with_capacity(copies);
        for _ in 0..copies {
            let used: Vec<Domain> = holders.iter().chain(&chosen).map(|node| self.domain(*node)).collect();
            let fits = |node: NodeId, known: &Known| {
                !known.is_leaving
                    && known.free_bytes >= bytes
                    && ![holders, others, &chosen].iter().any(|taken| taken.contains(&node))
            };
            let mut all: Vec<(NodeId, &Known)> = (self.nodes.iter())
                .filter(|(node, known)| fits(**node, known))
                .map(|(node, known)| (*node, known))
                .collect();
            if all.iter().any(|(_, known)| !used.contains(&known.domain)) {
                all.retain(|(_, known)| !used.contains(&known.domain));
            }
            chosen.push(freer_of_two(&mut self.random, &all)?);
        }
        for node in &chosen {
            if let Some(known) = self.nodes.get_mut(node) {
                known.free_bytes -= bytes;
            }
        }
        Some(chosen)
    }

    /// A node that left has still the domain that its name says: nobody else's.
    fn domain(&self, node: NodeId) -> Domain {
        self.nodes.get(&node).map_or(Domain::Itself(node), |known| known.domain)
    }

    fn label(&mut self, label: &str) -> usize {
        self.labels.iter().position(|known| known == label).unwrap_or_else(|| {
            self.labels.push(label.to_owned());
            self.labels.len() - 1
        })
    }
}

/// Two different ones where there are two.
fn freer_of_two(random: &mut fastrand::Rng, nodes: &[(NodeId, &Known)]) -> Option<NodeId> {
    if nodes.is_empty() {
        return None;
    }
    let first = random.usize(..nodes.len());
    let second =
        (first + random.usize(0..nodes.len().max(2) - 1) + usize::from(nodes.len() > 1)) % nodes.len();
    let freer = if nodes[first].1.free_bytes >= nodes[second].1.free_bytes { first } else { second };
    Some(nodes[freer].0)
}
