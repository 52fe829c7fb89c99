//! What keeps pages: the store, zram, or bare LZ4 as the yardstick of both.

use crate::{error::BenchError, page::Page};

/// Keeps one page at each place, 0 to a number given when it was made. All methods run on several threads at once, on different
/// places.
pub(super) trait Keeper: Sync {
    /// Its name, for errors.
    const NAME: &'static str;

    /// Keeps a page; replaces what is at that place.
    fn put(&self, place: usize, page: &Page) -> Result<(), BenchError>;

    /// Fetches what is at that place.
    fn get(&self, place: usize, target: &mut Page) -> Result<(), BenchError>;
}
