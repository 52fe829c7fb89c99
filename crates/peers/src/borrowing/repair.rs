//! Repair: extents with fewer copies than promised get others, from a peer to a peer through this node.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tmem_cluster::{
    NodeId,
    ledger::{Read, Ticket, Want},
    wire::{Message, Reason, Run},
};
use tmem_store::{TIER_EXTENT_BYTES, are_whole_blocks};

use super::{
    borrower::{Borrower, REQUEST_TIME},
    packed::Packed,
    writing::PutOne,
};
use crate::connection::{Connection, Waited};

/// How often deadlines of recalled copies are looked at, and whether there is something to repair.
const ROUND: Duration = Duration::from_millis(100);

/// Over what the speed is said.
const SPEED_TIME: Duration = Duration::from_secs(1);

/// How often it is looked whether the next copy may be fetched: at 100 MB a second that is every eighth extent.
const PAYING: Duration = Duration::from_millis(10);

/// Starts the thread that repairs.
pub(super) fn start(borrower: &Arc<Borrower>) -> io::Result<JoinHandle<()>> {
    let borrower = Arc::clone(borrower);
    std::thread::Builder::new().name("peer-repair".to_owned()).spawn(move || {
        let mut pace = Pace { owed: 0.0, at: Instant::now(), since: Instant::now(), bytes: 0 };
        while !borrower.is_over() {
            borrower.repair_bell.sleep(ROUND);
            borrower.repair(&mut pace);
            pace.say(&borrower);
        }
    })
}

/// A copy that a peer gave.
struct Fetched {
    runs: Vec<Run>,
    bytes: Vec<u8>,
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

impl Borrower {
    fn repair(&self, pace: &mut Pace) {
        let mut from_place = 0;
        while let Some((want, targets)) = self.next_repair(&mut from_place) {
            let copied = self.fetch(&want).map(|fetched| {
                pace.spent(fetched.bytes.len());
                let copy = Packed { copy: want.copy, runs: fetched.runs, bytes: fetched.bytes.into() };
                self.copy_to(&targets, &copy);
            });
            if copied.is_none() {
                let mut book = self.book();
                targets.iter().for_each(|(_, ticket)| book.ledger.refuse(*ticket));
            }
            pace.say(self);
            while !pace.is_paid(self.repair_rate.load(Relaxed)) && !self.is_over() {
                // Deadlines of recalls do not wait.
                self.book().ledger.expire(self.now_ms());
                self.repair_bell.sleep(PAYING);
            }
        }
    }

    /// An extent that wants copies, of a place from `from_place` on, and the sendings of new ones. `None`: there is nothing to do, or
    /// nothing to be done for now.
    fn next_repair(&self, from_place: &mut u32) -> Option<(Want, Vec<(NodeId, Ticket)>)> {
        let mut book = self.book();
        book.ledger.expire(self.now_ms());
        let is_soon = book.lost_at.is_some_and(|lost_at| lost_at.elapsed() < self.options.repair_delay);
        if self.is_over() || is_soon || !book.is_complete() {
            return None;
        }
        loop {
            let want = book.ledger.next_want(*from_place)?;
            *from_place = want.copy.place.checked_add(1)?;
            // What memory has is on its way to peers.
            if want.from == Read::Home {
                continue;
            }
            let bytes = TIER_EXTENT_BYTES as u64;
            let chosen = (1..=want.missing)
                .rev()
                .find_map(|count| book.placement.choose(count, bytes, &want.holders, &want.others));
            let Some(nodes) = chosen else { continue };
            let sent = book.ledger.send(want.copy, &nodes);
            if !sent.is_empty() {
                return Some((want, sent));
            }
        }
    }

    /// A whole copy from one of those that have it, the first that is as it should be, or else the first at all.
    fn fetch(&self, want: &Want) -> Option<Fetched> {
        let Read::Peers(nodes) = &want.from else { return None };
        let mut damaged = None;
        for node in nodes {
            let Some(connection) = self.connection(*node) else { continue };
            let Ok(request) = connection.ask(|say, id| say.fetch(id, want.copy)) else { continue };
            let waited = request.wait(Instant::now() + REQUEST_TIME, |message| match message {
                Message::Fetched(copy) => {
                    Ok(Fetched { runs: copy.runs.iter().collect(), bytes: copy.bytes.to_vec() })
                }
                Message::Refused(reason) => Err(reason),
                _ => Err(Reason::NotAllowed),
            });
            match waited {
                Waited::Answer(Ok(fetched)) => {
                    if fetched.is_whole() {
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
        damaged
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

impl Fetched {
    fn is_whole(&self) -> bool {
        let mut rest = &self.bytes[..];
        self.runs.iter().all(|run| {
            let (bytes, others) = rest.split_at_checked(run.bytes()).unwrap_or_default();
            rest = others;
            are_whole_blocks(bytes)
        })
    }
}
