//! What a node holds for others.
//!
//! Each borrower's copies are a [`Holding`] with a lock of its own: nobody waits for what is done for another one. What they share is a limit, and
//! how much all of them have. There is no clock here and no thread: whoever has the connections calls, and says what time it is.
//!
//! **Layout.** A log of segments of 1 MiB for each borrower; copies lie back to back in it, without what was dead when they came. A page of the log without
//! a live byte is the system's at once, which is where most of what dies in one piece goes: a copy that is flushed. What dies block by block leaves gaps. When
//! these are a 24th of what lives, copies are moved out of the segments that give most for it.
//!
//! **What outlives the process.** Each borrower's log is in a memory file of its own, with a journal of what is there. Whoever keeps these files
//! ([`FileKeeper`]) can have another process go on with them ([`Lender::take_over`]) when this one has died at any moment, in the same epoch: what was
//! acknowledged is there. What was asked back is so no more.
//!
//! | file | job |
//! |---|---|
//! | `taking_over` | what another process has left |
//! | `holding` | the copies of one borrower |
//! | `recalls` | which of them are asked back, and which were dropped |
//! | `pieces` | where a copy's live bytes are |
//! | `log` | segments, and which are to be emptied |
//! | `segment` | one segment: live bytes by the page |
//! | `journal` | what the next process is told |
//! | `file` | the memory file of all this |
//! | `keeping` | who keeps the files |
//! | `mapping` | addresses of a file |
//! | `budget` | what all borrowers may have |
//! | `shares` | who gives back how much |

mod budget;
mod file;
mod holding;
mod journal;
mod keeping;
mod log;
mod mapping;
mod pieces;
mod recalls;
mod segment;
mod shares;
mod taking_over;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tmem_store::{FileKeeper, TierCopy};

use crate::{
    ids::{Epoch, NodeId, NodeName},
    wire::Hello,
};
use budget::Budget;
use file::LentFile;
pub use file::{LentBy, NotTakenOver};
pub use holding::{Holding, Usage};
pub use keeping::FILE_PREFIX;
use keeping::Keeping;
pub use taking_over::give_up;

/// A borrower's copies, for its connection and for whoever watches the memory.
pub type SharedHolding = Arc<Mutex<Holding>>;

/// Recalled a little more than what is missing, so that it is not asked for again and again: a 64th of the limit.
const MARGIN_PART: u64 = 64;

/// Why a node gets no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It was here in a later epoch.
    #[error(
        "{name} says that it is in epoch {theirs}, and was here in epoch {ours}: it was away, or two nodes have this name"
    )]
    OldEpoch {
        /// Who.
        name: NodeName,
        /// What it says.
        theirs: u64,
        /// What it said before.
        ours: u64,
    },
    /// It has another store in the same epoch.
    #[error(
        "{0} comes with another store in the same epoch: two nodes have this name, give one of them another"
    )]
    OtherStore(NodeName),
    /// There is no memory file for what it may put.
    #[error("no memory file for {name}: {error}")]
    NoFile {
        /// Who.
        name: NodeName,
        /// Why.
        error: io::ErrorKind,
    },
}

/// What is held for a borrower, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BorrowerUsage {
    /// Who.
    pub name: NodeName,
    /// Its epoch when it was last here.
    pub epoch: Epoch,
    /// How much.
    pub usage: Usage,
}

#[derive(Debug)]
struct Borrower {
    name: NodeName,
    epoch: Epoch,
    store: u64,
    holding: SharedHolding,
}

/// What a node holds for others.
#[derive(Debug)]
pub struct Lender {
    by: LentBy,
    keeping: Arc<Keeping>,
    budget: Arc<Budget>,
    borrowers: Mutex<BTreeMap<NodeId, Borrower>>,
}

/// A holding, whatever happened to whoever had it before.
pub fn lock(holding: &Mutex<Holding>) -> MutexGuard<'_, Holding> {
    holding.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A borrower that is here for the first time, or comes with another store.
fn enter(borrowers: &mut BTreeMap<NodeId, Borrower>, hello: &Hello, holding: Holding) -> SharedHolding {
    let holding = Arc::new(Mutex::new(holding));
    let (name, epoch, store) = (hello.name, hello.epoch, hello.store);
    borrowers.insert(hello.node(), Borrower { name, epoch, store, holding: Arc::clone(&holding) });
    holding
}

impl Borrower {
    fn check(&self, hello: &Hello) -> Result<(), NotAdmitted> {
        if self.epoch > hello.epoch {
            let (theirs, ours) = (hello.epoch.0, self.epoch.0);
            return Err(NotAdmitted::OldEpoch { name: hello.name, theirs, ours });
        }
        if self.epoch == hello.epoch && self.store != hello.store {
            return Err(NotAdmitted::OtherStore(hello.name));
        }
        Ok(())
    }
}

impl Default for Lender {
    /// One whose memory ends with this process.
    fn default() -> Self {
        Self::with(LentBy { cluster: 0, node: NodeId(0), epoch: Epoch(0) }, Keeping::default())
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        // What the next process may go on with is its keeper's.
        self.keeping.detach();
    }
}

