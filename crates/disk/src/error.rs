//! What can go wrong with a disk, and with one request.

use tmem_store::{GetError, PutError, StoreError};

/// A disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The size is not one a disk can have.
    #[error(
        "disk '{name}': {size_bytes} bytes is no size for a disk: give a multiple of 4096 from 1 MiB to 15 TiB"
    )]
    Size {
        /// The disk's name.
        name: String,
        /// The size asked for, in bytes.
        size_bytes: u64,
    },
    /// The store refused the disk's client, pool or first page.
    #[error("disk '{name}': {source}")]
    Store {
        /// The disk's name.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// The store that was opened has no such disk.
    #[error("disk '{name}' is not among those that the process before this one left, or is of another size")]
    NotLeft {
        /// The disk's name.
        name: String,
    },
    /// There is no room for the page that makes the disk a swap area.
    #[error("disk '{name}': cannot write its swap header: {source}; raise the pool's size or the disk's cap")]
    Format {
        /// The disk's name.
        name: String,
        /// Why.
        source: IoError,
    },
}

/// Why a block request failed. Every variant is an I/O error for whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The request reaches beyond the end of the disk.
    #[error("beyond the end of the disk")]
    OutOfRange,
    /// Offset or length is not a multiple of 4096 bytes.
    #[error("offset or length is not a multiple of 4096 bytes")]
    Unaligned,
    /// A page of the request was refused; the others may be written.
    #[error("the pool has no room for it, or does not take such a page now")]
    Refused,
    /// The block held something, and its last write was refused: the old contents are gone and the new ones never came.
    #[error("the block's last write was refused")]
    Lost,
    /// A stored page failed its check.
    #[error("the stored page is damaged")]
    Damaged,
    /// The page is in a tier that cannot be read at present.
    #[error("the page is in a tier that cannot be read at present")]
    TierUnavailable,
    /// The disk was removed.
    #[error("the disk was removed")]
    Removed,
}

impl From<PutError> for IoError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Full
            | PutError::OverCap
            | PutError::OverShare
            | PutError::Incompressible
            | PutError::Frozen => IoError::Refused,
            PutError::NoSuchPage => IoError::OutOfRange,
            PutError::Destroyed => IoError::Removed,
        }
    }
}

impl From<GetError> for IoError {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Refused => IoError::Lost,
            GetError::Damaged => IoError::Damaged,
            GetError::TierUnavailable => IoError::TierUnavailable,
            GetError::NoSuchPage => IoError::OutOfRange,
            GetError::Destroyed => IoError::Removed,
        }
    }
}
