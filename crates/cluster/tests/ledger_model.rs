//! The ledger among lenders that fill up, go, come back with what they had or with stale copies, recall, and lose things.
//!
//! The lenders here are real ones but for the bytes: what they hold, and whether it is still good, is theirs alone. What the ledger says is looked at
//! after every event.
#![allow(clippy::unwrap_used)] // a test

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use support::lenders::{Lender, PLACES};
use tmem_cluster::{
    Epoch, NodeId,
    ledger::{Acknowledged, Joined, Ledger, OldWriting, Read, Ticket},
};
use tmem_store::TierCopy;

mod support;

/// On its way from a borrower.
enum Asked {
    Put(TierCopy, Ticket),
    Flush(u64, Vec<TierCopy>),
}

/// On its way to it.
enum Answer {
    Stored(TierCopy, Ticket, Epoch),
    NoRoom(Ticket),
    Flushed(u64),
}

/// A lender, and the connection to it: in order both ways, and empty after it broke.
#[derive(Default)]
struct Link {
    lender: Lender,
    is_up: bool,
    to: VecDeque<Asked>,
    from: VecDeque<Answer>,
    /// What the borrower has heard that it has, and did not ask it to forget.
    heard: BTreeSet<(u32, u64)>,
}

impl Link {
    fn has(&self, copy: TierCopy) -> bool {
        self.lender.has(copy)
    }

    /// A copy that must be taken for valid: it is there, and the borrower knows.
    fn is_valid(&self, copy: TierCopy) -> bool {
        self.has(copy) && self.heard.contains(&(copy.place, copy.writing))
    }
}

