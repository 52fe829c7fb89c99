//! Repair: extents with fewer copies than promised get others, from a peer, or the tier that has all, to a peer through this node.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tmem_cluster::{
    NodeId,
    ledger::{Leaving, Read, Ticket, Want},
    wire::{Message, Reason},
};
use tmem_store::{TIER_EXTENT_BYTES, TierCopy};

use super::{
    book::Book,
    borrower::{Borrower, REQUEST_TIME},
    packed::{Packed, all_runs},
    reading::{Found, confirm},
    writing::PutOne,
};
use crate::connection::{Connection, Waited};

/// How often deadlines of recalled copies are looked at, and whether there is something to repair.
const ROUND: Duration = Duration::from_millis(100);

/// Over what the speed is said.
const SPEED_TIME: Duration = Duration::from_secs(1);

/// How often it is found out how fast the other tier is.
const SAMPLING: Duration = Duration::from_secs(1);

/// How often it is looked whether the next copy may be fetched: at 100 MB a second that is every eighth extent.
const PAYING: Duration = Duration::from_millis(10);

/// Of what is asked back, how much is looked at for something that can be done before everything else is.
const MOST_LEAVING: usize = 64;

/// How many extents are looked at in one go: whoever reads waits for that. What is left is for the next round.
const MOST_LOOKED_AT: usize = 1024;

/// Starts the thread that repairs.
pub(super) fn start(borrower: &Arc<Borrower>) -> io::Result<JoinHandle<()>> {
    let borrower = Arc::clone(borrower);
    std::thread::Builder::new().name("peer-repair".to_owned()).spawn(move || {
        let mut sampled = Instant::now();
        let mut pace = Pace { owed: 0.0, at: Instant::now(), since: Instant::now(), bytes: 0 };
        let mut search = Search { rest: borrower.options.repair_delay * RESTING, ..Search::default() };
        while !borrower.is_over() {
            borrower.repair_bell.sleep(ROUND);
            borrower.repair(&mut pace, &mut search);
            pace.say(&borrower);
            if sampled.elapsed() >= SAMPLING {
                sampled = Instant::now();
                borrower.sample_backing();
            }
        }
    })
}

/// After a copy could be had from nobody it is not tried again for this many times [`PeerTierOptions::repair_delay`].
const RESTING: u32 = 15;

/// With so many copies that could be had from nobody, nothing else is tried for now.
const MOST_RESTING: usize = 1 << 16;

/// Where the search for something to repair goes on.
#[derive(Default)]
struct Search {
    /// How long a copy rests that could be had from nobody.
    rest: Duration,
    /// Copies that could be had from nobody, by place: the writing, and since when.
    resting: BTreeMap<u32, (u64, Instant)>,
    /// After this one, of what is asked back.
    leaving: Option<Leaving>,
    /// From this place on, of everything.
    place: u32,
}

/// How fast repair is, and may be.
struct Pace {
    /// So many bytes were fetched that time has not paid for...
    owed: f64,
    /// ...by then.
    at: Instant,
    /// Since then...
    since: Instant,
    /// ...so much was.
    bytes: u64,
}

impl Pace {
    fn spent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.owed += bytes as f64;
    }

    /// Whether the next may be fetched, at so many bytes a second; 0: as many as it can.
    fn is_paid(&mut self, bytes_per_second: u64) -> bool {
        let paid = bytes_per_second as f64 * self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.owed = if bytes_per_second == 0 { 0.0 } else { (self.owed - paid).max(0.0) };
        self.owed == 0.0
    }

    fn say(&mut self, borrower: &Borrower) {
        let elapsed = self.since.elapsed();
        if elapsed >= SPEED_TIME {
            let per_second =
                self.bytes * 1000 / u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            borrower.repair_speed.store(per_second, Relaxed);
            (self.since, self.bytes) = (Instant::now(), 0);
        }
    }
}

impl Search {
    fn rest(&mut self, copy: TierCopy) {
        self.resting.insert(copy.place, (copy.writing, Instant::now()));
    }

    /// Whether so much rests that nothing else is tried before some of it has rested.
    fn is_full(&mut self) -> bool {
        if self.resting.len() >= MOST_RESTING {
            self.resting.retain(|_, (_, since)| since.elapsed() < self.rest);
        }
        self.resting.len() >= MOST_RESTING
    }

    fn is_resting(&mut self, copy: TierCopy) -> bool {
        let Some((writing, since)) = self.resting.get(&copy.place) else { return false };
        let is_resting = *writing == copy.writing && since.elapsed() < self.rest;
        if !is_resting {
            self.resting.remove(&copy.place);
        }
        is_resting
    }
}

impl Borrower {
    /// Finds out what has become of copies that peers did not have when they were asked in a hurry.
    fn look_at_suspects(&self) {
        for (copy, node) in self.take_suspects() {
            let Some(connection) = self.connection(node) else { continue };
            if confirm(&connection, copy) == Found::Gone {
                log::warn!("{node} has lost a copy of place {}", copy.place);
                self.book().ledger.gone(copy, node);
            }
        }
    }

