//! What is held for one borrower's store.

use std::{
    collections::{BTreeMap, btree_map},
    mem,
    sync::Arc,
};

use tmem_store::TierCopy;

use super::{
    budget::Budget,
    file::{LentFile, NotTakenOver},
    journal::{Amount, Entry, Journal, entries},
    log::{Log, Position},
    pieces::{PIECE_BYTES, Pieces},
    recalls::{DROPPED_BYTES, Recalls},
};
use crate::ids::Epoch;
use crate::wire::{Dead, PutResult, Reason, Run, Runs};

/// What a copy takes besides its bytes and its runs: its entry in the index with what the index's nodes leave free, the list's own memory,
/// its place in the segment's list.
const COPY_OVERHEAD_BYTES: usize = 160;

/// A copy.
#[derive(Debug)]
struct Record {
    writing: u64,
    /// Recalled: dropped at this time.
    until_ms: Option<u64>,
    position: Position,
    pieces: Pieces,
}

/// The copies of one borrower's store.
#[derive(Debug)]
pub struct Holding {
    records: BTreeMap<u32, Record>,
    file: Arc<LentFile>,
    journal: Journal,
    log: Log,
    recalls: Recalls,
    /// Live bytes of recalled copies.
    recalled_bytes: usize,
    pieces: usize,
    budget: Arc<Budget>,
    /// What of the budget it has.
    counted_bytes: u64,
}

/// What is held for a borrower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many copies.
    pub copies: usize,
    /// The bytes of them that are needed.
    pub needed_bytes: u64,
    /// All memory that is taken for them, in bytes.
    pub held_bytes: u64,
    /// How many copies are recalled and were not dropped yet.
    pub recalled_copies: usize,
    /// The needed bytes of these.
    pub recalled_bytes: u64,
    /// How many copies were dropped, and their borrower has not said that it knows.
    pub dropped_copies: usize,
}

impl Holding {
    /// Nothing yet, in a new file.
    pub(super) fn new(budget: Arc<Budget>, file: LentFile) -> Self {
        let file = Arc::new(file);
        let log = Log::new(Arc::clone(&file));
        let journal = Journal::new(Arc::clone(&file), 0);
        let (records, recalls) = Default::default();
        Self { records, file, journal, log, recalls, recalled_bytes: 0, pieces: 0, budget, counted_bytes: 0 }
    }

    /// What another process has left in a file.
    pub(super) fn take_over(budget: Arc<Budget>, file: LentFile) -> Result<Self, NotTakenOver> {
        let file = Arc::new(file);
        let journal = file.journal()?;
        let Left { records, dropped } = replay(&journal)?;
        let copies = records.iter().map(|(place, record)| (*place, record.position, &record.pieces));
        let log = Log::adopt(Arc::clone(&file), copies)?;
        let journal = Journal::new(Arc::clone(&file), journal.len() as u64);
        let pieces = records.values().map(|record| record.pieces.count()).sum();
        let recalls = Recalls::of_dropped(dropped);
        let mut holding = Self {
            records,
            file,
            journal,
            log,
            recalls,
            recalled_bytes: 0,
            pieces,
            budget,
            counted_bytes: 0,
        };
        holding.count();
        Ok(holding)
    }

    /// Its borrower is here, in this epoch.
    pub(super) fn set_borrowers_epoch(&self, epoch: Epoch) {
        self.file.set_borrowers_epoch(epoch);
    }

    /// It was taken over, and this process lives.
    pub(super) fn is_taken_over(&self) {
        self.file.is_open();
    }

    /// Keeps a copy, all or nothing of it, in place of what is at its place. `bytes` are those of the runs, back to back.
    pub fn put(&mut self, copy: TierCopy, runs: Runs<'_>, bytes: &[u8]) -> PutResult {
        // What comes late, such as a repair of what was discarded meanwhile, must not take the place of what was put since.
        if self.records.get(&copy.place).is_some_and(|record| record.writing > copy.writing) {
            return PutResult::NoRoom;
        }
        // An earlier writing is nothing that anybody asks for again, whether there is room for this one or not.
        if self.records.get(&copy.place).is_some_and(|record| record.writing != copy.writing) {
            self.forget(copy.place);
        }
        self.count();
        let needed = (bytes.len() + COPY_OVERHEAD_BYTES + runs.count() * PIECE_BYTES) as u64;
        if runs.total_bytes() != bytes.len() || !self.budget.take(needed) {
            return PutResult::NoRoom;
        }
        self.counted_bytes += needed;
        let result = match self.log.append(copy.place, bytes) {
            Ok(position) => self.enter(copy, position, Pieces::packed(runs.iter())),
            Err(_) => PutResult::NoRoom,
        };
        self.count();
        result
    }

