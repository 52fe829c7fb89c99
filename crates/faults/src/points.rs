//! Where a process can be made to die, and what can be made to fail.

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$each:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$each])* $variant,)* }

        impl $type {
            /// All there are.
            pub const ALL: &[$type] = &[$($type::$variant,)*];

            /// What it is called in a plan and in the log.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)* }
            }
        }
    };
}

named! {
    /// A group of places at each of which a process may die. Those of the store stand before its stores to shared memory.
    Point {
        /// Parts of a block, its checksum, the end of an extent's list.
        Block = "block",
        /// An entry of an index, or a cell of a shared block.
        Index = "index",
        /// A block is written, and nothing refers to it yet.
        Put = "put",
        /// A record of a directory's leaf.
        Leaf = "leaf",
        /// What an extent is used for, and whether it is complete.
        Extent = "extent",
        /// A client's or pool's record, and a client's settings.
        Catalog = "catalog",
        /// A client's clock and epochs.
        Ages = "ages",
        /// A place of the tier and the number of the next writing.
        TierTable = "tier-table",
        /// A block was copied elsewhere to empty its extent, and is about to move.
        Compaction = "compaction",
        /// Copies were written to the tier, and are about to be entered.
        WriteBack = "write-back",
        /// A page was read from the tier, and is about to come back to memory.
        Promotion = "promotion",
        /// Memory of a file is found or given back.
        Memory = "memory",
        /// A change of what is lent is entered in its journal, or counts from now on.
        Lend = "lend",
        /// A file is handed to the keeper or released.
        Files = "files",
        /// An entry is set right while a store is opened.
        Recovery = "recovery",
        /// A worker has been told what was left, and has not opened it.
        Start = "start",
        /// A worker takes over the next disk.
        TakeOver = "take-over",
        /// What the next worker has to know is replaced.
        Memo = "memo",
        /// A request stands in the used ring, and the guest was not signalled.
        UsedRing = "used-ring",
        /// An NBD request was carried out, and its answer was not sent.
        NbdAnswer = "nbd-answer",
    }
}

named! {
    /// What can be made to fail.
    Fault {
        /// The OS finds no memory for a part of a memory file, or for giving a part back.
        RefuseMemory = "refuse-memory",
        /// A write to the tier ends with an error after a part of it.
        TierFail = "tier-fail",
        /// A write to the tier ends well, but only a part of it is there.
        TierTorn = "tier-torn",
        /// A write to the tier takes long.
        TierSlow = "tier-slow",
        /// A read from the tier fails once.
        TierReadFail = "tier-read-fail",
        /// A read from the tier takes long.
        TierReadSlow = "tier-read-slow",
    }
}

impl Fault {
    /// Whether it takes a time.
    pub fn is_slowness(self) -> bool {
        matches!(self, Fault::TierSlow | Fault::TierReadSlow)
    }
}