    fn repair(&self, pace: &mut Pace, search: &mut Search) {
        self.look_at_suspects();
        while let Some((want, targets)) = self.next_repair(search) {
            let copied = self.fetch(&want).map(|copy| {
                pace.spent(copy.bytes.len());
                self.copy_to(&targets, &copy);
            });
            if copied.is_none() {
                // What a peer did not give now it may give next, and it may be asked back.
                if want.from == Read::Backing {
                    pace.spent(TIER_EXTENT_BYTES);
                    search.rest(want.copy);
                }
                let mut book = self.book();
                for (_, ticket) in &targets {
                    book.ledger.refuse(*ticket);
                }
            }
            pace.say(self);
            while !pace.is_paid(self.repair_rate.load(Relaxed)) && !self.is_over() {
                // Deadlines of recalls do not wait.
                self.book().ledger.expire(self.now_ms());
                self.repair_bell.sleep(PAYING);
            }
        }
    }

    /// An extent that wants copies, and the sendings of new ones. `None`: there is nothing to do, or nothing was found that can be done.
    fn next_repair(&self, search: &mut Search) -> Option<(Want, Vec<(NodeId, Ticket)>)> {
        let mut book = self.book();
        book.ledger.expire(self.now_ms());
        if self.is_over() {
            return None;
        }
        // What is asked back has a deadline. It waits for nobody who may be back, and not for long for others to be heard.
        let began = book.began.map(|began| began.elapsed());
        let is_urgent = book.is_heard() || began.is_some_and(|since| since >= self.options.repair_delay);
        for _ in 0..if is_urgent { MOST_LEAVING } else { 0 } {
            let Some((leaving, want)) = book.ledger.next_leaving(search.leaving) else {
                search.leaving = None;
                break;
            };
            search.leaving = Some(leaving);
            if let Some(repair) = want.and_then(|want| book.send_copies(want)) {
                return Some(repair);
            }
        }
        if !book.is_heard() || search.is_full() {
            return None;
        }
        for _ in 0..MOST_LOOKED_AT {
            let Some(want) = book.ledger.next_want(search.place) else {
                // The next time it begins at the beginning.
                search.place = 0;
                return None;
            };
            search.place = want.copy.place.checked_add(1).unwrap_or(0);
            if search.is_resting(want.copy) {
                continue;
            }
            let is_early = want.others.iter().any(|node| book.is_just_away(*node, self.options.repair_delay));
            if let Some(repair) = Some(want).filter(|_| !is_early).and_then(|want| book.send_copies(want)) {
                return Some(repair);
            }
        }
        None
    }

    /// A copy from one of those that have it, the first that is as it should be, or else the first at all.
    fn fetch(&self, want: &Want) -> Option<Packed<'static>> {
        let mut damaged = None;
        let nodes = if let Read::Peers(nodes) = &want.from { &nodes[..] } else { &[] };
        for node in nodes {
            let Some(connection) = self.connection(*node) else { continue };
            let Ok(request) = connection.ask(|say, id| say.fetch(id, want.copy)) else { continue };
            let waited = request.wait(Instant::now() + REQUEST_TIME, |message| match message {
                Message::Fetched(copy) => {
                    let runs = copy.runs.iter().collect();
                    Ok(Packed { copy: want.copy, runs, bytes: copy.bytes.to_vec().into() })
                }
                Message::Refused(reason) => Err(reason),
                _ => Err(Reason::NotAllowed),
            });
            match waited {
                Waited::Answer(Ok(fetched)) => {
                    if self.is_whole(&fetched) {
                        return Some(fetched);
                    }
                    damaged.get_or_insert(fetched);
                }
                Waited::Answer(Err(Reason::NotThere | Reason::Dropped)) => {
                    self.book().ledger.gone(want.copy, *node);
                }
                Waited::NotYet => connection.end("it does not answer a fetch"),
                Waited::Answer(Err(_)) | Waited::Ended => {}
            }
        }
        self.fetch_from_backing(want.copy).or(damaged)
    }

    fn is_whole(&self, fetched: &Packed<'_>) -> bool {
        let mut bytes = fetched.bytes.to_vec();
        all_runs(&fetched.runs, &mut bytes, |run, bytes| self.open(fetched.copy, run.start_bytes(), bytes))
    }

    fn copy_to(&self, targets: &[(NodeId, Ticket)], copy: &Packed<'_>) {
        for (node, ticket) in targets {
            let connection = self.connection(*node);
            let put = connection.as_ref().map_or(PutOne::Failed, |connection| self.put_one(connection, copy));
            let mut book = self.book();
            match connection.filter(|_| put == PutOne::Stored) {
                Some(connection) => {
                    Self::acknowledge(&mut book, *ticket, copy.copy, *node, connection.hello().epoch);
                    self.repaired_bytes.fetch_add(copy.bytes.len() as u64, Relaxed);
                    self.repaired_copies.fetch_add(1, Relaxed);
                }
                None => {
                    book.ledger.refuse(*ticket);
                    if put == PutOne::NoRoom {
                        book.is_full(*node);
                    }
                }
            }
        }
    }

    fn connection(&self, node: NodeId) -> Option<Arc<Connection>> {
        self.book().seats.get(&node)?.connection.clone()
    }
}

impl Book {
    /// New copies of an extent are on their way: the sendings. `None`: there can't be any now.
    fn send_copies(&mut self, want: Want) -> Option<(Want, Vec<(NodeId, Ticket)>)> {
        // What memory has is on its way to peers.
        if !matches!(want.from, Read::Peers(_) | Read::Backing) {
            return None;
        }
        let bytes = TIER_EXTENT_BYTES as u64;
        let nodes = (1..=want.missing)
            .rev()
            .find_map(|count| self.placement.choose(count, bytes, &want.holders, &want.others))?;
        let sent = self.ledger.send(want.copy, &nodes);
        (!sent.is_empty()).then_some((want, sent))
    }
}
