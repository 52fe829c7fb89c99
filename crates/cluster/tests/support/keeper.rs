//! Keeps memory files as another process would.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Mutex,
};

use tmem_store::FileKeeper;

/// The files that were left with it.
#[derive(Default)]
pub struct Files(Mutex<BTreeMap<String, OwnedFd>>);

impl Files {
    /// All of them, as the next process gets them: they are still kept.
    pub fn left(&self) -> Vec<(String, OwnedFd)> {
        let files = self.0.lock().unwrap();
        files.iter().map(|(name, file)| (name.clone(), file.try_clone().unwrap())).collect()
    }
}

impl FileKeeper for Files {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        self.0.lock().unwrap().insert(name.to_owned(), file.try_clone_to_owned()?);
        Ok(())
    }

    fn release(&self, name: &str) {
        self.0.lock().unwrap().remove(name).unwrap();
    }
}
