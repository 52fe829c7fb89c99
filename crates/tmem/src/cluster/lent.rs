//! What the worker before this one has lent: this one goes on with it, or nobody ever does.

use std::{fmt, os::fd::OwnedFd, sync::Arc, thread};

use anyhow::{Context, Result};
use tmem_control::ByteSize;
use tmem_peers::{Lender, LentBy};
use tmem_store::FileKeeper;

/// Memory files, under the names by which the keeper knows them.
type Files = Vec<(String, OwnedFd)>;

/// What there is to be lent, before it is.
pub(crate) struct Lent {
    by: LentBy,
    /// What was left of it. Empty: nothing is lent yet.
    files: Files,
    keeper: Arc<dyn FileKeeper>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("by", &self.by).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Lent {
    pub(super) fn new(by: LentBy, files: Files, keeper: Arc<dyn FileKeeper>) -> Self {
        Self { by, files, keeper }
    }

    /// Finds again what was lent, and has it lent.
    ///
    /// # Errors
    /// It is damaged, or cannot be lent. It is given up then, and nothing is to be lent in this epoch any more.
    pub(super) fn lend<T>(self, lend: impl FnOnce(Lender) -> Result<T>) -> Result<T> {
        let Self { by, files, keeper } = self;
        if files.is_empty() {
            return lend(Lender::new(by, keeper));
        }
        let again = files.iter().map(|(name, file)| Ok((name.clone(), file.try_clone()?)));
        let again = again.collect::<Result<Files>>().context("no descriptors for what was lent");
        let lent = again.and_then(|again| {
            let lender = Lender::take_over(by, Arc::clone(&keeper), again)
                .context("cluster: what was lent to others is dropped")?;
            let held = ByteSize::from_bytes(lender.held_bytes()).rounded();
            log::info!("cluster: goes on with {held} that others have here");
            lend(lender)
        });
        if lent.is_err() {
            free_soon(tmem_peers::give_up(files, &*keeper));
        }
        lent
    }

    /// Nothing is to be lent.
    pub(crate) fn give_up(self) {
        free_soon(tmem_peers::give_up(self.files, &*self.keeper));
    }
}

/// Whether a lender could go on with these. If not, says why.
pub(super) fn can_go_on(by: LentBy, left: &Files) -> bool {
    let checked = Lender::check_left(by, left);
    checked.inspect_err(|error| log::warn!("cluster: what was lent to others is dropped: {error}")).is_ok()
}

/// Gives memory back: gigabytes may take a second, and guests wait for this process. It is confined by now, for a thread is begun; without one it is done
/// here.
pub(crate) fn free_soon(given_up: Vec<OwnedFd>) {
    if !given_up.is_empty() {
        let _ = thread::Builder::new().name("give-back".to_owned()).spawn(move || drop(given_up));
    }
}
