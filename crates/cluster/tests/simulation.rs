//! Sixteen nodes in one process, borrowing from each other by ledger and placement, in simulated time and on a simulated network.
//!
//! Messages take their time, connections break, pairs of nodes lose sight of each other, and one node after the other is killed, cut off (and fenced, or
//! not), or wants its memory back. With two copies and one such trouble at a time no extent is ever lost or wrong, all get back
//! to two copies, and in the end nobody holds what nobody needs. A run follows from its seed.
#![allow(clippy::unwrap_used)] // a test

use std::collections::{BTreeMap, VecDeque};

use tmem_cluster::{
    Epoch, NodeId,
    ledger::{Ledger, Read, Ticket},
    placement::{Offer, Placement},
};
use tmem_store::TierCopy;

const NODES: usize = 16;
const PLACES: u32 = 10;
const EXTENT: u64 = 128 << 10;
/// What a node lends, in extents: four times what one borrows with its two copies.
const LENT: usize = 80;
/// How many runs.
const SEEDS: u64 = 2000;
const STEP_MS: u64 = 10;
/// After so long without an answer a connection is given up.
const PATIENCE_MS: u64 = 40;
/// From the end of one trouble to the next, and after the last.
const REST_STEPS: u32 = 40;

enum Asked {
    Put(TierCopy, Ticket),
    Flush(u64, Vec<TierCopy>),
    Get(TierCopy),
}

enum Answer {
    Stored(Ticket, Epoch),
    NoRoom(Ticket),
    Flushed(u64),
    /// What was found, if anything.
    Got(TierCopy, Option<u64>),
    Recall(Vec<TierCopy>, u64),
}

/// A connection from a borrower to a lender: messages with the time at which they arrive.
#[derive(Default)]
struct Link {
    is_open: bool,
    to: VecDeque<(u64, Asked)>,
    from: VecDeque<(u64, Answer)>,
    cut_until_ms: u64,
    cut_since_ms: Option<u64>,
}

struct Node {
    ledger: Ledger,
    placement: Placement,
    /// Its extents: place and writing.
    current: BTreeMap<u32, u64>,
    home: BTreeMap<u32, u64>,
    next_writing: u64,
    epoch: Epoch,
    /// What it holds for others: by borrower and place, the writing, and when it drops it.
    held: BTreeMap<(usize, u32), (u64, Option<u64>)>,
    /// What it recalled and has not seen flushed, by borrower.
    recalled: BTreeMap<(usize, u32), (u64, u64)>,
    dead_until_ms: u64,
    offers_nothing_until_ms: u64,
}

struct World {
    nodes: Vec<Node>,
    links: Vec<Link>,
    now_ms: u64,
    random: fastrand::Rng,
    /// Nothing more is put, and nothing breaks.
    is_quiet: bool,
    answered: usize,
    repaired: usize,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}

impl World {
    fn new(seed: u64) -> World {
        let node = |n: usize| Node {
            ledger: Ledger::new(2),
            placement: Placement::new(seed ^ n as u64),
            current: BTreeMap::new(),
            home: BTreeMap::new(),
            next_writing: 1,
            epoch: Epoch(1),
            held: BTreeMap::new(),
            recalled: BTreeMap::new(),
            dead_until_ms: 0,
            offers_nothing_until_ms: 0,
        };
        World {
            nodes: (0..NODES).map(node).collect(),
            links: (0..NODES * NODES).map(|_| Link::default()).collect(),
            now_ms: 0,
            random: fastrand::Rng::with_seed(seed),
            is_quiet: false,
            answered: 0,
            repaired: 0,
        }
    }

    /// When a message that is said now arrives: behind those before it.
    fn arrival(random: &mut fastrand::Rng, now_ms: u64, before: Option<u64>) -> u64 {
        (now_ms + random.u64(1..20)).max(before.unwrap_or(0))
    }

    fn ask(&mut self, from: usize, to: usize, asked: Asked) {
        let link = &mut self.links[from * NODES + to];
        let at = Self::arrival(&mut self.random, self.now_ms, link.to.back().map(|(at, _)| *at));
        link.to.push_back((at, asked));
    }

    fn answer(&mut self, borrower: usize, lender: usize, answer: Answer) {
        let link = &mut self.links[borrower * NODES + lender];
        let at = Self::arrival(&mut self.random, self.now_ms, link.from.back().map(|(at, _)| *at));
        link.from.push_back((at, answer));
    }

    fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].dead_until_ms <= self.now_ms
    }

    fn close(&mut self, borrower: usize, lender: usize) {
        let link = &mut self.links[borrower * NODES + lender];
        link.is_open = false;
        link.to.clear();
        link.from.clear();
        self.nodes[borrower].ledger.away(id(lender));
        self.nodes[borrower].placement.remove(id(lender));
    }

    /// Connections break when nobody answers for too long, and are made again.
    fn connect(&mut self, borrower: usize, lender: usize) {
        let now_ms = self.now_ms;
        let is_alive = self.is_alive(lender) && self.is_alive(borrower);
        let link = &mut self.links[borrower * NODES + lender];
        let is_cut = !is_alive || link.cut_until_ms > now_ms;
        if !is_cut {
            link.cut_since_ms = None;
        } else if link.cut_since_ms.is_none() {
            link.cut_since_ms = Some(now_ms);
        }
        let is_given_up = link.cut_since_ms.is_some_and(|since| now_ms >= since + PATIENCE_MS);
        if link.is_open && (is_given_up || !self.is_quiet && self.random.u32(..20_000) == 0) {
            self.close(borrower, lender);
        } else if !link.is_open && !is_cut {
            link.is_open = true;
            let epoch = self.nodes[lender].epoch;
            self.nodes[borrower].ledger.join(id(lender), epoch);
            // Said again: perhaps it was not heard.
            let recalled: Vec<(TierCopy, u64)> = (self.nodes[lender]
                .recalled
                .range((borrower, 0)..=(borrower, PLACES)))
            .map(|((_, place), (writing, until))| (TierCopy { place: *place, writing: *writing }, *until))
            .collect();
            for (copy, until_ms) in recalled {
                self.answer(borrower, lender, Answer::Recall(vec![copy], until_ms.saturating_sub(now_ms)));
            }
            self.offer(borrower, lender);
        }
    }

    fn offer(&mut self, borrower: usize, lender: usize) {
        let node = &self.nodes[lender];
        let offer = Offer {
            free_bytes: LENT.saturating_sub(node.held.len()) as u64 * EXTENT,
            domain: Some(format!("rack {}", lender / 4)),
            is_leaving: node.offers_nothing_until_ms > self.now_ms,
        };
        self.nodes[borrower].placement.set_offer(id(lender), &offer);
    }

    fn serve(&mut self, borrower: usize, lender: usize, asked: Asked) {
        let node = &mut self.nodes[lender];
        let answer = match asked {
            Asked::Put(copy, ticket) => {
                let key = (borrower, copy.place);
                if node.held.len() >= LENT && !node.held.contains_key(&key) {
                    Answer::NoRoom(ticket)
                } else {
                    node.held.insert(key, (copy.writing, None));
                    node.recalled.remove(&key);
                    Answer::Stored(ticket, node.epoch)
                }
            }
            Asked::Flush(number, copies) => {
                for copy in copies {
                    let key = (borrower, copy.place);
                    if node.held.get(&key).is_some_and(|(writing, _)| *writing == copy.writing) {
                        node.held.remove(&key);
                    }
                    if node.recalled.get(&key).is_some_and(|(writing, _)| *writing == copy.writing) {
                        node.recalled.remove(&key);
                    }
                }
                Answer::Flushed(number)
            }
            Asked::Get(copy) => {
                Answer::Got(copy, node.held.get(&(borrower, copy.place)).map(|(writing, _)| *writing))
            }
        };
        self.answer(borrower, lender, answer);
    }

    fn hear(&mut self, borrower: usize, lender: usize, answer: Answer) {
        let node = &mut self.nodes[borrower];
        match answer {
            Answer::Stored(ticket, epoch) => _ = node.ledger.acknowledge(ticket, epoch),
            Answer::NoRoom(ticket) => _ = node.ledger.refuse(ticket),
            Answer::Flushed(number) => node.ledger.flushed(id(lender), number),
            Answer::Recall(copies, span_ms) => node.ledger.recall(id(lender), &copies, self.now_ms + span_ms),
            Answer::Got(copy, found) => {
                let is_wanted = node.current.get(&copy.place) == Some(&copy.writing);
                // By then the copy may have been dropped on purpose; another writing is never taken for it.
                if found == Some(copy.writing) {
                    self.answered += 1;
                } else if is_wanted {
                    node.ledger.gone(copy, id(lender));
                }
            }
        }
    }

    fn borrow(&mut self, borrower: usize) {
        let now_ms = self.now_ms;
        if !self.is_quiet && self.random.u32(..8) == 0 {
            let place = self.random.u32(..PLACES);
            let node = &mut self.nodes[borrower];
            if self.random.u32(..6) == 0 {
                node.ledger.flush(place);
                node.current.remove(&place);
                node.home.remove(&place);
            } else {
                let copy = TierCopy { place, writing: node.next_writing };
                node.next_writing += 1;
                node.ledger.put(copy).unwrap();
                node.current.insert(place, copy.writing);
                node.home.insert(place, copy.writing);
            }
        }
        let node = &mut self.nodes[borrower];
        node.ledger.expire(now_ms);
        let (mut from_place, mut sends) = (0, Vec::new());
        while let Some(want) = node.ledger.next_want(from_place) {
            from_place = want.copy.place + 1;
            if want.from == Read::NotNow {
                continue;
            }
            let Some(chosen) = node.placement.choose(want.missing, EXTENT, &want.holders, &want.others)
            else {
                continue;
            };
            self.repaired += usize::from(want.from != Read::Home) * want.missing;
            sends.extend(node.ledger.send(want.copy, &chosen).into_iter().map(|sent| (want.copy, sent)));
        }
        for copy in node.ledger.take_settled() {
            if node.home.get(&copy.place) == Some(&copy.writing) {
                node.home.remove(&copy.place);
            }
        }
        for (copy, (to, ticket)) in sends {
            self.ask(borrower, index(to), Asked::Put(copy, ticket));
        }
        for lender in 0..NODES {
            while let Some((number, copies)) = self.nodes[borrower].ledger.take_flushes(id(lender), 64) {
                self.ask(borrower, lender, Asked::Flush(number, copies));
            }
        }
        self.look(borrower);
    }

    /// What the ledger says of each extent, against what is at home and what lenders hold; a get of some.
    fn look(&mut self, borrower: usize) {
        for (place, writing) in self.nodes[borrower].current.clone() {
            let copy = TierCopy { place, writing };
            let is_home = self.nodes[borrower].home.get(&place) == Some(&writing);
            match self.nodes[borrower].ledger.read(copy) {
                Read::Home => assert!(is_home, "{copy:?} is not at home any more"),
                Read::Peers(nodes) => {
                    assert!(!is_home);
                    if self.random.u32(..50) == 0 {
                        self.ask(borrower, index(nodes[0]), Asked::Get(copy));
                    }
                }
                Read::NotNow => assert!(!is_home),
                lost => panic!("node {borrower}: {copy:?} is {lost:?} at {} ms", self.now_ms),
            }
        }
    }

    fn step(&mut self) {
        self.now_ms += STEP_MS;
        let now_ms = self.now_ms;
        for lender in 0..NODES {
            self.nodes[lender].held.retain(|_, (_, until)| until.is_none_or(|until| until > now_ms));
            for borrower in (0..NODES).filter(|borrower| *borrower != lender) {
                self.connect(borrower, lender);
                let at = borrower * NODES + lender;
                // What is under way while the link is cut waits, as TCP would have it.
                let is_through = |link: &Link| link.is_open && link.cut_since_ms.is_none();
                while is_through(&self.links[at])
                    && self.links[at].to.front().is_some_and(|(at, _)| *at <= now_ms)
                {
                    let (_, asked) = self.links[at].to.pop_front().unwrap();
                    self.serve(borrower, lender, asked);
                }
                while is_through(&self.links[at])
                    && self.links[at].from.front().is_some_and(|(at, _)| *at <= now_ms)
                {
                    let (_, answer) = self.links[at].from.pop_front().unwrap();
                    self.hear(borrower, lender, answer);
                }
                if is_through(&self.links[at]) && self.random.u32(..10) == 0 {
                    self.offer(borrower, lender);
                }
            }
        }
        (0..NODES)
            .filter(|node| self.is_alive(*node))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| self.borrow(node));
        if !self.is_quiet && self.random.u32(..10) == 0 {
            let (one, other) = (self.random.usize(..NODES), self.random.usize(..NODES));
            let until_ms = now_ms + self.random.u64(10..200);
            self.links[one * NODES + other].cut_until_ms = until_ms;
            self.links[other * NODES + one].cut_until_ms = until_ms;
        }
    }

    fn rest(&mut self, steps: u32) {
        (0..steps).for_each(|_| self.step());
    }

    /// Its memory is gone, with its own extents and those of others.
    fn kill(&mut self, node: usize, for_ms: u64) {
        for other in (0..NODES).filter(|other| *other != node) {
            self.close(node, other);
            self.nodes[other].held.retain(|(borrower, _), _| *borrower != node);
            self.nodes[other].recalled.retain(|(borrower, _), _| *borrower != node);
            // Nothing that was under way arrives after it.
            self.links[other * NODES + node].to.clear();
            self.links[other * NODES + node].from.clear();
        }
        let killed = &mut self.nodes[node];
        killed.held.clear();
        killed.recalled.clear();
        killed.current.clear();
        killed.home.clear();
        killed.epoch.0 += 1;
        killed.ledger = Ledger::new(2);
        killed.dead_until_ms = self.now_ms + for_ms;
        // Whoever had a connection notices, at the latest when it is there again.
        for other in (0..NODES).filter(|other| *other != node) {
            if self.links[other * NODES + node].is_open {
                self.close(other, node);
            }
        }
    }

    fn cut_off(&mut self, node: usize, for_ms: u64) {
        let until_ms = self.now_ms + for_ms;
        for other in (0..NODES).filter(|other| *other != node) {
            self.links[node * NODES + other].cut_until_ms = until_ms;
            self.links[other * NODES + node].cut_until_ms = until_ms;
        }
    }

    /// The others give a node up that is cut off; its lease is over before that, and it drops what it held.
    fn fence(&mut self, node: usize) {
        self.nodes[node].held.clear();
        self.nodes[node].recalled.clear();
        self.nodes[node].epoch.0 += 1;
        let epoch = self.nodes[node].epoch;
        for other in (0..NODES).filter(|other| *other != node) {
            self.close(other, node);
            // Some hear it from the others, some from the node itself.
            if self.random.bool() {
                self.nodes[other].ledger.fence(id(node), epoch);
            }
        }
    }

    fn recall_all(&mut self, node: usize, span_ms: u64) {
        let until_ms = self.now_ms + span_ms;
        self.nodes[node].offers_nothing_until_ms = until_ms;
        let mut copies: BTreeMap<usize, Vec<TierCopy>> = BTreeMap::new();
        let lender = &mut self.nodes[node];
        for ((borrower, place), (writing, until)) in &mut lender.held {
            *until = Some(until_ms);
            lender.recalled.insert((*borrower, *place), (*writing, until_ms));
            copies.entry(*borrower).or_default().push(TierCopy { place: *place, writing: *writing });
        }
        for (borrower, copies) in copies {
            if self.links[borrower * NODES + node].is_open {
                self.answer(borrower, node, Answer::Recall(copies, span_ms));
            }
        }
    }

    fn trouble(&mut self) {
        let node = self.random.usize(..NODES);
        match self.random.u32(..4) {
            0 => {
                let for_ms = self.random.u64(50..300);
                self.kill(node, for_ms);
            }
            1 => self.cut_off(node, 200),
            2 => {
                self.cut_off(node, 250);
                self.rest(12);
                self.fence(node);
            }
            _ => self.recall_all(node, 200),
        }
    }

    /// All have their copies, on two nodes, and nobody holds anything else.
    fn check_end(&self) {
        let mut expected = 0;
        for (n, node) in self.nodes.iter().enumerate() {
            assert_eq!((node.ledger.wanting_extents(), node.ledger.lost_extents()), (0, 0), "node {n}");
            for (place, writing) in &node.current {
                let copy = TierCopy { place: *place, writing: *writing };
                let Read::Peers(holders) = node.ledger.read(copy) else {
                    panic!("node {n}: {copy:?} is at home")
                };
                assert_eq!(holders.len(), 2);
                for holder in holders {
                    let held = self.nodes[index(holder)].held.get(&(n, *place));
                    assert_eq!(
                        held.map(|(writing, _)| *writing),
                        Some(*writing),
                        "node {n}: {copy:?} at {holder}"
                    );
                }
                expected += 2;
            }
        }
        assert_eq!(self.nodes.iter().map(|node| node.held.len()).sum::<usize>(), expected, "held for nobody");
    }
}

#[test]
fn sixteen_nodes_lose_nothing_by_one_trouble_at_a_time() {
    let (mut answered, mut repaired) = (0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.rest(REST_STEPS);
            for _ in 0..2 {
                world.trouble();
                world.rest(REST_STEPS);
            }
            world.is_quiet = true;
            world.rest(2 * REST_STEPS);
            world.check_end();
            (world.answered, world.repaired)
        });
        let Ok(run) = run else { panic!("seed {seed}") };
        answered += run.0;
        repaired += run.1;
    }
    // The runs were about something.
    assert!(
        answered as u64 > SEEDS * 10 && repaired as u64 > SEEDS * 5,
        "{answered} answered, {repaired} repaired"
    );
    println!("{SEEDS} seeds: {answered} pages came back, {repaired} copies made anew");
}
