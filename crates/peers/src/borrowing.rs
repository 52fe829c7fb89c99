//! Peers' memory as a tier of the store.
//!
//! The store says which extents to keep, read and forget; the ledger says what is known of them, and placement where they go. What is here
//! says it to peers and does what follows. One lock is over all that is known, and is never held while anybody waits for a peer.
//!
//! | file | job |
//! |---|---|
//! | `options` | what a tier is made with, and who its peers are |
//! | `borrower`, `book` | what all threads share, and what is known |
//! | `peer`, `round_trips` | one peer, and how fast it answers |
//! | `keeping` | a peer's thread: connects, pings, says what is to be forgotten |
//! | `packed` | extents without what nobody needs |
//! | `sealing` | pages that lenders cannot read |
//! | `writing`, `reading`, `repair` | what their names say |
//! | `reading_many` | many blocks under way at once |
//! | `backing`, `copier` | another tier that has everything, too |
//! | `status` | for people |

mod backing;
mod book;
mod borrower;
mod copier;
mod keeping;
mod options;
mod packed;
mod peer;
mod reading;
mod reading_many;
mod repair;
mod round_trips;
mod sealing;
mod status;
mod writing;

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tmem_cluster::{Epoch, NodeId};
use tmem_store::{Tier, TierCopy, TierError, TierKey, TierRead, TierRun, TierState, TierWrite};

use borrower::Borrower;
pub use options::{Member, PeerTierOptions};
pub use status::{BorrowingStatus, PeerState, PeerStatus};

/// How often it is looked whether peers have forgotten what they were told to.
const LOOK_UP: Duration = Duration::from_millis(10);

/// A tier that keeps copies of extents in peers' memory. Dropped, it ends its connections; what peers have they keep.
pub struct PeerTier {
    borrower: Arc<Borrower>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for PeerTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerTier({})", self.borrower.options.name)
    }
}

impl PeerTier {
    /// A tier without peers so far: [`Self::set_members`]. Nobody is spoken to before the store has said its key.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(options: PeerTierOptions) -> io::Result<Self> {
        Self::start(Borrower::new(options, None))
    }

    /// The same, where another tier, on a disk, has a copy of everything as well: nothing is lost with peers, what they have no room for is there, and
    /// so are the copies that peers get anew.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn backed(options: PeerTierOptions, backing: Arc<dyn Tier>) -> io::Result<Self> {
        Self::start(Borrower::new(options, Some(backing)))
    }

    fn start(borrower: Borrower) -> io::Result<Self> {
        let borrower = Arc::new(borrower);
        // Ends what has begun if the rest cannot be.
        let tier = Self { borrower, threads: Mutex::default() };
        let mut threads = vec![repair::start(&tier.borrower)?];
        if tier.borrower.backing.is_some() {
            threads.push(copier::start(&tier.borrower)?);
        }
        *tier.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(tier)
    }

    /// Who the peers are from now on. This node itself may be among them. A peer with another address or in a later epoch is spoken to
    /// anew. One that is not named any more gets nothing new; what it has is read as long as it answers.
    pub fn set_members(&self, members: &[Member]) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.borrower.set_members(members);
        threads.extend(new.iter().filter_map(|peer| keeping::start(&self.borrower, peer)));
        threads.retain(|thread| !thread.is_finished());
    }

    /// Epochs that nodes have reached, members or not: what they took in earlier ones is never read.
    pub fn fence(&self, epochs: &[(NodeId, Epoch)]) {
        self.borrower.fence(epochs);
    }

    /// Who knows which blocks of a copy are still needed. Copies that are made of another tier's have only these then, and before that all blocks.
    pub fn set_filter(&self, needed: impl Fn(TierCopy, &[u8]) -> Vec<TierRun> + Send + Sync + 'static) {
        self.borrower.set_filter(Box::new(needed));
    }

    /// How many bytes a second repair may fetch; 0: as many as it can.
    pub fn limit_repair(&self, bytes_per_second: u64) {
        self.borrower.set_repair_rate(bytes_per_second);
    }

    /// What the store has here: another process had it written, and peers will say that they have it. Anything else that they have they are
    /// told to forget. To be called before the store says its key.
    pub fn adopt(&self, copies: impl IntoIterator<Item = TierCopy>) {
        self.borrower.adopt(copies.into_iter());
    }

    /// Has peers forget everything, and waits until those that can be reached have, so long at most. Gives whether they have.
    pub fn clear(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        self.borrower.forget_all();
        loop {
            let book = self.borrower.book();
            let left = deadline.saturating_duration_since(Instant::now());
            if !book.ledger.is_owed() || left.is_zero() {
                return !book.ledger.is_owed();
            }
            self.borrower.wait_for_change(book, left.min(LOOK_UP));
        }
    }

    /// Who has what, for people.
    pub fn status(&self) -> BorrowingStatus {
        self.borrower.status()
    }
}

impl Drop for PeerTier {
    fn drop(&mut self) {
        self.borrower.end();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // One that panicked has said so.
        threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Tier for PeerTier {
    fn name(&self) -> &str {
        &self.borrower.options.name
    }

    fn kind(&self) -> &'static str {
        if self.borrower.backing.is_some() { "peers+file" } else { "peers" }
    }

    fn places(&self) -> u32 {
        // Peers keep what is needed of copies and nothing of their places.
        self.borrower.backing.as_ref().map_or(u32::MAX, |backing| backing.places())
    }

    fn keeps_blocks(&self) -> bool {
        true
    }

    fn is_cleaned(&self) -> bool {
        self.borrower.backing.is_some()
    }

    fn limit_bytes(&self) -> u64 {
        let backing = self.borrower.backing.as_ref();
        backing.map_or_else(|| self.borrower.book().limit_bytes(), |backing| backing.limit_bytes())
    }

    fn use_key(&self, key: &TierKey) {
        self.borrower.backing.iter().for_each(|backing| backing.use_key(key));
        self.borrower.use_key(key);
    }

    fn write(&self, writes: &[TierWrite<'_>]) -> Result<(), TierError> {
        match &self.borrower.backing {
            None => self.borrower.write(&self.borrower.pack(writes)?),
            Some(backing) => self.borrower.write_both(&**backing, writes),
        }
    }

    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError> {
        self.borrower.read(copy, start, into)
    }

    fn reads_together(&self) -> bool {
        true
    }

    fn read_many(&self, reads: &mut [TierRead<'_>]) {
        self.borrower.read_many(reads);
    }

    fn discard(&self, place: u32) {
        self.borrower.discard(place);
        self.borrower.backing.iter().for_each(|backing| backing.discard(place));
    }

    fn release(&self, dead: &[(TierCopy, TierRun)]) {
        self.borrower.release(dead.iter().map(|(copy, run)| (*copy, (run.start, run.bytes))));
    }

    fn state(&self) -> TierState {
        let backing = self.borrower.backing.as_ref();
        backing.map_or_else(|| self.borrower.book().state(), |backing| backing.state())
    }

    fn trouble(&self) -> Option<String> {
        let troubles =
            [self.borrower.backing.as_ref().and_then(|backing| backing.trouble()), self.borrower.trouble()];
        let troubles: Vec<String> = troubles.into_iter().flatten().collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }
}
