//! How much of this host is idle.

use std::cell::Cell;

use tmem_control::{HostMemory, Knobs, host_memory_bytes};

/// What the pool leaves to the host is left to it by what is lent twice: so the pool grows before others get more, and others give back
/// before the pool has to.
const RESERVES: u64 = 2;

/// What is available, whenever it is asked for. While the host cannot be looked at it is what it was: nobody should have to take pages
/// elsewhere because of that.
pub(super) fn available_bytes() -> impl Fn() -> u64 + Send + 'static {
    let last = Cell::new(0);
    move || {
        if let Ok(host) = HostMemory::read() {
            last.set(host.available_bytes);
        }
        last.get()
    }
}

/// What of it is not lent. `None`: the host cannot be looked at.
pub(super) fn reserve_bytes(knobs: &Knobs) -> Option<u64> {
    knobs.reserve_bytes(host_memory_bytes().ok()?).map(|bytes| bytes.saturating_mul(RESERVES))
}