    /// Bytes of a copy: all of them must be live.
    pub fn get(&self, copy: TierCopy, start_bytes: u32, len_bytes: u32) -> Result<&[u8], Reason> {
        let record = self.record(copy)?;
        let found = record.pieces.find(start_bytes as usize, len_bytes as usize).ok_or(Reason::NotThere)?;
        Ok(self.log.bytes(record.position, found))
    }

    /// A whole copy: each run, and its bytes.
    pub fn fetch(&self, copy: TierCopy) -> Result<impl Iterator<Item = (Run, &[u8])> + Clone, Reason> {
        let record = self.record(copy)?;
        let pieces = record.pieces.iter();
        Ok(pieces.map(|(run, stretch)| (run, self.log.bytes(record.position, stretch))))
    }

    /// Forgets runs of a copy, or the whole of it.
    pub fn flush(&mut self, dead: Dead<'_>) {
        let place = dead.copy.place;
        let is_it = self.records.get(&place).is_some_and(|record| record.writing == dead.copy.writing);
        match (is_it, dead.runs.count()) {
            (true, 0) => self.forget(place),
            (true, _) => self.kill(place, dead.runs),
            (false, 0) if self.recalls.was_dropped(dead.copy) => {
                self.journal.enter_gone(place);
                self.recalls.forget(place);
            }
            (false, _) => {}
        }
        self.count();
    }

    /// Its copies at this place and behind it, in order of place.
    pub fn list(&self, from_place: u32) -> impl Iterator<Item = TierCopy> {
        let copies = self.records.range(from_place..);
        copies.map(|(place, record)| TierCopy { place: *place, writing: record.writing })
    }

    /// How much there is.
    pub fn usage(&self) -> Usage {
        let (recalled_copies, dropped_copies) = self.recalls.count();
        Usage {
            copies: self.records.len(),
            needed_bytes: self.log.live_bytes() as u64,
            held_bytes: self.counted_bytes,
            recalled_copies,
            recalled_bytes: self.recalled_bytes as u64,
            dropped_copies,
        }
    }

    /// Whether so much of the memory is of no use that copies should be moved.
    pub fn needs_cleaning(&self) -> bool {
        self.log.is_slack()
    }

    /// Moves one copy, if that is of use: whether it did. What is held is at most 1.05 times what is needed, and what one segment takes, when
    /// it is called until it has nothing to do.
    pub fn clean_step(&mut self) -> bool {
        while self.log.is_slack()
            && let Some((place, segment)) = self.log.next_to_move()
        {
            let here = self.records.get_mut(&place).filter(|record| record.is_in(segment));
            let Some(record) = here else { continue };
            // No memory for it: another time.
            let copied = self.log.copy_to_end(place, record.position, &record.pieces);
            let Ok((position, pieces)) = copied else { return false };
            let is_entered = self.journal.enter_copy(place, record.writing, position, &pieces);
            let (mut other, mut others) = (position, pieces);
            if is_entered {
                mem::swap(&mut record.position, &mut other);
                mem::swap(&mut record.pieces, &mut others);
            }
            self.log.kill(other, others.iter().map(|(_, stretch)| stretch));
            self.count();
            return is_entered;
        }
        self.count();
        false
    }

    /// Chooses copies with so many bytes, those of the oldest writings first, that will be dropped at `until_ms`.
    pub fn recall(&mut self, bytes: u64, until_ms: u64) -> Vec<TierCopy> {
        let free = self.records.iter().filter(|(_, record)| record.until_ms.is_none());
        let mut oldest: Vec<(u64, u32)> = free.map(|(place, record)| (record.writing, *place)).collect();
        oldest.sort_unstable();
        let mut recalled_bytes = 0;
        let mut recalled = Vec::new();
        for (writing, place) in oldest {
            if recalled_bytes >= bytes {
                break;
            }
            let Some(record) = self.records.get_mut(&place) else { continue };
            record.until_ms = Some(until_ms);
            self.recalls.add(place, until_ms);
            self.recalled_bytes += record.pieces.live_bytes();
            recalled_bytes += (record.pieces.live_bytes() + COPY_OVERHEAD_BYTES) as u64;
            recalled.push(TierCopy { place, writing });
        }
        recalled
    }