impl Lender {
    /// Nothing yet, in a new epoch. What comes is kept for the next process.
    pub fn new(by: LentBy, keeper: Arc<dyn FileKeeper>) -> Self {
        Self::with(by, Keeping::by(keeper))
    }

    fn with(by: LentBy, keeping: Keeping) -> Self {
        Self { by, keeping: Arc::new(keeping), budget: Arc::default(), borrowers: Mutex::default() }
    }

    /// Whether [`Self::admit`] would take a node that says hello.
    pub fn check(&self, hello: &Hello) -> Result<(), NotAdmitted> {
        self.borrowers().get(&hello.node()).map_or(Ok(()), |known| known.check(hello))
    }

    /// What is held for a node that says hello: what it had, or nothing if it comes with another store, whose earlier copies nobody asks
    /// for any more. Its earlier connection has to be over.
    pub fn admit(&self, hello: &Hello) -> Result<SharedHolding, NotAdmitted> {
        let mut borrowers = self.borrowers();
        if let Some(known) = borrowers.get_mut(&hello.node()) {
            known.check(hello)?;
            if known.store == hello.store {
                known.epoch = hello.epoch;
                lock(&known.holding).set_borrowers_epoch(hello.epoch);
                return Ok(Arc::clone(&known.holding));
            }
        }
        let file = LentFile::create(&self.keeping, self.by, hello);
        let file = file.map_err(|error| NotAdmitted::NoFile { name: hello.name, error: error.kind() })?;
        let holding = Holding::new(Arc::clone(&self.budget), file);
        Ok(enter(&mut borrowers, hello, holding))
    }

    /// A node's connection is over. Its copies stay; if it has none, it is forgotten.
    pub fn leave(&self, node: NodeId) {
        let mut borrowers = self.borrowers();
        let is_empty = |borrower: &Borrower| {
            let usage = lock(&borrower.holding).usage();
            (usage.copies, usage.dropped_copies) == (0, 0)
        };
        if borrowers.get(&node).is_some_and(is_empty) {
            borrowers.remove(&node);
        }
    }

    /// Forgets all that is held for a node, whose connection has to be over. Gives what it was, to be dropped where nobody waits; `None`: nothing.
    pub fn forget(&self, node: NodeId) -> Option<SharedHolding> {
        self.borrowers().remove(&node).map(|borrower| borrower.holding)
    }

    /// How much may be held in all: what is more is recalled, and dropped at `until_ms`. Those who have most give first, each what it wrote
    /// first. Which copies of whom.
    pub fn set_limit(&self, bytes: u64, until_ms: u64) -> Vec<(NodeId, Vec<TierCopy>)> {
        self.budget.set_limit(bytes);
        if self.budget.held_bytes() <= bytes {
            return Vec::new();
        }
        let holdings = self.holdings();
        let staying: Vec<u64> = holdings.iter().map(|(_, holding)| lock(holding).staying_bytes()).collect();
        let Some(excess) = staying.iter().sum::<u64>().checked_sub(bytes).filter(|excess| *excess > 0) else {
            return Vec::new();
        };
        let cuts = shares::cuts(&staying, excess + bytes / MARGIN_PART);
        let recalled = holdings.into_iter().zip(cuts).filter(|(_, cut)| *cut > 0);
        recalled
            .map(|((node, holding), cut)| (node, lock(&holding).recall(cut, until_ms)))
            .filter(|(_, copies)| !copies.is_empty())
            .collect()
    }

    /// It is `now_ms`: what was recalled and is due is dropped.
    pub fn expire(&self, now_ms: u64) {
        self.holdings().iter().for_each(|(_, holding)| lock(holding).expire(now_ms));
    }

    /// Whose copies should be moved together: see [`Holding::clean_step`].
    pub fn unclean(&self) -> Vec<SharedHolding> {
        let holdings = self.holdings().into_iter().map(|(_, holding)| holding);
        holdings.filter(|holding| lock(holding).needs_cleaning()).collect()
    }

    /// How much may be held in all.
    pub fn limit_bytes(&self) -> u64 {
        self.budget.limit_bytes()
    }

    /// How much may still be put.
    pub fn free_bytes(&self) -> u64 {
        self.budget.limit_bytes().saturating_sub(self.budget.held_bytes())
    }

    /// All memory that is taken for others, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.budget.held_bytes()
    }

    /// Who has how much.
    pub fn usage(&self) -> Vec<BorrowerUsage> {
        let known: Vec<(NodeName, Epoch, SharedHolding)> = (self.borrowers().values())
            .map(|borrower| (borrower.name, borrower.epoch, Arc::clone(&borrower.holding)))
            .collect();
        known
            .into_iter()
            .map(|(name, epoch, holding)| BorrowerUsage { name, epoch, usage: lock(&holding).usage() })
            .collect()
    }

    fn holdings(&self) -> Vec<(NodeId, SharedHolding)> {
        let borrowers = self.borrowers();
        borrowers.iter().map(|(node, borrower)| (*node, Arc::clone(&borrower.holding))).collect()
    }

    fn borrowers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Borrower>> {
        self.borrowers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