struct World {
    ledger: Ledger,
    promised: usize,
    is_backed: bool,
    links: BTreeMap<NodeId, Link>,
    current: BTreeMap<u32, u64>,
    home: BTreeSet<(u32, u64)>,
    next_writing: u64,
    now_ms: u64,
    random: fastrand::Rng,
    settled: usize,
    lost: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let promised = random.usize(1..=3);
        let is_backed = random.u32(..3) == 0;
        let mut world = World {
            ledger: if is_backed { Ledger::backed(promised) } else { Ledger::new(promised) },
            promised,
            is_backed,
            links: (1..=6).map(|node| (NodeId(node), Link::default())).collect(),
            current: BTreeMap::new(),
            home: BTreeSet::new(),
            next_writing: 1,
            now_ms: 0,
            random,
            settled: 0,
            lost: 0,
        };
        (1..=6).for_each(|node| world.come_back(NodeId(node)));
        world
    }

    fn node(&mut self) -> NodeId {
        NodeId(self.random.u64(1..=6))
    }

    fn link(&mut self, node: NodeId) -> &mut Link {
        self.links.get_mut(&node).unwrap()
    }

    fn come_back(&mut self, node: NodeId) {
        let link = self.link(node);
        link.is_up = true;
        let epoch = link.lender.epoch;
        assert_ne!(self.ledger.join(node, epoch), Joined::Over);
    }

    fn go(&mut self, node: NodeId) {
        let link = self.link(node);
        link.is_up = false;
        link.to.clear();
        link.from.clear();
        self.ledger.away(node);
    }

    fn put(&mut self) {
        let copy = TierCopy { place: self.random.u32(..PLACES), writing: self.next_writing };
        self.next_writing += 1;
        if let Some(old) = self.current.insert(copy.place, copy.writing) {
            self.home.remove(&(copy.place, old));
            let old = TierCopy { place: copy.place, writing: old };
            self.ledger.put(copy).unwrap();
            let late = Err(OldWriting { place: old.place, writing: old.writing });
            assert_eq!(self.ledger.put(old), late);
            assert_eq!(self.ledger.read(old), Read::Unknown);
        } else {
            self.ledger.put(copy).unwrap();
        }
        self.home.insert((copy.place, copy.writing));
    }

    /// The tier behind the ledger has an extent.
    fn store(&mut self) {
        let place = self.random.u32(..PLACES);
        if let Some(writing) = self.current.get(&place).copied().filter(|_| self.is_backed) {
            self.ledger.stored(TierCopy { place, writing });
            self.ledger.stored(TierCopy { place, writing: writing + 1 });
            self.home.remove(&(place, writing));
        }
    }

    fn flush(&mut self) {
        let place = self.random.u32(..PLACES);
        self.ledger.flush(place);
        if let Some(writing) = self.current.remove(&place) {
            self.home.remove(&(place, writing));
            assert_eq!(self.ledger.read(TierCopy { place, writing }), Read::Unknown);
        }
    }

    /// Sends what is wanted to nodes drawn at random, and tells nodes what to forget.
    fn drive(&mut self) {
        let mut from_place = 0;
        while let Some(want) = self.ledger.next_want(from_place) {
            from_place = want.copy.place + 1;
            if want.from == Read::NotNow {
                continue;
            }
            let mut nodes: Vec<NodeId> = self.links.keys().copied().collect();
            nodes.retain(|node| {
                self.links[node].is_up && !want.holders.contains(node) && !want.others.contains(node)
            });
            self.random.shuffle(&mut nodes);
            nodes.truncate(want.missing);
            for (node, ticket) in self.ledger.send(want.copy, &nodes) {
                self.link(node).to.push_back(Asked::Put(want.copy, ticket));
            }
        }
        self.tell();
    }

    fn tell(&mut self) {
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            while let Some((number, copies)) = self.ledger.take_flushes(node, 3) {
                let link = self.link(node);
                assert!(link.is_up);
                copies.iter().for_each(|copy| {
                    link.heard.remove(&(copy.place, copy.writing));
                });
                link.to.push_back(Asked::Flush(number, copies));
            }
        }
    }

    /// The lender does the next thing that it was asked for.
    fn serve(&mut self, node: NodeId, one_in_full: u32) -> bool {
        let is_full = one_in_full > 0 && self.random.u32(..one_in_full) == 0;
        let link = self.link(node);
        match link.to.pop_front() {
            None => return false,
            Some(Asked::Put(_, ticket)) if is_full => link.from.push_back(Answer::NoRoom(ticket)),
            Some(Asked::Put(copy, ticket)) => {
                link.lender.put(copy);
                let epoch = link.lender.epoch;
                link.from.push_back(Answer::Stored(copy, ticket, epoch));
            }
            Some(Asked::Flush(number, copies)) => {
                copies.iter().for_each(|copy| link.lender.flush(*copy));
                link.from.push_back(Answer::Flushed(number));
            }
        }
        true
    }

    /// The borrower hears the next answer.
    fn hear(&mut self, node: NodeId) -> bool {
        match self.link(node).from.pop_front() {
            None => return false,
            Some(Answer::NoRoom(ticket)) => _ = self.ledger.refuse(ticket),
            Some(Answer::Flushed(number)) => self.ledger.flushed(node, number),
            Some(Answer::Stored(copy, ticket, epoch)) => match self.ledger.acknowledge(ticket, epoch) {
                Acknowledged::Late => {}
                Acknowledged::Held => _ = self.link(node).heard.insert((copy.place, copy.writing)),
            },
        }
        true
    }

    /// Forgets at home what need not be there.
    fn settle(&mut self) {
        for copy in self.ledger.take_settled() {
            let valid = self
                .links
                .values()
                .filter(|link| link.is_up && link.heard.contains(&(copy.place, copy.writing)));
            let valid = valid.count();
            assert!(valid >= self.promised, "forgotten at home with {valid} copies");
            // What was overwritten meanwhile is not there.
            let is_current = self.current.get(&copy.place) == Some(&copy.writing);
            assert_eq!(self.home.remove(&(copy.place, copy.writing)), is_current);
            self.settled += 1;
        }
    }

    fn event(&mut self) {
        let node = self.node();
        match self.random.u32(..100) {
            0..15 => self.put(),
            15..18 => self.flush(),
            18..21 if self.is_backed => self.store(),
            18..32 => self.drive(),
            32..62 => _ = self.serve(node, 8),
            62..88 => _ = self.hear(node),
            88..91 if self.links[&node].is_up => self.go(node),
            88..94 if !self.links[&node].is_up => self.come_back(node),
            // Its machine or process died, or the others gave it up: perhaps with all that it had.
            94 => {
                self.go(node);
                let keeps = self.random.bool();
                let link = self.link(node);
                link.lender.begin_epoch(keeps);
                link.heard.clear();
                let epoch = link.lender.epoch;
                if self.random.bool() {
                    self.ledger.fence(node, epoch);
                }
                if self.random.bool() {
                    self.come_back(node);
                    assert_eq!(self.ledger.join(node, Epoch(epoch.0 - 1)), Joined::Over);
                }
            }
            95 | 96 if self.links[&node].is_up => self.recall(node),
            97 | 98 => self.pass(30),
            // It was told to forget all while it was away, and says so as soon as it is back.
            99 if self.random.bool() => {
                self.go(node);
                let link = self.link(node);
                (0..PLACES).for_each(|place| link.lender.lose(place));
                link.heard.clear();
                self.ledger.emptied(node);
                self.come_back(node);
            }
            // It loses one that it had, and nobody knows until it is asked for.
            99 => {
                let place = self.random.u32(..PLACES);
                self.link(node).lender.lose(place);
            }
            _ => {}
        }
        self.tell();
    }

    /// The lender wants some of its copies back; that the message is heard at once costs the ledger nothing, the deadline is its own.
    fn recall(&mut self, node: NodeId) {
        let until_ms = self.now_ms + self.random.u64(1..100);
        let places: Vec<u32> = (0..PLACES).filter(|_| self.random.u32(..3) == 0).collect();
        let recalled = self.link(node).lender.recall(&places, until_ms);
        self.ledger.recall(node, &recalled, until_ms);
    }

    fn pass(&mut self, most_ms: u64) {
        self.now_ms += self.random.u64(1..=most_ms);
        for link in self.links.values_mut() {
            for copy in link.lender.expire(self.now_ms) {
                link.heard.remove(&(copy.place, copy.writing));
            }
        }
        self.ledger.expire(self.now_ms);
    }

    /// What the ledger says of every place is what the lenders have.
    fn check(&mut self) {
        self.settle();
        for place in 0..PLACES {
            let Some(writing) = self.current.get(&place).copied() else { continue };
            let copy = TierCopy { place, writing };
            let read = loop {
                // Asks as a get would: the first that has it.
                let Read::Peers(nodes) = self.ledger.read(copy) else { break self.ledger.read(copy) };
                assert!(nodes.iter().all(|node| self.links[node].is_up), "{nodes:?} are not all there");
                let node = nodes[0];
                if self.links[&node].has(copy) {
                    break Read::Peers(nodes);
                }
                assert!(self.links[&node].lender.lost.contains(&(place, writing)), "{node} never had it");
                self.ledger.gone(copy, node);
                self.link(node).heard.remove(&(place, writing));
            };
            let is_home = self.home.contains(&(place, writing));
            assert_eq!(read == Read::Home, is_home, "{copy:?}");
            let valid: Vec<NodeId> =
                self.links.iter().filter(|(_, link)| link.is_valid(copy)).map(|(node, _)| *node).collect();
            let reachable = valid.iter().any(|node| self.links[node].is_up);
            match read {
                Read::Home | Read::Peers(_) => {}
                Read::Backing => assert!(self.is_backed && !reachable, "{copy:?}: {valid:?} have it"),
                Read::NotNow => {
                    assert!(!self.is_backed && !reachable, "{copy:?} can be had from {valid:?}");
                }
                Read::Lost => assert!(valid.is_empty(), "{copy:?} is not lost, {valid:?} have it"),
                Read::Unknown => panic!("{copy:?} was put"),
            }
        }
    }

    /// Everybody comes back and has room, and there is time: all that is not lost has its copies, and nobody has anything else.
    fn heal(&mut self) {
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            if !self.links[&node].is_up {
                self.come_back(node);
            }
        }
        self.pass(1000);
        self.now_ms += 1000;
        self.pass(1);
        loop {
            self.check();
            self.drive();
            let mut goes_on = false;
            for node in 1..=6 {
                while self.serve(NodeId(node), 0) || self.hear(NodeId(node)) {
                    goes_on = true;
                }
            }
            if !goes_on {
                break;
            }
        }
        self.check();
        assert_eq!(self.ledger.wanting_extents(), 0);
        let mut expected = 0;
        for (place, writing) in self.current.clone() {
            let copy = TierCopy { place, writing };
            let valid = self.links.values().filter(|link| link.is_valid(copy)).count();
            let nodes = match self.ledger.read(copy) {
                Read::Peers(nodes) => nodes,
                Read::Lost => {
                    self.lost += 1;
                    Vec::new()
                }
                other => panic!("{copy:?} is {other:?} after all is well"),
            };
            assert!(nodes.is_empty() || nodes.len() == self.promised, "{copy:?} has copies at {nodes:?}");
            // All that was promised is there, but for what was lost without a word and not asked for since.
            let (there, not_there): (Vec<NodeId>, Vec<NodeId>) =
                nodes.iter().partition(|node| self.links[node].is_valid(copy));
            assert_eq!(valid, there.len(), "{copy:?} is where nobody knows");
            assert!(not_there.iter().all(|node| self.links[node].lender.lost.contains(&(place, writing))));
            expected += valid;
        }
        assert_eq!(self.ledger.lost_extents(), self.lost);
        assert!(!self.is_backed || self.lost == 0, "the tier behind it has all");
        let held: usize = self.links.values().map(|link| link.lender.held()).sum();
        assert_eq!(held, expected, "lenders hold what nobody needs");
    }
}

#[test]
fn whatever_happens_reads_are_right_and_copies_come_back() {
    let (mut settled, mut lost) = (0, 0);
    for seed in 0..600 {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..400 {
                world.event();
                world.check();
            }
            world.heal();
            (world.settled, world.lost)
        });
        let Ok(run) = run else { panic!("seed {seed}") };
        settled += run.0;
        lost += run.1;
    }
    // The runs were about something.
    assert!(settled > 5000 && lost > 10, "{settled} settled, {lost} lost");
}
