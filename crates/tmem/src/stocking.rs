//! How much memory the store may have found ahead: what the host and the daemon's cgroup still have.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tmem_control::HostMemory;
use tmem_store::{StockKeeper, Store};

/// So much of what is available is never asked for. Beyond what the kernel calls available it would have to take from others, and at a
/// cgroup's limit it kills; how much there is changes between the look and the asking, by what others take in that time.
const KEPT_BYTES: u64 = 4 << 20;

/// While there is plenty, what was seen is good for so long: no host loses a gibibyte in that time.
const PLENTY_BYTES: u64 = 1 << 30;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Starts the thread that finds memory ahead of puts. Dropping what this gives ends it.
pub(crate) fn start(store: Arc<Store>) -> Result<StockKeeper> {
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
                let bytes = host.available_bytes.saturating_sub(KEPT_BYTES);
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
