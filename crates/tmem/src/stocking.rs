//! How much memory the store may have found ahead: what the host and the daemon's cgroup still have.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tmem_control::{HostMemory, free_memory_bytes};
use tmem_store::{StockKeeper, Store};

use crate::own_swap::OwnSwap;

/// So much of what is available is never asked for. Beyond what the kernel calls available it would have to take from others, and at a
/// cgroup's limit it kills; how much there is changes between the look and the asking, by what others take in that time.
const KEPT_BYTES: u64 = 4 << 20;

/// While there is plenty, what was seen is good for so long: no host loses a gibibyte in that time.
const PLENTY_BYTES: u64 = 1 << 30;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Starts the thread that finds memory ahead of puts. Dropping what this gives ends it.
///
/// A host that swaps to this daemon does so when next to nothing is available. Then half of what is free is asked for all the same: it is
/// what the kernel keeps for such times, and a page that is swapped out frees more than it takes.
pub(crate) fn start(store: Arc<Store>, own_swap: OwnSwap) -> Result<StockKeeper> {
    let mut seen: Option<(Instant, u64)> = None;
    let mut can_see = true;
    let available_bytes = move || {
        if let Some((when, bytes)) = seen
            && bytes >= PLENTY_BYTES
            && when.elapsed() < LOOK_EVERY
        {
            return bytes;
        }
        match HostMemory::read() {
            Ok(host) => {
                let mut bytes = host.available_bytes.saturating_sub(KEPT_BYTES);
                if own_swap.is_possible() {
                    bytes = bytes.max(free_memory_bytes().unwrap_or(0) / 2);
                }
                seen = Some((Instant::now(), bytes));
                can_see = true;
                bytes
            }
            // Without knowing the host the limit is all there is; once is enough to say so.
            Err(error) => {
                if can_see {
                    log::error!("memory is found ahead without looking at the host: {error}");
                }
                can_see = false;
                u64::MAX
            }
        }
    };
    StockKeeper::start(store, available_bytes).context("cannot start the thread that finds memory")
}
