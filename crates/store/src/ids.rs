//! The names of things: which client's which pool, which object in it, which page of that.

/// A pool, as blocks in the arena name their owner. Unique among the pools that exist at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// An object of a pool: a swap disk has one (number 0), a page cache one per file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

/// A page of an object, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageIndex(pub u64);

/// Where a page's entry stands in its pool's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct IndexSlot(pub(crate) u32);

/// Where a block starts in the arena, in bytes. A multiple of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ArenaOffset(pub(crate) u64);
