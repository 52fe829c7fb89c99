//! A small store of several clients, filled once; its files, as often as wanted.

pub mod files;
pub mod tier;
pub mod words;

use std::{collections::HashMap, sync::Arc, time::Duration};

use files::{Contents, HeldFiles};
use tier::MemoryTier;
use tmem_store::{
    Client, ClientKind, ClientOptions, Dedup, Got, Keys, ObjectId, PAGE_BYTES, PageIndex, Persistence, Pool,
    Store, StoreError, StoreOptions, Weight, WriteBackOptions,
};

pub const PAGES: u64 = 64;
/// So many of them are stored at first.
const STORED_PAGES: u64 = 56;
const LIMIT: u64 = 1 << 20;

/// A pool of a client of its own, in a dedup domain.
pub struct Filled {
    pub name: &'static str,
    pub domain: u32,
    persistence: Persistence,
    is_flat: bool,
}

/// Clients alone, two in one domain and one in another.
pub const FILLED: [Filled; 6] = [
    Filled { name: "disk", domain: 0, persistence: Persistence::Persistent, is_flat: true },
    Filled { name: "sparse", domain: 1, persistence: Persistence::Persistent, is_flat: false },
    Filled { name: "cache", domain: 2, persistence: Persistence::Ephemeral, is_flat: false },
    Filled { name: "web-1", domain: 3, persistence: Persistence::Persistent, is_flat: true },
    Filled { name: "web-2", domain: 3, persistence: Persistence::Persistent, is_flat: true },
    Filled { name: "db", domain: 4, persistence: Persistence::Persistent, is_flat: true },
];

/// What a page of a domain is filled with: neighbours are equal, other domains have other contents.
pub fn seed(domain: u32, index: u64) -> u32 {
    index as u32 / 2 * 8 + domain
}

/// A page: zeroes, a repeated word, or numbers of a few bits, or noise.
fn make_page(seed: u32) -> Box<[u8; PAGE_BYTES]> {
    let mut page = Box::new([0; PAGE_BYTES]);
    let noise_from = match seed / 8 % 6 {
        0 => return page,
        1 => {
            page.as_chunks_mut::<4>().0.fill(seed.to_le_bytes());
            return page;
        }
        2 => PAGE_BYTES,
        _ => 0,
    };
    let mut state = u64::from(seed) << 1 | 1;
    for (i, chunk) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let noise = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let word =
            if i * 8 < noise_from { noise & 0x0000_000f_0000_00ff | u64::from(seed) << 40 } else { noise };
        *chunk = word.to_le_bytes();
    }
    page
}

thread_local!(static MADE: std::cell::RefCell<HashMap<u32, std::rc::Rc<[u8; PAGE_BYTES]>>> = Default::default());

/// The page of a seed, made once.
pub fn page(seed: u32) -> std::rc::Rc<[u8; PAGE_BYTES]> {
    MADE.with_borrow_mut(|made| made.entry(seed).or_insert_with(|| make_page(seed).into()).clone())
}

/// The page, if it is there and whole.
pub fn get(pool: &Pool, index: u64) -> Option<Box<[u8; PAGE_BYTES]>> {
    let mut target = Box::new([0xa5; PAGE_BYTES]);
    match pool.get(ObjectId(0), PageIndex(index), (&mut *target).into()) {
        Ok(Got::Page) => Some(target),
        Ok(_) | Err(_) => None,
    }
}

/// Whether it was taken.
pub fn put(pool: &Pool, index: u64, seed: u32) -> bool {
    pool.put(ObjectId(0), PageIndex(index), (&*page(seed)).into()).is_ok()
}

pub fn create_client(store: &Store, name: &str, domain: u32) -> Result<Arc<Client>, StoreError> {
    let dedup = match domain {
        3 => Dedup::Domain("web".to_owned()),
        4 => Dedup::Domain("db".to_owned()),
        _ => Dedup::Alone,
    };
    let (kind, weight) = (ClientKind::Native, Weight::default());
    store.create_client(ClientOptions { name: name.to_owned(), kind, cap_bytes: None, weight, dedup })
}

pub fn create_pool(client: &Client, is_flat: bool) -> Result<Arc<Pool>, StoreError> {
    client.create_pool(Persistence::Persistent, keys(is_flat))
}

fn keys(is_flat: bool) -> Keys {
    if is_flat { Keys::Flat { pages: PAGES } } else { Keys::Sparse { max_pages: 1 << 12 } }
}

/// The store as it was left, to be opened over and over.
pub struct Original {
    contents: Contents,
    tier: MemoryTier,
}

impl Original {
    pub fn new() -> Original {
        let (held, tier) = (Arc::<HeldFiles>::default(), Arc::<MemoryTier>::default());
        let store = Store::new_kept(StoreOptions { limit_bytes: LIMIT }, held.clone()).expect("a store");
        store.attach_tier(tier.clone()).expect("a tier");
        for Filled { name, domain, persistence, is_flat } in FILLED {
            let client = create_client(&store, name, domain).expect("a client");
            let pool = client.create_pool(persistence, keys(is_flat)).expect("a pool");
            (0..STORED_PAGES)
                .for_each(|index| assert!(put(&pool, index, seed(domain, index)), "{name} {index}"));
            // The first clients' pages that fill an extent go to the tier, the others' stay.
            let age = (domain < 3).then_some(Duration::ZERO);
            store.set_write_back_options(WriteBackOptions { age, write_through: false });
            store.write_back(Duration::from_secs(5));
        }
        let (usage, clients) = store.snapshot();
        let tiered = store.tier_usage().expect("a tier").stored_pages;
        assert!(tiered > 10 && tiered + 20 < usage.stored_pages, "{tiered} pages in the tier, {usage:?}");
        assert!(
            clients.iter().all(|client| client.name == "cache" || client.dedup_pages > 0),
            "nothing is shared"
        );
        store.detach();
        drop(store);
        Original { contents: held.contents(), tier: tier.copy() }
    }

    /// Files with what the store left in them.
    pub fn files(&self) -> Arc<HeldFiles> {
        Arc::new(self.contents.write())
    }

    /// Opens the store that is in these files.
    pub fn open(&self, files: &Arc<HeldFiles>) -> Result<Arc<Store>, StoreError> {
        let (store, _) = Store::open(files.all(), StoreOptions { limit_bytes: LIMIT }, Some(files.clone()))?;
        // Damaged entries may name places that it does not have; then there is none.
        let _ = store.attach_tier(Arc::new(self.tier.copy()));
        Ok(store)
    }
}
