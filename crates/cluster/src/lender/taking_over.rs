//! Going on with what another process has lent.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError},
};

use tmem_store::FileKeeper;

use super::{
    Lender, enter,
    file::{LentBy, LentFile, NotTakenOver},
    holding::Holding,
    keeping::Keeping,
    lock,
};

/// Gives up what a process has left that is dead: nobody ever goes on with any of it, not even with what is still there when this process dies half way.
/// Gives the files once more: who drops the last descriptor of one waits until its memory is the system's.
pub fn give_up(files: Vec<(String, OwnedFd)>, keeper: &dyn FileKeeper) -> Vec<OwnedFd> {
    files.iter().for_each(|(_, file)| LentFile::spoil(file));
    files.iter().for_each(|(name, _)| keeper.release(name));
    files.into_iter().map(|(_, file)| file).collect()
}

impl Lender {
    /// Whether [`Self::take_over`] could go on with these, as far as their headers say.
    ///
    /// # Errors
    /// As there.
    pub fn check_left(by: LentBy, files: &[(String, OwnedFd)]) -> Result<(), NotTakenOver> {
        files.iter().try_for_each(|(_, file)| LentFile::check(by, file))
    }

    /// Goes on with the files that a process has left that is dead, all of them, in the epoch in which it lent: every copy is there that it
    /// acknowledged and was not told to forget.
    ///
    /// # Errors
    /// One of them is not of this node and epoch, not of this version, or damaged. None may be used then: the keeper has them still, but the next epoch
    /// has to begin.
    pub fn take_over(
        by: LentBy,
        keeper: Arc<dyn FileKeeper>,
        files: Vec<(String, OwnedFd)>,
    ) -> Result<Self, NotTakenOver> {
        let lender = Self::with(by, Keeping::by(keeper));
        // They stay as they are whatever goes wrong.
        lender.keeping.detach();
        let mut numbered: Vec<(u64, String, OwnedFd)> =
            files.into_iter().map(|(name, file)| (lender.keeping.note_name(&name), name, file)).collect();
        numbered.sort_unstable_by_key(|(number, _, _)| *number);
        // Of two files of a borrower the later one counts: it had come with another store.
        let (mut found, mut replaced) = (BTreeMap::new(), Vec::new());
        for (_, name, file) in numbered {
            let (file, hello) = LentFile::open(&lender.keeping, by, &name, file)?;
            replaced.extend(found.insert(hello.node(), (hello, file)));
        }
        for (hello, file) in found.into_values() {
            let holding = Holding::take_over(Arc::clone(&lender.budget), file)?;
            let mut borrowers = lender.borrowers.lock().unwrap_or_else(PoisonError::into_inner);
            lock(&enter(&mut borrowers, &hello, holding)).is_taken_over();
        }
        lender.keeping.attach();
        drop(replaced);
        Ok(lender)
    }
}
