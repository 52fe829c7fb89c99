//! Pages to store, made from small numbers so that a model can remember millions.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    ClientKind, ClientOptions, FileKeeper, Keys, PAGE_BYTES, Persistence, Pool, Recovery, Store, StoreOptions,
};

/// A page of one of five kinds, by seed: zero, one repeated word, text-like, half noise, noise.
pub(crate) fn page(seed: u32) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let mut state = u64::from(seed) << 1 | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let noise_from = match seed % 5 {
        0 => return page,
        1 => {
            page.chunks_mut(4).for_each(|word| word.copy_from_slice(&seed.to_le_bytes()));
            return page;
        }
        2 => PAGE_BYTES,
        3 => PAGE_BYTES / 2,
        _ => 0,
    };
    for (i, chunk) in page.chunks_mut(8).enumerate() {
        let word = random();
        let word =
            if i * 8 < noise_from { word & 0x0000_000f_0000_00ff | u64::from(seed) << 40 } else { word };
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    page
}

/// Holds a store's files as another process would.
#[derive(Default)]
pub(super) struct TestKeeper(Mutex<BTreeMap<String, OwnedFd>>);

impl TestKeeper {
    /// What it holds, to be handed over.
    pub(super) fn files(&self) -> Vec<(String, OwnedFd)> {
        let files = self.0.lock().unwrap();
        files.iter().map(|(name, file)| (name.clone(), file.try_clone().unwrap())).collect()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    /// A store whose files it holds.
    pub(crate) fn store(self: &Arc<Self>, limit_bytes: u64) -> Arc<Store> {
        Store::new_kept(StoreOptions { limit_bytes }, self.clone()).unwrap()
    }

    /// The store that is in its files.
    pub(super) fn open(self: &Arc<Self>, limit_bytes: u64) -> (Arc<Store>, Recovery) {
        let opened = Store::open(self.files(), StoreOptions { limit_bytes }, Some(self.clone())).unwrap();
        while opened.0.tend_dedup(Duration::from_secs(1)) {}
        opened
    }
}

impl FileKeeper for TestKeeper {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        let before = self.0.lock().unwrap().insert(name.to_owned(), file.try_clone_to_owned()?);
        assert!(before.is_none(), "two files of the name {name}");
        Ok(())
    }

    fn release(&self, name: &str) {
        let before = self.0.lock().unwrap().remove(name);
        assert!(before.is_some(), "{name} was released twice");
    }
}

pub(crate) fn store(limit_bytes: u64) -> Arc<Store> {
    Store::new(StoreOptions { limit_bytes }).unwrap()
}

pub(crate) fn client_options(name: &str, cap_bytes: Option<u64>) -> ClientOptions {
    ClientOptions {
        name: name.to_owned(),
        kind: ClientKind::Native,
        cap_bytes,
        weight: crate::Weight::default(),
        dedup: crate::Dedup::Alone,
    }
}

/// A persistent pool of a client of its own.
pub(crate) fn flat_pool(store: &Store, name: &str, pages: u64) -> Arc<Pool> {
    let client = store.create_client(client_options(name, None)).unwrap();
    client.create_pool(Persistence::Persistent, Keys::Flat { pages }).unwrap()
}

/// What a get returns, with the page.
pub(crate) fn get(
    pool: &Pool,
    object: u64,
    index: u64,
) -> Result<Option<Box<[u8; PAGE_BYTES]>>, crate::GetError> {
    let mut target = Box::new([0xa5; PAGE_BYTES]);
    let got = pool.get(crate::ObjectId(object), crate::PageIndex(index), (&mut *target).into())?;
    Ok((got == crate::Got::Page).then_some(target))
}

/// What fetching pages together returns, with the pages, in their order.
pub(crate) fn get_many(
    pool: &Pool,
    object: u64,
    indices: &[u64],
) -> Vec<Result<Option<[u8; PAGE_BYTES]>, crate::GetError>> {
    let mut pages = vec![[0xa5; PAGE_BYTES]; indices.len()];
    let mut answers = vec![Vec::new(); indices.len()];
    let wanted = indices.iter().map(|index| crate::PageIndex(*index)).zip(pages.iter_mut().map(Into::into));
    pool.get_many(crate::ObjectId(object), wanted, |index, _, got| {
        let at = indices.iter().zip(&answers).position(|(i, said)| *i == index.0 && said.is_empty());
        answers[at.unwrap()].push(got);
    });
    let both = answers.into_iter().zip(pages);
    both.map(|(said, page)| said[0].map(|got| (got == crate::Got::Page).then_some(page))).collect()
}

pub(crate) fn put(pool: &Pool, object: u64, index: u64, seed: u32) -> Result<(), crate::PutError> {
    pool.put(crate::ObjectId(object), crate::PageIndex(index), (&page(seed)).into())
}
