//! Whether blocks of forgotten pages are overwritten.

use crate::on_off::written_on_or_off;

/// Whether the blocks of forgotten pages are overwritten with zeroes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZeroOnFlush {
    /// They are.
    On,
    /// They stay in memory until their extents are used again or go back to the OS.
    #[default]
    Off,
}

written_on_or_off!(ZeroOnFlush);
