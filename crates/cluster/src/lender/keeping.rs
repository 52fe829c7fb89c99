//! Who keeps the memory files, so that what is lent outlives this process.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tmem_store::FileKeeper;

/// The names of a lender's memory files begin like this.
pub const FILE_PREFIX: &str = "lent-";

/// Without a keeper they end with the process.
#[derive(Default)]
pub(super) struct Keeping {
    keeper: Option<Arc<dyn FileKeeper>>,
    /// This process has no say in them any more.
    is_detached: AtomicBool,
    /// How many names were given.
    names: AtomicU64,
}

impl Keeping {
    pub(super) fn by(keeper: Arc<dyn FileKeeper>) -> Self {
        Self { keeper: Some(keeper), ..Self::default() }
    }

    /// A name that no file has.
    pub(super) fn next_name(&self) -> String {
        format!("{FILE_PREFIX}{}", self.names.fetch_add(1, Relaxed) + 1)
    }

    /// A file has this name: the number in it. Those to come get greater ones.
    pub(super) fn note_name(&self, name: &str) -> u64 {
        let number = name.strip_prefix(FILE_PREFIX).and_then(|number| number.parse().ok()).unwrap_or(0);
        self.names.fetch_max(number, Relaxed);
        number
    }

    pub(super) fn keep(&self, name: &str, file: &File) -> io::Result<()> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.keep(name, file.as_fd()))
    }

    pub(super) fn release(&self, name: &str) {
        if let Some(keeper) = self.keeper.as_ref().filter(|_| !self.is_detached.load(Relaxed)) {
            keeper.release(name);
        }
    }

    /// From now on files stay with the keeper, whatever becomes of them here.
    pub(super) fn detach(&self) {
        self.is_detached.store(true, Relaxed);
    }

    /// From now on they are released as they are given up.
    pub(super) fn attach(&self) {
        self.is_detached.store(false, Relaxed);
    }
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeping").field("has_keeper", &self.keeper.is_some()).finish_non_exhaustive()
    }
}
