//! The host's memory: how much may be lent, what is asked back and dropped; and copies that are moved together.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    thread,
    time::Duration,
};

use tmem_cluster::lender::lock;

use super::Shared;

/// How often the host's memory is looked at.
const ROUND: Duration = Duration::from_millis(100);

/// How long the cleaning thread sleeps when nobody rings.
const SLEEP: Duration = Duration::from_secs(5);

/// Until the server ends.
pub(super) fn watch(shared: &Arc<Shared>, available_bytes: impl Fn() -> u64) {
    while !shared.is_over() {
        look(shared, &available_bytes);
        thread::sleep(ROUND);
    }
}

/// Finds out how much may be lent, says what is asked back, and drops what is due.
pub(super) fn look(shared: &Shared, available_bytes: impl Fn() -> u64) {
    let options = &shared.options;
    let until_ms = u64::try_from(options.deadline.as_millis()).unwrap_or(u64::MAX);
    let until_ms = shared.now_ms().saturating_add(until_ms);
    let could_be = shared.lender.held_bytes().saturating_add(available_bytes());
    let reserve_bytes = shared.reserve_bytes.load(SeqCst);
    let is_lent = !shared.is_winding_down.load(SeqCst);
    let limit_bytes = if is_lent { could_be.saturating_sub(reserve_bytes).min(options.max_bytes) } else { 0 };
    for (node, copies) in shared.lender.set_limit(limit_bytes, until_ms) {
        // One that is not connected is told when it comes.
        let seat = shared.seats.of(node);
        let name = seat.as_ref().map_or_else(|| node.to_string(), |seat| seat.hello.name.to_string());
        log::info!("lending: {} copies are asked back from {name}", copies.len());
        if let Some(seat) = seat {
            seat.counters.recalls.fetch_add(copies.len() as u64, Relaxed);
            seat.recall(&copies, until_ms);
        }
    }
    shared.lender.expire(shared.now_ms());
}

/// Moves copies together where too much is dead between them. The lock is given back after each.
pub(super) fn clean(shared: &Shared) {
    while !shared.is_over() {
        for holding in shared.lender.unclean() {
            while !shared.is_over() && lock(&holding).clean_step() {
                thread::yield_now();
            }
        }
        shared.cleaning.sleep(SLEEP);
    }
}
