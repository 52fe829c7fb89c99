//! A client's account: what it may use and what it uses.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::{
    age_table::AgeTable,
    ages::{self, Ages},
    client::{ClientKind, ClientOptions, Dedup},
    client_settings::ClientSettings,
    weight::Weight,
};

/// Shared by all pools of a client.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) kind: ClientKind,
    pub(crate) dedup: Dedup,
    pub(crate) ages: Ages,
    /// [`NO_CAP`]: it has none.
    cap_bytes: AtomicU64,
    weight: AtomicU32,
    frozen: AtomicBool,
    used_bytes: AtomicU64,
    stored_pages: AtomicU64,
    peak_stored_pages: AtomicU64,
}

const NO_CAP: u64 = u64::MAX;

impl Account {
    /// `ages` is where the client's ages are, if it is one that was there before.
    pub(crate) fn new(options: ClientOptions, frozen: bool, ages: AgeTable) -> Self {
        let ClientOptions { name, kind, cap_bytes, weight, dedup } = options;
        Self {
            name,
            kind,
            dedup,
            cap_bytes: AtomicU64::new(cap_bytes.unwrap_or(NO_CAP)),
            weight: AtomicU32::new(weight.get()),
            frozen: AtomicBool::new(frozen),
            ages: Ages::over(ages, ages::now_ms()),
            used_bytes: AtomicU64::new(0),
            stored_pages: AtomicU64::new(0),
            peak_stored_pages: AtomicU64::new(0),
        }
    }

    /// What can be changed of the client, as it is now.
    pub(crate) fn settings(&self) -> ClientSettings {
        let cap_bytes = self.cap_bytes.load(Ordering::Relaxed);
        ClientSettings {
            cap_bytes: (cap_bytes != NO_CAP).then_some(cap_bytes),
            weight: self.weight(),
            frozen: self.frozen.load(Ordering::Relaxed),
        }
    }

    /// Changes that; one thread at a time.
    pub(crate) fn set(&self, settings: ClientSettings) {
        let ClientSettings { cap_bytes, weight, frozen } = settings;
        self.cap_bytes.store(cap_bytes.unwrap_or(NO_CAP), Ordering::Relaxed);
        self.weight.store(weight.get(), Ordering::Relaxed);
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Replaces `old_bytes` of the client's memory by `new_bytes` unless that takes it over its cap; says whether it did. Using
    /// less is always allowed.
    #[must_use]
    pub(crate) fn try_replace(&self, old_bytes: u64, new_bytes: u64) -> bool {
        let cap_bytes = self.cap_bytes.load(Ordering::Relaxed);
        let change = |used: u64| {
            let wanted = (used + new_bytes).saturating_sub(old_bytes);
            (wanted <= cap_bytes || new_bytes <= old_bytes).then_some(wanted)
        };
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }

    /// Enters what the client's memory holds already, be it more than its cap.
    pub(crate) fn adopt(&self, bytes: u64, pages: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count_pages(0, pages);
    }

    /// Counts a page that came or went.
    pub(crate) fn count_pages(&self, old_pages: u64, new_pages: u64) {
        if new_pages > old_pages {
            let added = new_pages - old_pages;
            let now = self.stored_pages.fetch_add(added, Ordering::Relaxed) + added;
            if now > self.peak_stored_pages.load(Ordering::Relaxed) {
                self.peak_stored_pages.fetch_max(now, Ordering::Relaxed);
            }
        } else if old_pages > new_pages {
            self.stored_pages.fetch_sub(old_pages - new_pages, Ordering::Relaxed);
        }
    }

    pub(crate) fn weight(&self) -> Weight {
        Weight::new(self.weight.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// What its pages count for against cap and share, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn stored_pages(&self) -> u64 {
        self.stored_pages.load(Ordering::Relaxed)
    }

    pub(crate) fn peak_stored_pages(&self) -> u64 {
        self.peak_stored_pages.load(Ordering::Relaxed)
    }
}
