//! What the worker before this one has lent: this one goes on with it, or nobody ever does.

use std::{fmt, os::fd::OwnedFd, sync::Arc, thread};

use anyhow::{Context, Result};
use tmem_control::ByteSize;
use tmem_peers::{Lender, LentBy};
use tmem_store::FileKeeper;

/// Memory files, under the names by which the keeper knows them.
type Files = Vec<(String, OwnedFd)>;

/// What there is to be lent, before it is.
pub(super) struct Lent {
    /// Who lends it. `None`: not known yet.
    by: Option<LentBy>,
    /// What was left. None: nothing, or it is given up.
    files: Files,
    keeper: Arc<dyn FileKeeper>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Lent {
    /// What was left, if this process can go on with it; otherwise it is given up.
    pub(super) fn look_at(
        left: Files,
        keeper: Arc<dyn FileKeeper>,
        can_go_on: impl FnOnce(&Files) -> bool,
    ) -> Self {
        if left.is_empty() || can_go_on(&left) {
            return Self { by: None, files: left, keeper };
        }
        give_up(left, &*keeper);
        Self { by: None, files: Files::new(), keeper }
    }

    pub(super) fn by(self, by: LentBy) -> Self {
        Self { by: Some(by), ..self }
    }

    /// Whether anything was lent before, which is good in its epoch only.
    pub(super) fn goes_on(&self) -> bool {
        !self.files.is_empty()
    }

    /// Finds again what was lent.
    ///
    /// # Errors
    /// It is damaged, and given up. Nothing is to be lent in this epoch any more.
    pub(super) fn lender(self) -> Result<Lender> {
        let Self { by: Some(by), files, keeper } = self else {
            anyhow::bail!("nobody has looked at what was lent")
        };
        if files.is_empty() {
            return Ok(Lender::new(by, keeper));
        }
        let again = files.iter().map(|(name, file)| Ok((name.clone(), file.try_clone()?)));
        let again = again.collect::<Result<Files>>().context("no descriptors for what was lent");
        let taken = again.and_then(|again| {
            Lender::take_over(by, Arc::clone(&keeper), again).context("what was lent to others is dropped")
        });
        match &taken {
            Ok(lender) => log::info!(
                "cluster: goes on with {} that others have here",
                ByteSize::from_bytes(lender.held_bytes()).rounded()
            ),
            Err(_) => give_up(files, &*keeper),
        }
        taken
    }
}

/// Whether a lender could go on with these. If not, says why.
pub(super) fn can_go_on(by: LentBy, left: &Files) -> bool {
    let checked = Lender::check_left(by, left);
    checked.inspect_err(|error| log::warn!("cluster: what was lent to others is dropped: {error}")).is_ok()
}

/// Nobody is to go on with any of these.
pub(crate) fn give_up(left: Files, keeper: &dyn FileKeeper) {
    let given_up = tmem_peers::give_up(left, keeper);
    // Gigabytes may take a second to become the system's, and guests wait for this process. Without a thread it is done here.
    if !given_up.is_empty() {
        let _ = thread::Builder::new().name("give-back".to_owned()).spawn(move || drop(given_up));
    }
}
