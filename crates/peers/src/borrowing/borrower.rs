//! What all threads of a tier share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tmem_cluster::{
    Epoch, NodeId,
    ledger::{Acknowledged, Joined, Ticket},
    wire::Copies,
};
use tmem_store::{Tier, TierCopy, TierError, TierKey, TierRun, TierState, TierWrite};

use super::{
    backing::BackingTimes,
    book::{Book, Seat},
    copier::Copier,
    options::{Member, PeerTierOptions},
    packed::{Packed, merged},
    peer::Peer,
    sealing::Seal,
};
use crate::{bell::Bell, clock::Clock, connection::Connection, error::PeerError};

/// A peer that pings but leaves a request unanswered for so long is not waited for: its connection is begun anew.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(3);

/// A peer's thread is told of dead stretches at once when there are so many, else it comes to them in its round.
const MANY_RELEASED: usize = 1024;

/// The trouble of a peer that is there and should not be.
const UNNAMED: &str =
    "it is named as a member no more: it gets nothing new, and is read as long as it answers";

/// So many are remembered; of others a later read finds out again.
const MOST_SUSPECTS: usize = 64;

/// Which blocks of a copy, of which the bytes are given, are still needed.
pub(super) type Filter = Box<dyn Fn(TierCopy, &[u8]) -> Vec<TierRun> + Send + Sync>;

pub(super) struct Borrower {
    pub(super) options: PeerTierOptions,
    /// A tier that has a copy of every extent, too.
    pub(super) backing: Option<Arc<dyn Tier>>,
    /// How fast that is.
    pub(super) backing_times: BackingTimes,
    pub(super) copier: Copier,
    /// Which blocks of a copy are still needed. Not set: all may be.
    filter: OnceLock<Filter>,
    /// Copies that peers did not have when they were asked in a hurry.
    suspects: Mutex<Vec<(TierCopy, NodeId)>>,
    /// Drawn with the store: what peers keep is under this number. Not set before the store has said its key.
    store: OnceLock<u64>,
    /// Made of the store's key, as that number.
    seal: OnceLock<Seal>,
    book: Mutex<Book>,
    /// Rung when more can be read than before.
    changed: Condvar,
    /// For the thread that repairs.
    pub(super) repair_bell: Bell,
    pub(super) repair_rate: AtomicU64,
    /// What repair fetches, in bytes a second.
    pub(super) repair_speed: AtomicU64,
    pub(super) repaired_bytes: AtomicU64,
    pub(super) repaired_copies: AtomicU64,
    is_over: AtomicBool,
    clock: Clock,
}

