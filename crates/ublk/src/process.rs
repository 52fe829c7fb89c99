//! What a process has to be before it may serve its own host's swap.

use crate::{error::UblkError, heap, io_flusher, locked_memory, oom, swap_off};

/// Makes the calling thread, and those that it will make, fit to serve swap: they are I/O flushers, and share one heap. Called before
/// there are any others; [`UblkFrontend::start`](crate::UblkFrontend::start) looks whether it was.
///
/// # Errors
/// The process may not.
pub fn prepare_process() -> Result<(), UblkError> {
    // Before this thread is a flusher: what turns swap off needs memory more than it helps to get some.
    swap_off::start_helper().map_err(|error| UblkError::Helper { error })?;
    io_flusher::become_io_flusher()?;
    oom::open();
    heap::share();
    Ok(())
}

/// Whether [`prepare_process`] has made the calling thread fit, or the one that made it.
pub fn is_prepared() -> bool {
    io_flusher::is_one()
}

/// Makes the calling thread, and those that it will make, ordinary ones: this process will not serve swap. Without the right to, they are.
pub fn prepare_ordinary_process() {
    let _already_ordinary = io_flusher::resign();
}

/// Makes sure that the process is fit to serve swap with so many queues more, and keeps it so.
pub(crate) fn make_fit(queues: u16) -> Result<(), UblkError> {
    io_flusher::check_all_threads()?;
    locked_memory::lock_process()?;
    heap::reserve(queues).map_err(|error| UblkError::Memory { error })?;
    if let Err(error) = oom::exempt_process() {
        log::warn!(
            "cannot keep this daemon from being killed when the host runs out of memory: {error}; it needs CAP_SYS_RESOURCE"
        );
    }
    Ok(())
}
