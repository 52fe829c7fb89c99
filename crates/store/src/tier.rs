//! What the store needs of a tier: a place outside its memory that keeps copies of whole extents.

use std::fmt;

use crate::extents::EXTENT_BYTES;

/// What a tier keeps at one place, in bytes: an extent of the arena as it is.
pub const TIER_EXTENT_BYTES: usize = EXTENT_BYTES;

/// The most copies that are written by one call: 2 MiB, so that what waits for the disk is a few large writes.
pub const MAX_TIER_BATCH: usize = 16;

/// What a tier encrypts its copies with. Made from the kernel's random numbers with the store, and kept in the store's memory files
/// alone: whoever opens the store again has it, a disk never does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TierKey(pub [u8; 32]);

impl fmt::Debug for TierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TierKey(…)") // not for logs
    }
}

/// One copy of an extent in a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TierCopy {
    /// Where, counted in extents from 0.
    pub place: u32,
    /// Which writing it is. Under one key no number is ever used for a second one, so it may serve as a nonce; and a copy that was
    /// overwritten since, or put back from an older state of the disk, has another.
    pub writing: u64,
}

/// A stretch of an extent: whole blocks, so both are multiples of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TierRun {
    /// Where it begins, in bytes.
    pub start: u32,
    /// How long it is, in bytes.
    pub bytes: u32,
}

impl TierRun {
    /// All of an extent.
    pub const WHOLE: Self = Self { start: 0, bytes: TIER_EXTENT_BYTES as u32 };
}

/// A copy that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct TierWrite<'a> {
    /// Which.
    pub copy: TierCopy,
    /// Its extent, of [`TIER_EXTENT_BYTES`].
    pub extent: &'a [u8],
    /// What will be read of it: in order, none overlaps another. Where one ends the next may begin.
    pub needed: &'a [TierRun],
}

impl<'a> TierWrite<'a> {
    /// A copy of which any part may be read.
    pub fn whole(copy: TierCopy, extent: &'a [u8]) -> Self {
        Self { copy, extent, needed: &[TierRun::WHOLE] }
    }
}

/// A block that is to be read.
#[derive(Debug)]
pub struct TierRead<'a> {
    /// Of which copy.
    pub copy: TierCopy,
    /// From where in its extent, in bytes.
    pub start: usize,
    /// Where it goes to; as long as it is.
    pub into: &'a mut [u8],
    /// What became of it.
    pub result: Result<(), TierError>,
}

impl<'a> TierRead<'a> {
    /// A block that was not read yet.
    pub fn new(copy: TierCopy, start: usize, into: &'a mut [u8]) -> Self {
        Self { copy, start, into, result: Err(TierError::Unavailable("not read yet".to_owned())) }
    }
}

/// How a tier is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierState {
    /// It takes and gives copies.
    Ready,
    /// It gives copies, and takes none for lack of space.
    Full,
    /// It gives copies, and takes none because it can't be written to.
    ReadOnly,
    /// There is nothing where it should be.
    Missing,
    /// It failed.
    Failing,
}

impl TierState {
    /// Whether it gives copies, as it seems.
    pub fn is_giving(&self) -> bool {
        matches!(self, TierState::Ready | TierState::Full | TierState::ReadOnly)
    }

    /// One lower-case word, for status and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            TierState::Ready => "ready",
            TierState::Full => "full",
            TierState::ReadOnly => "read-only",
            TierState::Missing => "missing",
            TierState::Failing => "failing",
        }
    }
}

/// A copy was not written, or not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// What is there is not what was written: a wrong bit, another writing, another key.
    #[error("the tier's copy is damaged")]
    Damaged,
    /// The tier can't do it at present. What it has may still be there later.
    #[error("{0}")]
    Unavailable(String),
}

/// Keeps copies of extents. All methods may be called by many threads at once; none is called while the store holds a lock.
pub trait Tier: Send + Sync + fmt::Debug {
    /// What people call it: a path.
    fn name(&self) -> &str;

    /// What it is, in one word: `file`.
    fn kind(&self) -> &'static str;

    /// How many copies it has places for. It may become more while the store uses it, never less.
    fn places(&self) -> u32;

    /// The key for all copies. Called once, before anything else.
    fn use_key(&self, key: &TierKey);

    /// Whether it keeps single blocks: only those that are needed, and not after it was told that they died. What is read of another tier may be
    /// any part of a copy.
    fn keeps_blocks(&self) -> bool {
        false
    }

    /// Whether the store makes room in it by reading whole copies that are mostly dead and writing the rest anew.
    fn is_cleaned(&self) -> bool {
        !self.keeps_blocks()
    }

    /// What it can hold, in bytes.
    fn limit_bytes(&self) -> u64 {
        u64::from(self.places()) * TIER_EXTENT_BYTES as u64
    }

    /// Writes copies, [`MAX_TIER_BATCH`] at most, and returns when all of them can be read. Places
    /// that follow each other are written with one movement of the disk. Only one thread writes. Errors: none of them counts as
    /// written; whatever the tier does later, what was written by earlier calls to other places stays. It returns within about the time
    /// that a disk may take for it: a tier that has just failed says so at once, and tries again now and then.
    fn write(&self, writes: &[TierWrite<'_>]) -> Result<(), TierError>;

    /// Reads `into.len()` bytes, a block's, of a copy from byte `start`. Errors: `into` holds anything.
    fn read(&self, copy: TierCopy, start: usize, into: &mut [u8]) -> Result<(), TierError>;

    /// Whether it pays to read several blocks with one call of [`Tier::read_many`], because it takes long for the first and not for the rest.
    fn reads_together(&self) -> bool {
        false
    }

    /// Reads several blocks, each as [`Tier::read`] does. A tier that is far away has all of them under way at once.
    fn read_many(&self, reads: &mut [TierRead<'_>]) {
        for read in reads {
            read.result = self.read(read.copy, read.start, read.into);
        }
    }

    /// The copy at a place is not needed any more.
    fn discard(&self, place: u32);

    /// These blocks of copies are not needed any more; nobody is reading them. Only a tier that [keeps blocks](Tier::keeps_blocks) is told, and not of
    /// each: what it never hears of goes with its copy. Copies may have been discarded meanwhile.
    fn release(&self, _dead: &[(TierCopy, TierRun)]) {}

    /// How it is.
    fn state(&self) -> TierState;

    /// The last thing that went wrong, if it still matters, for people.
    fn trouble(&self) -> Option<String>;
}
