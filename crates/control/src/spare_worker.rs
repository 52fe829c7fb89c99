//! Whether a spare worker stands by for the one that serves.

use crate::on_off::written_on_or_off;

/// Whether one is kept. Only a host that is its own swap has any use for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpareWorker {
    /// As long as there is a disk on ublk.
    On,
    /// Never.
    #[default]
    Off,
}

written_on_or_off!(SpareWorker);
