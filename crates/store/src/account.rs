//! A client's account: what it may use and what it uses.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    age_table::AgeTable,
    ages::{self, Ages},
    client::ClientOptions,
};

/// Shared by all pools of a client.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) options: ClientOptions,
    pub(crate) ages: Ages,
    used_bytes: AtomicU64,
    stored_pages: AtomicU64,
    peak_stored_pages: AtomicU64,
}

impl Account {
    /// `ages` is where the client's ages are, if it is one that was there before.
    pub(crate) fn new(options: ClientOptions, ages: AgeTable) -> Self {
        Self {
            options,
            ages: Ages::over(ages, ages::now_ms()),
            used_bytes: AtomicU64::new(0),
            stored_pages: AtomicU64::new(0),
            peak_stored_pages: AtomicU64::new(0),
        }
    }

    /// Replaces `old_bytes` of the client's memory by `new_bytes` unless that takes it over its cap; says whether it did. Using
    /// less is always allowed.
    #[must_use]
    pub(crate) fn try_replace(&self, old_bytes: u64, new_bytes: u64) -> bool {
        let cap_bytes = self.options.cap_bytes.unwrap_or(u64::MAX);
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

    pub(crate) fn stored_pages(&self) -> u64 {
        self.stored_pages.load(Ordering::Relaxed)
    }

    pub(crate) fn peak_stored_pages(&self) -> u64 {
        self.peak_stored_pages.load(Ordering::Relaxed)
    }
}
