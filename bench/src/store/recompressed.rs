//! What the store holds for the same pages once all of them are cold.

use std::time::Duration;

use tmem_store::{RecompressionOptions, Store};

use crate::{error::BenchError, interrupt::Interrupt};

/// One call of the store's recompression; between two the program looks whether it was asked to end.
const RECOMPRESS_FOR: Duration = Duration::from_millis(100);

/// Recompresses every page, as the daemon does with those that were left alone for long enough, and gives the logical bytes over all
/// memory held afterwards.
pub(super) fn ratio_recompressed(store: &Store, interrupt: &Interrupt) -> Result<f64, BenchError> {
    store
        .set_recompression(RecompressionOptions { age: Duration::ZERO, ..RecompressionOptions::default() })?;
    loop {
        interrupt.check()?;
        let recompressed = store.recompress(RECOMPRESS_FOR);
        let compacted = store.compact(RECOMPRESS_FOR);
        if !recompressed.more && compacted.emptied_extents == 0 {
            break;
        }
    }
    let usage = store.usage();
    Ok(usage.logical_bytes as f64 / usage.held_bytes.max(1) as f64)
}
