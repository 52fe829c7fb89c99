//! How much of this host can be lent now.

use std::{cell::Cell, sync::Arc};

use tmem_control::{HostMemory, Knobs};

/// What the pool leaves to the host is left to it by what is lent twice: so the pool grows before others get more, and others give back
/// before the pool has to.
const RESERVES: u64 = 2;

/// What is available beyond that, whenever it is asked for. While the host cannot be looked at it is what it was: nobody should have to take
/// pages elsewhere because of that.
pub(super) fn watched(knobs: Arc<Knobs>) -> impl Fn() -> u64 + Send + 'static {
    let last = Cell::new(0);
    move || {
        if let Ok(host) = HostMemory::read()
            && let Some(reserve_bytes) = knobs.reserve_bytes(host.total_bytes)
        {
            last.set(host.available_bytes.saturating_sub(RESERVES.saturating_mul(reserve_bytes)));
        }
        last.get()
    }
}
