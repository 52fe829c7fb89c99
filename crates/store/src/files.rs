//! The memory files of a store: their names, who is told of them, and how they are taken over.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{fault_injection, ids::PoolId, memory_file::MemoryFile};

/// Holds a store's memory files in another process, or in a second set of descriptors, so that they outlive the store. It is called
/// while the store holds locks of its own: it must not call back.
pub trait FileKeeper: Send + Sync {
    /// A file was made, and is not used before this returns. Errors: it cannot be kept; what needed the file fails then.
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()>;

    /// A file is not needed any more.
    fn release(&self, name: &str);
}

/// The arena: blocks.
pub(crate) const ARENA: &str = "tmem-arena";

/// What each extent of the arena is used for.
pub(crate) const EXTENTS: &str = "tmem-extents";

/// Where the blocks are that several pages share.
pub(crate) const SHARED: &str = "tmem-shared";

/// The key of a tier, and what its places hold.
pub(crate) const TIER: &str = "tmem-tier";

/// Clients and pools. It is made last: without it there was never a store.
pub(crate) const CATALOG: &str = "tmem-catalog";

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileRole {
    Arena,
    Extents,
    Shared,
    Tier,
    Catalog,
    Index(PoolId),
    Directory(PoolId),
}

pub(crate) fn index_name(pool: PoolId) -> String {
    format!("tmem-index-{}", pool.0)
}

pub(crate) fn directory_name(pool: PoolId) -> String {
    format!("tmem-directory-{}", pool.0)
}

impl FileRole {
    /// What a name says. `None`: it is not a name of ours.
    pub(crate) fn of(name: &str) -> Option<FileRole> {
        let number = |prefix: &str| name.strip_prefix(prefix)?.parse().ok().map(PoolId);
        let role = match name {
            ARENA => FileRole::Arena,
            EXTENTS => FileRole::Extents,
            SHARED => FileRole::Shared,
            TIER => FileRole::Tier,
            CATALOG => FileRole::Catalog,
            _ => number("tmem-index-")
                .map(FileRole::Index)
                .or_else(|| number("tmem-directory-").map(FileRole::Directory))?,
        };
        (role.name() == name).then_some(role) // not "tmem-index-007"
    }

    fn name(self) -> String {
        match self {
            FileRole::Arena => ARENA.to_owned(),
            FileRole::Extents => EXTENTS.to_owned(),
            FileRole::Shared => SHARED.to_owned(),
            FileRole::Tier => TIER.to_owned(),
            FileRole::Catalog => CATALOG.to_owned(),
            FileRole::Index(pool) => index_name(pool),
            FileRole::Directory(pool) => directory_name(pool),
        }
    }
}

/// Makes a store's memory files.
pub(crate) struct Files {
    keeper: Option<Arc<dyn FileKeeper>>,
    detached: AtomicBool,
}

/// That a keeper was told of a file; it is told of the file's end when this is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    name: String,
    files: Arc<Files>,
}

impl Files {
    pub(crate) fn new(keeper: Option<Arc<dyn FileKeeper>>) -> Arc<Self> {
        Arc::new(Self { keeper, detached: AtomicBool::new(false) })
    }

    /// Makes a memory file. Errors: the OS or the keeper refuses.
    pub(crate) fn create(self: &Arc<Self>, name: &str, len_bytes: usize) -> io::Result<MemoryFile> {
        self.create_filled(name, len_bytes, |_| {})
    }

    /// Makes a memory file that may be mapped in part ([`MemoryFile::create_spanning`]). Errors: the OS or the keeper refuses.
    pub(crate) fn create_spanning(
        self: &Arc<Self>,
        name: &str,
        len_bytes: usize,
        least_bytes: usize,
    ) -> io::Result<MemoryFile> {
        self.hand_over(name, MemoryFile::create_spanning(name, len_bytes, least_bytes)?)
    }

    /// Makes a memory file that the keeper does not get to know before it was filled.
    pub(crate) fn create_filled(
        self: &Arc<Self>,
        name: &str,
        len_bytes: usize,
        fill: impl FnOnce(&MemoryFile),
    ) -> io::Result<MemoryFile> {
        let file = MemoryFile::create(name, len_bytes)?;
        fill(&file);
        self.hand_over(name, file)
    }

    fn hand_over(self: &Arc<Self>, name: &str, file: MemoryFile) -> io::Result<MemoryFile> {
        fault_injection::point();
        if let Some(keeper) = &self.keeper {
            keeper.keep(name, file.as_fd())?;
        }
        Ok(file.kept(self.kept(name)))
    }

    /// Maps a memory file that was handed over, or `least_bytes` of it. Errors: it cannot be one of that length; the keeper goes on holding it.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        name: &str,
        file: OwnedFd,
        len_bytes: usize,
        least_bytes: usize,
    ) -> io::Result<MemoryFile> {
        Ok(MemoryFile::open_spanning(file, len_bytes, least_bytes)?.kept(self.kept(name)))
    }

    /// Says that a file that was handed over is not needed.
    pub(crate) fn release(&self, name: &str) {
        if let Some(keeper) = &self.keeper {
            fault_injection::point();
            keeper.release(name);
        }
    }

    fn kept(self: &Arc<Self>, name: &str) -> Kept {
        Kept { name: name.to_owned(), files: self.clone() }
    }

    /// From now on dropping things leaves shared memory, and what the keeper holds, as they are.
    pub(crate) fn detach(&self) {
        self.detached.store(true, Ordering::SeqCst);
    }

    /// Undoes [`Files::detach`].
    pub(crate) fn attach(&self) {
        self.detached.store(false, Ordering::SeqCst);
    }

    /// Whether whoever is dropped leaves shared memory as it is.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::SeqCst) || fault_injection::is_crashed()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.files.is_detached() {
            self.files.release(&self.name);
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("detached", &self.detached).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_file_it_is() {
        for role in [
            FileRole::Arena,
            FileRole::Extents,
            FileRole::Shared,
            FileRole::Tier,
            FileRole::Catalog,
            FileRole::Index(PoolId(0)),
            FileRole::Directory(PoolId(u16::MAX)),
        ] {
            assert_eq!(FileRole::of(&role.name()), Some(role));
        }
        for name in ["", "tmem-index-", "tmem-index-65536", "tmem-index-007", "tmem-index-+7", "arena"] {
            assert_eq!(FileRole::of(name), None, "{name}");
        }
    }
}
