//! How a worker comes into what the one before it left: it looks whether it can go on with it, waits until nobody else does, and opens it.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
};

use anyhow::{Context, Result};
use tmem_keeper::{Client, Estate};
use tmem_store::{FileKeeper, Recovery, Store, StoreOptions};
use tmem_ublk::Reserve;

use crate::{memo::Memo, own_swap};

/// The names of a store's memory files begin like this, and no other's.
const STORE_PREFIX: &str = "tmem-";

/// What was left, and this process's alone.
pub(crate) struct Inheritance {
    pub(crate) estate: Arc<Estate>,
    /// `None`: there was no worker before this one, or it did not come far.
    pub(crate) memo: Option<Memo>,
    /// Workers that died before this one.
    pub(crate) worker_deaths: u32,
    /// Of a process that stood by.
    reserve: RefCell<Reserve>,
    /// What opening the store found.
    found: Cell<Option<Recovery>>,
    /// Memory that nobody goes on with.
    given_up: Cell<Vec<OwnedFd>>,
}

impl Inheritance {
    /// Waits for the worker that serves to go, if there is one.
    ///
    /// # Errors
    /// What was left was made by a version that this one does not understand: nothing has changed then, and the other worker goes on. Or the
    /// keeper is gone.
    pub(crate) fn come_into(keeper: Client) -> Result<Inheritance> {
        let mut reserve = Reserve::default();
        if keeper.hello().context("cannot speak to the keeper")? {
            let left = keeper.list().context("cannot see what the keeper holds")?;
            let estate = Estate::new(keeper.try_clone().context("cannot speak to the keeper")?, left);
            let memo = Memo::left(&estate)?;
            Store::check(estate.take_all(STORE_PREFIX))
                .context("cannot go on with what the running version has stored")?;
            let queues =
                memo.map_or(0, |memo| own_swap::queues_of(memo.disks.iter().map(|disk| &disk.frontend)));
            if queues > 0 {
                reserve = tmem_ublk::stand_by(queues).context("cannot stand by for a disk on ublk")?;
                let files = keeper.list().context("cannot see what the keeper holds")?.files;
                Store::map_ahead(files.into_iter().filter(|(name, _)| name.starts_with(STORE_PREFIX)))
                    .context("cannot map what the running version has stored")?;
            }
        }
        let worker_deaths = keeper.take().context("cannot speak to the keeper")?;
        reserve.give_back_some();
        let left = keeper.list().context("cannot see what the keeper holds")?;
        let estate = Arc::new(Estate::new(keeper, left));
        let memo = Memo::left(&estate)?;
        Ok(Inheritance {
            estate,
            memo,
            worker_deaths,
            reserve: reserve.into(),
            found: Cell::default(),
            given_up: Cell::default(),
        })
    }

    /// The least epoch that this host may begin in its cluster.
    pub(crate) fn least_epoch(&self) -> Option<u64> {
        self.memo.as_ref()?.least_epoch
    }

    /// Whether there is a store that was left.
    pub(crate) fn has_store(&self) -> bool {
        let names = self.estate.left_names();
        Store::is_whole(names.iter().map(String::as_str)) && self.memo.is_some()
    }

    /// The store that was left. `None`: there is none, or nothing was ever in it.
    ///
    /// # Errors
    /// It cannot be opened. Everything stays with the keeper.
    pub(crate) fn open_store(&self, limit_bytes: u64) -> Result<Option<Arc<Store>>> {
        let has_store = self.has_store();
        let files = self.estate.take_all(STORE_PREFIX);
        if !has_store {
            files.iter().for_each(|(name, _)| self.estate.release(name));
            return Ok(None);
        }
        let (store, found) = Store::open(files, StoreOptions { limit_bytes }, Some(self.keeper()))
            .context("cannot open what the worker before this one has left")?;
        self.found.set(Some(found));
        Ok(Some(store))
    }

    /// The next step of taking over begins: it finds free memory.
    pub(crate) fn make_room(&self) {
        self.reserve.borrow_mut().give_back_some();
    }

    /// This process serves: what is left in reserve is for what comes, above all for the store's stock.
    pub(crate) fn give_all_back(&self) {
        self.reserve.take();
    }

    /// Nobody goes on with these, and whoever waits for this process does not wait until their memory is given back.
    pub(crate) fn free_later(&self, given_up: Vec<OwnedFd>) {
        self.given_up.set(given_up);
    }

    /// What was to be freed later.
    pub(crate) fn take_given_up(&self) -> Vec<OwnedFd> {
        self.given_up.take()
    }

    /// Says what was found, which is for when it is served: the log may be a file on this host's own swap.
    pub(crate) fn say_what_was_found(&self) {
        let Some(found) = self.found.take() else { return };
        let time = found.mapping_time + found.index_time + found.extent_time;
        log::info!("{} pages of {} clients taken over in {:.1?}", found.found_pages, found.clients, time);
        if found.damaged_pages + found.damaged_records > 0 {
            log::error!(
                "{} pages and {} descriptions of clients and pools are damaged: gets of such pages are I/O errors",
                found.damaged_pages,
                found.damaged_records
            );
        }
    }

    /// A new store.
    pub(crate) fn new_store(&self, limit_bytes: u64) -> Result<Arc<Store>> {
        Store::new_kept(StoreOptions { limit_bytes }, self.keeper()).context("cannot make the pool")
    }

    /// Keeps memory files for the next worker, under the names that they are given.
    pub(crate) fn keeper(&self) -> Arc<dyn FileKeeper> {
        Arc::new(KeptFiles(Arc::clone(&self.estate)))
    }
}

struct KeptFiles(Arc<Estate>);

impl FileKeeper for KeptFiles {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        self.0.keep(name, file)
    }

    fn release(&self, name: &str) {
        self.0.release(name);
    }
}
