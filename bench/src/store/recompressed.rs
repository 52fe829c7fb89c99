//! What the pages take once cold ones are compressed harder.

use tmem_store::Store;

/// Logical bytes over all memory held after the store has recompressed whatever it would in the long run. Called with all pages put
/// and none of them touched since; what it does to the pages is overwritten afterwards.
///
/// Nothing as long as the store has no recompression.
pub(super) fn ratio_recompressed(_store: &Store) -> Option<f64> {
    None
}