impl Borrower {
    pub(super) fn new(options: PeerTierOptions, backing: Option<Arc<dyn Tier>>) -> Self {
        let book = Book::new(options.copies, options.more_members_may_come, backing.is_some());
        Self {
            book: Mutex::new(book),
            backing,
            backing_times: BackingTimes::default(),
            copier: Copier::default(),
            filter: OnceLock::new(),
            suspects: Mutex::default(),
            repair_rate: AtomicU64::new(options.repair_bytes_per_second),
            options,
            store: OnceLock::new(),
            seal: OnceLock::new(),
            changed: Condvar::new(),
            repair_bell: Bell::default(),
            repair_speed: AtomicU64::new(0),
            repaired_bytes: AtomicU64::new(0),
            repaired_copies: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            clock: Clock::start(),
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more can be read than before, so long at most.
    pub(super) fn wait_for_change(&self, book: MutexGuard<'_, Book>, most: Duration) {
        drop(self.changed.wait_timeout(book, most).unwrap_or_else(PoisonError::into_inner));
    }

    /// The same key has the same number, in whichever process: so peers know whose copies they have.
    pub(super) fn use_key(&self, key: &TierKey) {
        let hash = ring::digest::digest(&ring::digest::SHA256, &[&b"tmem store "[..], &key.0[..]].concat());
        let number = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // The store says it once.
        let _ = self.seal.set(Seal::new(key, self.options.encrypt));
        let _ = self.store.set(number);
        self.book().seats.values().for_each(|seat| seat.peer.bell.ring());
    }

    pub(super) fn store(&self) -> Option<u64> {
        self.store.get().copied()
    }

    /// Makes an extent what peers may have. False: it cannot be, and must not go out.
    pub(super) fn close(&self, packed: &mut Packed<'_>) -> bool {
        self.seal.get().is_some_and(|seal| packed.close(seal))
    }

    /// Makes bytes of a copy, from `start` of its extent on, what they were. False: they are no whole blocks.
    pub(super) fn open(&self, copy: TierCopy, start: usize, bytes: &mut [u8]) -> bool {
        self.seal.get().is_some_and(|seal| seal.open(copy, start, bytes))
    }

    /// Extents as peers may have them.
    pub(super) fn pack<'a>(&self, writes: &[TierWrite<'a>]) -> Result<Vec<Packed<'a>>, TierError> {
        let pack = |write: &TierWrite<'a>| {
            let needed = write.needed.iter().map(|run| (run.start, run.bytes));
            let mut packed = Packed::of(write.copy, write.extent, merged(needed));
            self.close(&mut packed).then_some(packed)
        };
        let packed: Option<Vec<Packed<'a>>> = writes.iter().map(pack).collect();
        packed.ok_or_else(|| TierError::Unavailable("pages can't be encrypted".to_owned()))
    }

    pub(super) fn set_filter(&self, filter: Filter) {
        // The store says it once.
        let _ = self.filter.set(filter);
    }

    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filter.get()
    }

    /// A peer has not what it was asked for: whether it has the rest of that copy is to be found out.
    pub(super) fn suspect(&self, copy: TierCopy, node: NodeId) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < MOST_SUSPECTS && !suspects.contains(&(copy, node)) {
            suspects.push((copy, node));
            self.repair_bell.ring();
        }
    }

    pub(super) fn take_suspects(&self) -> Vec<(TierCopy, NodeId)> {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.repair_bell.ring();
        self.copier.end();
        let ended: Vec<_> = {
            let book = self.book();
            book.seats.values().for_each(|seat| seat.peer.bell.ring());
            book.seats.values().filter_map(|seat| seat.connection.clone()).collect()
        };
        ended.iter().for_each(|connection| connection.end("the tier is closed"));
        self.changed.notify_all();
    }

    pub(super) fn set_repair_rate(&self, bytes_per_second: u64) {
        self.repair_rate.store(bytes_per_second, Relaxed);
        self.repair_bell.ring();
    }

    /// Who the peers are from now on. Gives those that have no thread yet.
    pub(super) fn set_members(&self, members: &[Member]) -> Vec<Arc<Peer>> {
        let others = members.iter().filter(|member| member.name != self.options.identity.name);
        let wanted: BTreeMap<NodeId, &Member> =
            others.map(|member| (member.name.node_id(), member)).collect();
        let (mut new, mut ended, mut named_again) = (Vec::new(), Vec::new(), Vec::new());
        let mut book = self.book();
        book.began.get_or_insert_with(Instant::now);
        let over: Vec<NodeId> = book.seats.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        let unnamed: Vec<Arc<Peer>> = over.into_iter().filter_map(|id| book.unname(id)).collect();
        for (id, member) in wanted {
            let Some(seat) = book.seats.get_mut(&id) else {
                let peer = Arc::new(Peer::new(member.name));
                book.seats.insert(id, Seat::new(Arc::clone(&peer), member));
                new.push(peer);
                if let Some(epoch) = member.epoch {
                    ended.extend(book.fence(id, epoch));
                }
                continue;
            };
            let has_moved = std::mem::replace(&mut seat.address, member.address.clone()) != member.address;
            let is_news = has_moved || member.epoch > seat.epoch;
            seat.domain = member.domain.clone();
            if !std::mem::replace(&mut seat.is_member, true) {
                named_again.push(Arc::clone(&seat.peer));
            }
            if let Some(connection) = seat.connection.take_if(|_| has_moved) {
                ended.push(connection);
                book.lost(id);
            }
            if let Some(epoch) = member.epoch {
                ended.extend(book.fence(id, epoch));
            }
            if let Some(seat) = book.seats.get(&id).filter(|_| is_news) {
                seat.peer.bell.ring();
            }
            book.tell_placement(id);
        }
        drop(book);
        unnamed.iter().for_each(|peer| peer.set_trouble(Some(UNNAMED.to_owned())));
        named_again.iter().for_each(|peer| peer.set_trouble(None));
        self.end_connections(&ended);
        new
    }

    /// Epochs that nodes have reached, members or not.
    pub(super) fn fence(&self, epochs: &[(NodeId, Epoch)]) {
        let mut book = self.book();
        let ended: Vec<_> = epochs.iter().filter_map(|(node, epoch)| book.fence(*node, *epoch)).collect();
        drop(book);
        self.end_connections(&ended);
    }

    fn end_connections(&self, ended: &[Arc<Connection>]) {
        ended.iter().for_each(|connection| connection.end("it has another address, or is in a later epoch"));
        self.changed.notify_all();
        self.repair_bell.ring();
    }

    /// A peer can be reached.
    pub(super) fn joined(&self, peer: &Arc<Peer>, connection: &Arc<Connection>) -> Result<(), PeerError> {
        let epoch = connection.hello().epoch;
        let mut book = self.book();
        let Some(seat) = book.seats.get_mut(&peer.id).filter(|seat| Arc::ptr_eq(&seat.peer, peer)) else {
            return Err(PeerError::Closed { address: peer.name.to_string() });
        };
        let old = |latest: Epoch| PeerError::OldEpoch {
            address: seat.address.clone(),
            name: peer.name.to_string(),
            found: epoch.0,
            latest: latest.0,
        };
        if let Some(latest) = seat.epoch.filter(|latest| *latest > epoch) {
            return Err(old(latest));
        }
        if book.ledger.join(peer.id, epoch) == Joined::Over {
            return Err(PeerError::Closed { address: peer.name.to_string() });
        }
        book.found(peer.id, Arc::clone(connection));
        drop(book);
        self.changed.notify_all();
        self.repair_bell.ring();
        Ok(())
    }

    /// A peer can't be reached any more by that connection.
    pub(super) fn left(&self, peer: &Peer, connection: &Arc<Connection>) {
        let mut book = self.book();
        let seat = book.seats.get(&peer.id);
        if seat.and_then(|seat| seat.connection.as_ref()).is_some_and(|known| Arc::ptr_eq(known, connection))
        {
            book.lost(peer.id);
        }
        drop(book);
        self.changed.notify_all();
        self.repair_bell.ring();
    }

    /// A peer has said which copies it has, some of them or all.
    pub(super) fn listed(&self, peer: &Peer, epoch: Epoch, copies: &[TierCopy], is_all: bool) {
        let mut book = self.book();
        copies.iter().for_each(|copy| book.listed(*copy, peer.id, epoch));
        if is_all {
            book.all_listed(peer.id, epoch);
        }
        drop(book);
        self.changed.notify_all();
        self.repair_bell.ring();
    }

    pub(super) fn recalled(&self, node: NodeId, deadline_ms: u32, copies: Copies<'_>) {
        let copies: Vec<TierCopy> = copies.iter().collect();
        self.book().recalled(node, &copies, self.now_ms() + u64::from(deadline_ms));
        self.repair_bell.ring();
    }

    /// What the store has here since before this process began.
    pub(super) fn adopt(&self, copies: impl Iterator<Item = TierCopy>) {
        let mut book = self.book();
        for copy in copies {
            if self.backing.is_none() {
                book.needed.insert(copy.place, copy.writing);
            } else if book.ledger.put(copy).is_ok() {
                book.ledger.stored(copy);
            }
        }
    }

    pub(super) fn discard(&self, place: u32) {
        let mut book = self.book();
        book.ledger.flush(place);
        book.needed.remove(&place);
    }

    pub(super) fn forget_all(&self) {
        let mut book = self.book();
        book.needed.clear();
        book.ledger.retain(|_| false);
        book.seats.values().for_each(|seat| seat.peer.bell.ring());
    }

    /// Blocks of copies that nobody needs any more: start and length of each, in bytes.
    pub(super) fn release(&self, dead: impl Iterator<Item = (TierCopy, (u32, u32))>) {
        let book = self.book();
        let mut told: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (copy, stretch) in dead {
            // Those that are away are told when they are back.
            for node in book.ledger.holders(copy) {
                if let Some(seat) = book.seats.get(&node) {
                    seat.peer.release((copy.place, copy.writing), stretch);
                    *told.entry(node).or_default() += usize::from(seat.connection.is_some());
                }
            }
        }
        for (node, _) in told.iter().filter(|(_, count)| **count >= MANY_RELEASED) {
            if let Some(seat) = book.seats.get(node) {
                seat.peer.bell.ring();
            }
        }
    }

    /// A node says that it has what was sent with that ticket.
    pub(super) fn acknowledge(book: &mut Book, ticket: Ticket, copy: TierCopy, node: NodeId, epoch: Epoch) {
        if book.ledger.acknowledge(ticket, epoch) == Acknowledged::Late {
            book.ledger.owe(copy, node, epoch);
        }
    }

    /// Milliseconds of a clock that nobody sets.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// What goes wrong, for people.
    pub(super) fn trouble(&self) -> Option<String> {
        let book = self.book();
        let lost = book.lost_extents();
        if lost > 0 {
            return Some(format!("{lost} extents are lost: too many peers went at once"));
        }
        if book.state() == TierState::Ready {
            return None;
        }
        let troubles = book
            .seats
            .values()
            .filter_map(|seat| seat.peer.trouble().map(|trouble| format!("{}: {trouble}", seat.peer.name)));
        match (troubles.collect::<Vec<_>>(), book.state()) {
            (_, _) if book.seats.is_empty() => {
                Some("no peers are known: [cluster] names none, or etcd has not said yet".to_owned())
            }
            (troubles, TierState::Full) if troubles.is_empty() => Some("peers have no room left".to_owned()),
            (troubles, _) if troubles.is_empty() => {
                Some(format!("there are fewer peers than the {} copies need", self.options.copies))
            }
            (troubles, _) => Some(troubles.join("; ")),
        }
    }
}
