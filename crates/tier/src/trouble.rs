//! What an error of the disk says about the tier.

use std::io;

use tmem_store::TierState;

pub(crate) use crate::health::Trouble;
use crate::queue::Operation;

/// The state that a failed operation puts the tier in.
pub(crate) fn state_after(operation: Operation, error: &io::Error) -> TierState {
    let writes = operation == Operation::Write;
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) if writes => TierState::Full,
        // EPERM: a block device that was set read-only. EBADF: opened for reading alone.
        Some(libc::EROFS | libc::EPERM | libc::EACCES | libc::EBADF) if writes => TierState::ReadOnly,
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM) => TierState::Missing,
        _ => TierState::Failing,
    }
}

/// What a failed operation says: the state, and for people what failed and why.
pub(crate) fn of(operation: Operation, error: &io::Error) -> Trouble {
    (state_after(operation, error), describe(operation, error))
}

fn describe(operation: Operation, error: &io::Error) -> String {
    let what = match operation {
        Operation::Read => "reading",
        Operation::Write => "writing",
    };
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{what}: the disk does not answer"),
        io::ErrorKind::UnexpectedEof => format!("{what}: it is shorter than it was"),
        _ => format!("{what}: {error}"),
    }
}