    /// It is `now_ms`: recalled copies whose time has come are dropped.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some(place) = self.recalls.take_due(now_ms) {
            if let Some(writing) = self.records.get(&place).map(|record| record.writing) {
                self.journal.enter_dropped(place, writing);
                self.remove(place);
                self.recalls.drop_copy(TierCopy { place, writing });
            }
        }
        self.count();
    }

    /// Everything that was recalled and not flushed, with the time when it is dropped; what is dropped already first, with 0.
    pub fn recalled(&self) -> impl Iterator<Item = (u64, TierCopy)> {
        let due = self.recalls.due().filter_map(|(until_ms, place)| {
            let writing = self.records.get(&place)?.writing;
            Some((until_ms, TierCopy { place, writing }))
        });
        self.recalls.dropped().map(|copy| (0, copy)).chain(due)
    }

    /// What will be left, of what is held, when everything that was recalled is dropped.
    pub(super) fn staying_bytes(&self) -> u64 {
        let recalled = self.recalled_bytes + self.recalls.count().0 * COPY_OVERHEAD_BYTES;
        self.counted_bytes.saturating_sub(recalled as u64)
    }

    fn record(&self, copy: TierCopy) -> Result<&Record, Reason> {
        match self.records.get(&copy.place) {
            Some(record) if record.writing == copy.writing => Ok(record),
            _ if self.recalls.was_dropped(copy) => Err(Reason::Dropped),
            _ => Err(Reason::NotThere),
        }
    }

    /// A copy's bytes are there, and those of what it replaces.
    fn enter(&mut self, copy: TierCopy, position: Position, pieces: Pieces) -> PutResult {
        if !self.journal.enter_copy(copy.place, copy.writing, position, &pieces) {
            self.log.kill(position, pieces.iter().map(|(_, stretch)| stretch));
            return PutResult::NoRoom;
        }
        self.recalls.forget(copy.place);
        self.remove(copy.place);
        self.pieces += pieces.count();
        let record = Record { writing: copy.writing, until_ms: None, position, pieces };
        self.records.insert(copy.place, record);
        PutResult::Stored
    }

    /// A copy is no more.
    fn forget(&mut self, place: u32) {
        if self.records.contains_key(&place) {
            self.journal.enter_gone(place);
            self.remove(place);
        }
    }

    /// The memory of a copy is used for others, as the journal says by now.
    fn remove(&mut self, place: u32) {
        let btree_map::Entry::Occupied(entry) = self.records.entry(place) else { return };
        let record = entry.remove();
        self.pieces -= record.pieces.count();
        if let Some(until_ms) = record.until_ms {
            self.recalls.remove(place, until_ms);
            self.recalled_bytes -= record.pieces.live_bytes();
        }
        self.log.kill(record.position, record.pieces.iter().map(|(_, stretch)| stretch));
    }

    fn kill(&mut self, place: u32, runs: Runs<'_>) {
        let Some(record) = self.records.get_mut(&place) else { return };
        self.journal.enter_dead(place, runs.iter());
        let before = record.pieces.count();
        let dead = record.pieces.kill(runs.iter());
        self.pieces = self.pieces - before + record.pieces.count();
        if record.until_ms.is_some() {
            self.recalled_bytes -= dead.iter().map(|stretch| stretch.len).sum::<usize>();
        }
        self.log.kill(record.position, dead.into_iter());
    }

    fn write_journal_anew(&mut self) {
        let copies = self.records.iter();
        let copies = copies.map(|(place, record)| (*place, record.writing, record.position, &record.pieces));
        self.journal.write_anew(copies, self.recalls.dropped());
    }

    /// Brings the journal's length and the budget up to date.
    fn count(&mut self) {
        let dropped = self.recalls.count().1;
        let amount = Amount { copies: self.records.len(), pieces: self.pieces, dropped };
        if self.journal.is_due(amount) {
            self.write_journal_anew();
        }
        let index = self.records.len() * COPY_OVERHEAD_BYTES + self.pieces * PIECE_BYTES;
        let now =
            (self.log.held_bytes() + index + dropped * DROPPED_BYTES) as u64 + self.journal.held_bytes();
        self.budget.correct(std::mem::replace(&mut self.counted_bytes, now), now);
    }
}

/// What a journal says: the copies that are there, and places and writings of those that were dropped.
#[derive(Default)]
struct Left {
    records: BTreeMap<u32, Record>,
    dropped: BTreeMap<u32, u64>,
}

fn replay(journal: &[u8]) -> Result<Left, NotTakenOver> {
    let Left { mut records, mut dropped } = Left::default();
    for entry in entries(journal) {
        match entry? {
            Entry::Copy { place, writing, position, pieces } => {
                dropped.remove(&place);
                records.insert(place, Record { writing, until_ms: None, position, pieces });
            }
            Entry::Dead { place, runs } => {
                if let Some(record) = records.get_mut(&place) {
                    record.pieces.kill(runs.into_iter());
                }
            }
            Entry::Gone { place } => {
                records.remove(&place);
                dropped.remove(&place);
            }
            Entry::Dropped { place, writing } => {
                records.remove(&place);
                dropped.insert(place, writing);
            }
        }
    }
    Ok(Left { records, dropped })
}

impl Record {
    fn is_in(&self, segment: u32) -> bool {
        !self.pieces.is_empty() && self.position.is_in(segment)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.correct(self.counted_bytes, 0);
    }
}
